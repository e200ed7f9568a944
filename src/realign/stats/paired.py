"""Paired comparison of two arms over the tasks and training seeds that both have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import monte_carlo_test, permutation_test

from realign.stats.designs import crossed_mean, hierarchical_interval
from realign.stats.equivalence import student_tost, tost
from realign.stats.inputs import (
    Floats,
    checked_count,
    checked_margin,
    checked_name,
    real_array,
    require_columns,
)

EXACT = 14
"""Up to so many values the permutation test goes through every pattern of signs."""


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


def sign_flip_p(values: ArrayLike, *, flips: int = 20_000, seed: int = 0) -> float:
    """Two-sided permutation p-value of "paired differences are symmetric about 0".

    Exact (all sign patterns) up to 14 values, else from ``flips`` random ones with (b + 1) / (m + 1).
    """
    x = real_array(values, "values")
    flips, seed = checked_count(flips, "flips"), checked_count(seed, "seed", 0)
    size = float(np.abs(x).sum()) or 1.0

    def distance(x: Floats, axis: int) -> Floats:
        # rounded, so that sums that differ by rounding only are equal
        return np.round(np.abs(x.sum(axis=axis)) / size, 12)

    if len(x) == 1:
        return 1.0  # (scipy wants two observations)
    if len(x) <= EXACT:
        exact = permutation_test(
            (x,),
            distance,
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
            alternative="greater",
        )
        return float(exact.pvalue)
    rng = np.random.default_rng(seed)

    def flipped(size: tuple[int, ...]) -> Floats:
        return rng.choice([-1.0, 1.0], size=size) * x

    return float(
        monte_carlo_test(
            x, flipped, distance, vectorized=True, n_resamples=flips, alternative="greater"
        ).pvalue
    )


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
        TypeError: scores is not a frame, or its scores are not numbers.
        ValueError: a column or an arm is missing, a task is listed twice, a score is infinite, or the arms share
            no task and seed.
    """
    margin, resamples = checked_margin(margin), checked_count(resamples, "resamples")
    table = _differences(scores, a, b, arm).to_numpy(dtype=np.float64)
    seeds = table.shape[1]
    per_task, per_seed = np.nanmean(table, axis=1), np.nanmean(table, axis=0)
    low, high = hierarchical_interval(table, resamples=resamples, seed=seed)
    low90, high90 = hierarchical_interval(table, level=0.90, resamples=resamples, seed=seed)
    crossed = min(table.shape) > 1
    tost_p = (
        student_tost(*crossed_mean(table), margin) if crossed else tost(table[np.isfinite(table)], margin)
    )
    note = ""
    if seeds == 1:
        note = "one training seed per arm: training variance is unidentified, the interval covers tasks only"
    elif np.isnan(table).any():
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
    checked_name(arm, "arm")
    checked_name(base, "base")
    if by is not None:
        checked_name(by, "by")
    require_columns(scores, {arm, "task", "seed", "score"} | ({by} if by is not None else set()))
    if not (scores[arm] == base).any():
        raise ValueError(
            f"scores has no rows of the base '{base}'; it has {sorted(map(str, set(scores[arm])))}"
        )
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
            means = part.groupby([arm, "task"])["score"].mean().groupby(level=0).mean()
            scored = {"group": group, "base_score": means[base], "score": means[name]}
            records.append({**scored, **vars(paired(part, base, name, margin, arm=arm, seed=seed))})
    return pd.DataFrame(records)


def _differences(scores: pd.DataFrame, a: str, b: str, arm: str) -> pd.DataFrame:
    """Differences b - a, one row a task, one column a seed; only what both arms have."""
    for name, value in (("arm", arm), ("a", a), ("b", b)):
        checked_name(value, name)
    require_columns(scores, {arm, "task", "seed", "score"})
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
