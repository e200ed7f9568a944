"""Intervals of a mean, and two one-sided tests of whether it is smaller than a margin (TOST)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from realign.stats.inputs import Floats, checked_count, checked_level, checked_margin, real_array


def bootstrap_mean(
    values: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Studentised bootstrap interval of a mean (Efron and Tibshirani 1993, 12.5).

    The percentile interval is too short for the 5 to 30 tasks of a suite; dividing each resample's shift by its
    own standard error repairs that. Below 5 values, which have too few distinct resamples, it is Student's
    interval. NaN for a single value.
    """
    x, level = real_array(values, "values"), checked_level(level)
    resamples, seed = checked_count(resamples, "resamples"), checked_count(seed, "seed", 0)
    n = len(x)
    if n < 2:
        return float("nan"), float("nan")
    mean, error = float(x.mean()), standard_error(x)
    if error <= 1e-12 * float(np.abs(x).max()):  # equal values, up to rounding
        return mean, mean
    if n < 5:
        return student_interval(mean, error, n - 1, level)
    drawn = x[np.random.default_rng(seed).integers(0, n, size=(resamples, n))]
    spread = drawn.std(axis=1, ddof=1)
    drawn, spread = drawn[spread > 0], spread[spread > 0]
    t = (drawn.mean(axis=1) - mean) / (spread / np.sqrt(n))
    tails = np.quantile(t, [(1 + level) / 2, (1 - level) / 2])
    low, high = mean - tails * error
    return float(low), float(high)


def t_interval(values: ArrayLike, level: float = 0.90) -> tuple[float, float]:
    """Return Student's interval for the mean of independent values; NaN for a single one."""
    x, level = real_array(values, "values"), checked_level(level)
    if len(x) < 2:
        return float("nan"), float("nan")
    return student_interval(float(x.mean()), standard_error(x), len(x) - 1, level)


def tost(values: ArrayLike, margin: float) -> float:
    """Two one-sided t-tests: p-value of "the mean is at least the margin away from 0" (Schuirmann 1987; Lakens 2017).

    Below 0.05 exactly when the 90% t-interval of the mean lies within (-margin, margin). NaN for a single value.
    """
    x, margin = real_array(values, "values"), checked_margin(margin)
    if len(x) < 2:
        return float("nan")
    return student_tost(float(x.mean()), standard_error(x), len(x) - 1, margin)


def standard_error(x: Floats) -> float:
    """Return the standard error of the mean of independent values."""
    return float(x.std(ddof=1) / np.sqrt(len(x)))


def student_interval(mean: float, error: float, freedom: float, level: float) -> tuple[float, float]:
    """Return the interval of an estimate with a standard error and its degrees of freedom."""
    half = float(student.ppf((1 + level) / 2, freedom)) * error
    return mean - half, mean + half


def student_tost(mean: float, error: float, freedom: float, margin: float) -> float:
    """Return the TOST p-value of an estimate with a standard error and its degrees of freedom."""
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    below = student.sf((mean + margin) / error, freedom)
    above = student.cdf((mean - margin) / error, freedom)
    return float(max(below, above))
