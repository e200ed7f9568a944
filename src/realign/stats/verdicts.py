"""Verdicts from intervals: for one threshold, for every threshold, and for claims of several parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from realign.stats.inputs import checked_choice, checked_instance, checked_level, checked_number, real_array

Test = Literal["inside", "above", "below"]
TESTS = ("inside", "above", "below")
Verdict = Literal["holds", "fails", "undecided"]


def verdict(low: float, high: float, test: Test, threshold: float) -> Verdict:
    """Judge an interval: each end of a 90% interval errs at most 5% of the time.

    "above" holds when low > threshold and fails when high < threshold; "below" the other way; "inside" holds when
    the interval lies within (-threshold, threshold) and fails when it lies outside. NaN ends are undecided.
    """
    checked_choice(test, "test", TESTS)
    low, high = (checked_number(v, n, finite=False) for v, n in ((low, "low"), (high, "high")))
    if np.isnan(checked_number(threshold, "threshold", finite=False)):
        raise ValueError("threshold must be a number, got NaN")
    if test == "inside":
        holds, fails = -threshold < low and high < threshold, low >= threshold or high <= -threshold
    elif test == "above":
        holds, fails = low > threshold, high < threshold
    else:
        holds, fails = high < threshold, low > threshold
    return "holds" if holds else "fails" if fails else "undecided"


def verdict_curve(low: float, high: float, test: Test) -> pd.DataFrame:
    """For which thresholds an interval holds, fails, or leaves undecided.

    Returns:
        rows of start, stop, verdict in increasing order of the threshold, without gaps; margins ("inside") start
        at 0. What a reader with another threshold in mind would conclude.
    """
    checked_choice(test, "test", TESTS)
    low, high = (checked_number(v, n, finite=False) for v, n in ((low, "low"), (high, "high")))
    if not low <= high:
        raise ValueError(f"low must not exceed high, got {low} and {high}")
    ends = (max(low, -high, 0.0), max(-low, high)) if test == "inside" else (low, high)
    start = 0.0 if test == "inside" else -np.inf
    edges = [start, *ends, np.inf]
    words: tuple[Verdict, ...] = (
        ("holds", "undecided", "fails") if test == "above" else ("fails", "undecided", "holds")
    )
    rows = [(a, b, word) for a, b, word in zip(edges, edges[1:], words, strict=False) if a < b]
    return pd.DataFrame(rows, columns=["start", "stop", "verdict"])


def draws_interval(draws: ArrayLike, level: float = 0.90) -> tuple[float, float]:
    """Percentile interval of bootstrap draws, for :func:`verdict` and :func:`verdict_curve`."""
    values, level = real_array(draws, "draws", name="draws"), checked_level(level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Family:
    """Error of a claim with several parts.

    Attributes:
        p: p-value of the claim.
        adjusted: p-value of each part with which the claim's error stays at the level.
        holds: whether the claim holds at the level.
        error: upper bound of the chance that the claim holds though it is false, by this rule.
        unadjusted: the same bound had each part been tested at the level without correction.
        statement: both in words.
    """

    p: float
    adjusted: dict[str, float]
    holds: bool
    error: float
    unadjusted: float
    statement: str


def family(parts: Mapping[str, float], *, needs: Literal["all", "any"], level: float = 0.05) -> Family:
    """Family-wise error of a claim that needs all of its parts, or any.

    "all": the claim is false when one part is, so testing each at the level is enough (intersection-union test,
    Berger 1982): p is the largest. "any": Holm's (1979) step-down p-values, valid for any dependence: the i-th
    smallest of k times (k - i + 1), made monotone; p is the smallest of them.

    Args:
        parts: p-value of each part, of "this part is false".
        needs: which parts the claim needs.
        level: of the claim.
    """
    level = checked_level(level)
    checked_instance(parts, "parts", Mapping)
    checked_choice(needs, "needs", ("all", "any"))
    p = real_array(list(parts.values()), "p-values", name="parts")
    if ((p < 0) | (p > 1)).any():
        raise ValueError("parts must hold p-values, which lie between 0 and 1")
    k = len(p)
    if needs == "all":
        whole, adjusted, unadjusted = float(p.max()), p, level
        rule = f"all {k} parts must hold (intersection-union test): each is tested at {level:.0%}, no correction is needed, and the claim errs at most {level:.0%} of the time"
    else:
        order = np.argsort(p)
        stepped = np.minimum(np.maximum.accumulate(p[order] * np.arange(k, 0, -1)), 1.0)
        adjusted = np.empty(k)
        adjusted[order] = stepped
        whole, unadjusted = float(adjusted.min()), min(1.0, k * level)
        rule = f"any of {k} parts makes the claim: Holm's correction keeps its error at {level:.0%}; without it the error could reach {unadjusted:.0%}"
    return Family(
        p=whole,
        adjusted=dict(zip(parts, (float(v) for v in adjusted), strict=True)),
        holds=whole < level,
        error=level,
        unadjusted=unadjusted,
        statement=rule,
    )
