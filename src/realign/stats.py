"""Paired comparison of task scores: what differs, by how much, and is it small enough to call nothing.

Plain functions on arrays and frames. Scores are in points (0-100); a difference is ``b - a``. "No advantage"
is an equivalence claim: it needs a margin stated in advance and two one-sided tests (TOST), not a large p-value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as scipy_stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """How arm b differs from arm a over paired tasks.

    Attributes:
        a: name of the reference arm.
        b: name of the other arm.
        delta: mean difference b - a in points.
        low: lower end of the 95% interval.
        high: upper end of the 95% interval.
        low90: lower end of the 90% interval, the one that decides equivalence.
        high90: upper end of it.
        p: sign-flip permutation p-value of "no difference" (two-sided).
        margin: differences smaller than this count as none, in points.
        tost_p: p-value of "the difference is at least the margin" (the larger of two one-sided tests), over tasks
            and, with more than one, seeds.
        equivalent: tost_p < 0.05.
        n: number of tasks.
        seeds: number of paired training seeds.
        std_seeds: standard deviation over seeds of the mean difference; NaN with one seed.
        note: what these numbers do not cover.
    """

    a: str
    b: str
    delta: float
    low: float
    high: float
    low90: float
    high90: float
    p: float
    margin: float
    tost_p: float
    equivalent: bool
    n: int
    seeds: int
    std_seeds: float
    note: str


def bootstrap_mean(
    values: Sequence[float] | Floats, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Studentised bootstrap interval of a mean (Efron and Tibshirani 1993, 12.5).

    The percentile interval is too short for the 5 to 30 tasks of a suite; dividing each resample's shift by its
    own standard error repairs that. With fewer than 2 values both ends are NaN.
    """
    x = _finite(values)
    n = len(x)
    if n < 2:
        return float("nan"), float("nan")
    error = x.std(ddof=1) / np.sqrt(n)
    if error <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return float(x.mean()), float(x.mean())
    if n < 5:  # too few distinct resamples for a studentised bootstrap
        half = float(scipy_stats.t.ppf((1 + level) / 2, n - 1) * error)
        return float(x.mean()) - half, float(x.mean()) + half
    drawn = x[np.random.default_rng(seed).integers(0, n, size=(resamples, n))]
    spread = drawn.std(axis=1, ddof=1)
    drawn, spread = drawn[spread > 0], spread[spread > 0]
    t = (drawn.mean(axis=1) - x.mean()) / (spread / np.sqrt(n))
    tails = np.quantile(t, [(1 + level) / 2, (1 - level) / 2])
    low, high = x.mean() - tails * error
    return float(low), float(high)


def t_interval(values: Sequence[float] | Floats, level: float = 0.90) -> tuple[float, float]:
    """Return Student's interval for the mean of independent values; NaN for fewer than two."""
    x = _finite(values)
    if len(x) < 2:
        return float("nan"), float("nan")
    half = float(scipy_stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return float(x.mean()) - half, float(x.mean()) + half


def tost(values: Sequence[float] | Floats, margin: float) -> float:
    """Two one-sided t-tests: p-value of "|mean| >= margin" (Schuirmann 1987; Lakens 2017).

    Below 0.05 exactly when the 90% t-interval of the mean lies within (-margin, margin). NaN for fewer than
    2 values.
    """
    x = _finite(values)
    if margin <= 0:
        raise ValueError(f"margin must be positive, got {margin}")
    if len(x) < 2:
        return float("nan")
    return _tost(float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))), len(x) - 1, margin)


def _tost(mean: float, error: float, freedom: float, margin: float) -> float:
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    below = scipy_stats.t.sf((mean + margin) / error, freedom)
    above = scipy_stats.t.cdf((mean - margin) / error, freedom)
    return float(max(below, above))


def sign_flip_p(values: Sequence[float] | Floats, *, flips: int = 20_000, seed: int = 0) -> float:
    """Two-sided permutation p-value of "paired differences are symmetric about 0".

    Exact (all sign patterns) up to 14 values, else from ``flips`` random ones with (b + 1) / (m + 1).
    """
    x = _finite(values)
    n = len(x)
    if n == 0:
        return float("nan")
    observed = abs(x.sum())
    slack = 1e-12 * np.abs(x).sum()  # sums that differ by rounding only are equal
    if n <= 14:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ x) >= observed - slack))
    rng = np.random.default_rng(seed)
    beyond = np.abs(rng.choice([-1.0, 1.0], size=(flips, n)) @ x) >= observed - slack
    return float((beyond.sum() + 1) / (flips + 1))


def hierarchical_interval(
    differences: Any, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean of a (tasks, seeds) table, for new tasks and new training seeds.

    A seed is one trained model and shifts all tasks together, a task is shifted in all seeds, so both are random
    and crossed: the variance of the mean is (MS_task + MS_seed - MS_rest) / (tasks x seeds) with Satterthwaite's
    degrees of freedom, which keeps its coverage with 3 seeds where a bootstrap of 3 units does not. With one
    column (or row) only tasks (or seeds) vary and :func:`bootstrap_mean` is used.

    Args:
        differences: (tasks, seeds) in points; missing entries (NaN) are filled from task and seed means.
        level: coverage.
        resamples: of the bootstrap where there is one column or row.
        seed: of that bootstrap.
    """
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"differences must have shape (tasks, seeds), got {table.shape}")
    if min(table.shape) == 1:
        flat = table.ravel()
        return bootstrap_mean(flat[np.isfinite(flat)], level=level, resamples=resamples, seed=seed)
    mean, error, freedom = _crossed(table)
    half = float(scipy_stats.t.ppf((1 + level) / 2, freedom)) * error
    return mean - half, mean + half


def _crossed(table: Floats) -> tuple[float, float, float]:
    """Mean, standard error and degrees of freedom of a two-way random-effects table."""
    tasks, seeds = table.shape
    if np.isnan(table).any():
        rows, columns = np.nanmean(table, axis=1, keepdims=True), np.nanmean(table, axis=0, keepdims=True)
        table = np.where(np.isnan(table), rows + columns - np.nanmean(table), table)
    rows, columns, mean = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    rest = table - rows[:, None] - columns[None, :] + mean
    by_task, by_seed = seeds * rows.var(ddof=1), tasks * columns.var(ddof=1)
    noise = float((rest**2).sum()) / ((tasks - 1) * (seeds - 1))
    total = max(by_task + by_seed - noise, by_task, by_seed)
    if total == 0:
        return mean, 0.0, 1.0
    spread = by_task**2 / (tasks - 1) + by_seed**2 / (seeds - 1) + noise**2 / ((tasks - 1) * (seeds - 1))
    return mean, float(np.sqrt(total / table.size)), float(max(1.0, total**2 / spread))


def paired(
    scores: pd.DataFrame,
    a: str,
    b: str,
    margin: float,
    *,
    arm: str = "role",
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two arms over the tasks (and training seeds) that both have.

    Args:
        scores: frame with columns ``arm``, task, seed, score (points); other columns are ignored.
        a: reference arm.
        b: other arm.
        margin: equivalence margin in points, stated before looking.
        arm: the column that names the arm.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: a column or an arm is missing, a task is listed twice, or the arms share no task and seed.
    """
    table = _differences(scores, a, b, arm)
    per_task = np.nanmean(table.to_numpy(), axis=1)
    seeds = table.shape[1]
    per_seed = np.nanmean(table.to_numpy(), axis=0)
    low, high = hierarchical_interval(table, resamples=resamples, seed=seed)
    low90, high90 = hierarchical_interval(table, level=0.90, resamples=resamples, seed=seed)
    values = table.to_numpy(dtype=np.float64)
    tost_p = (
        _tost(*_crossed(values), margin)
        if min(values.shape) > 1
        else tost(values[np.isfinite(values)], margin)
    )
    note = ""
    if seeds == 1:
        note = "one training seed per arm: training variance is unidentified, the interval covers tasks only"
    elif np.isnan(table.to_numpy()).any():
        note = "some tasks lack some seeds"
    return Comparison(
        a=a,
        b=b,
        delta=float(per_task.mean()),
        low=low,
        high=high,
        low90=low90,
        high90=high90,
        p=sign_flip_p(per_task, seed=seed),
        margin=margin,
        tost_p=tost_p,
        equivalent=bool(tost_p < 0.05 and -margin < low90 and high90 < margin),
        n=len(per_task),
        seeds=seeds,
        std_seeds=float(per_seed.std(ddof=1)) if seeds > 1 else float("nan"),
        note=note,
    )


def delta_table(
    scores: pd.DataFrame,
    *,
    base: str = "base",
    margin: float = 1.0,
    by: str | None = "suite",
    arm: str = "role",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every arm with ``base``, overall and within each value of ``by``.

    Args:
        scores: frame with columns ``arm``, task, seed, score and, unless None, ``by``; rows whose arm is
            empty (baselines) are ignored.
        base: the reference arm.
        margin: equivalence margin in points.
        by: 'suite', 'type' or None.
        arm: the column that names the arm.
        seed: of the bootstraps.

    Returns:
        one row per group ('all' first) and arm: group, base_score, score, and the fields of Comparison.
    """
    arms = [name for name in pd.unique(scores[arm]) if name not in ("", base) and pd.notna(name)]
    groups: list[tuple[str, pd.DataFrame]] = [("all", scores)]
    if by is not None:
        groups += [
            (str(name), part) for name, part in scores.groupby(by, sort=False) if (part[arm] == base).any()
        ]
    records = []
    for group, part in groups:
        for name in arms:
            if not (part[arm] == name).any():
                continue
            found = paired(part, base, name, margin, arm=arm, seed=seed)
            means = part.groupby([arm, "task"])["score"].mean().groupby(level=0).mean()
            records.append({"group": group, "base_score": means[base], "score": means[name], **vars(found)})
    return pd.DataFrame(records)


def _differences(scores: pd.DataFrame, a: str, b: str, arm: str) -> pd.DataFrame:
    """Differences b - a, one row a task, one column a seed; only what both arms have."""
    missing = {arm, "task", "seed", "score"} - set(scores.columns)
    if missing:
        raise ValueError(f"scores lacks the columns {sorted(missing)}")
    keys = ["suite", "task"] if "suite" in scores.columns else ["task"]
    sides = []
    for name in (a, b):
        part = scores[scores[arm] == name]
        if part.empty:
            raise ValueError(
                f"scores has no rows with {arm} '{name}'; it has {sorted(map(str, set(scores[arm])))}"
            )
        twice = part.duplicated([*keys, "seed"])
        if twice.any():
            first = part[twice].iloc[0]
            raise ValueError(f"task '{first['task']}' of '{name}' is listed twice for seed {first['seed']}")
        sides.append(part.pivot(index=keys, columns="seed", values="score"))
    table = (sides[1] - sides[0]).dropna(how="all").dropna(how="all", axis=1)
    if table.empty:
        raise ValueError(f"'{a}' and '{b}' share no task with the same seed; nothing can be paired")
    return table


def _finite(values: Sequence[float] | Floats) -> Floats:
    x = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(x).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(x)))} is not finite")
    return x
