"""Do tasks shift apart by more than noise? Variance over tasks of (arm - base) beyond queries, seeds and runs.

The variance over tasks of *observed* differences holds all noise, and a mean absolute difference is folded noise;
so an arm with noisier training always seems to move tasks more. Products of two independent replicates do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from realign.stats.designs import add_parts
from realign.stats.equivalence import student_interval
from realign.stats.inputs import Floats, checked_level, checked_name
from realign.stats.panel import Panel, linear_estimate, panel


@dataclass(frozen=True)
class Excess:
    """Variance over tasks of true shifts, in squared points.

    Attributes:
        excess: arm to its unbiased estimate (negative where noise explains more than all).
        observed: arm to the variance of the observed shifts.
        value: excess of the last arm minus that of the first, or the excess of the only one.
        error: its standard error.
        freedom: its degrees of freedom.
        low: lower end of the interval.
        high: upper end of it.
        level: coverage of the interval.
        run_identified: whether every arm has two or more runs; if not, the shifts are those of that run.
    """

    excess: dict[str, float]
    observed: dict[str, float]
    value: float
    error: float
    freedom: float
    low: float
    high: float
    level: float
    run_identified: bool


def excess_variance(scores: pd.DataFrame, base: str, *arms: str, level: float = 0.90) -> Excess:
    """Excess variance of the task shifts of one arm, or how much larger it is for the second arm than for the first.

    Estimate: with X (models x tasks, each model centred over tasks) and C_t the covariance of models over the
    queries of task t, divided by their number, ``H = X X' / (T - 1) - mean_t C_t``; the excess is the mean of H over
    pairs of models of the arm that share neither run nor seed, plus the same for base, minus twice that of arm and
    base models that share no seed. Each pair has independent training noise, and C_t takes out the queries they
    share: unbiased (a U-statistic).

    Interval: the estimate is quadratic in the shifts x = mu + noise, so its variance is that of the linear part
    ``2 (mu_t - mu) x_t / (T - 1)``, by :func:`realign.stats.panel.linear_estimate` at shrunken shifts, jointly for
    all arms (they share base), plus ``2 b^2 / nu`` for each arm, b the mean noise variance of a shift and nu the
    effective number of tasks. Resampling two or three runs and seeds instead covers too rarely
    (tests/stats/test_excess.py).

    Args:
        scores: as for :func:`realign.stats.panel.panel`; of one suite, with 3 tasks or more.
        base: the arm from which shifts are counted.
        arms: one arm, or two (the difference is second minus first).
        level: coverage.

    Raises:
        TypeError: scores is not a frame, or its scores are not numbers.
        ValueError: another number of arms, fewer than 3 tasks, an arm with a single trained model, or faulty scores.
    """
    level = checked_level(level)
    for name in (base, *arms):
        checked_name(name, "base or arms")
    if len(arms) not in (1, 2) or base in arms:
        raise ValueError(f"name one arm or two besides the base '{base}', got {list(arms)}")
    return excess_of_panel(panel(scores, (base, *arms)), base, arms, level)


def excess_of_panel(data: Panel, base: str, arms: tuple[str, ...], level: float) -> Excess:
    """Do what :func:`excess_variance` does, for scores that are laid out already."""
    tasks = len(data.tasks)
    if tasks < 3:
        raise ValueError(f"a variance over tasks needs 3 tasks or more, got {tasks}")
    centre = np.eye(tasks) - 1 / tasks
    products = _products(data, centre)
    signs = (1.0,) if len(arms) == 1 else (-1.0, 1.0)
    excess, observed, more = {}, {}, []
    projection: dict[str, Floats] = {base: np.zeros(tasks)}
    for arm, sign in zip(arms, signs, strict=True):
        weights = pair_weights(data, base, arm)
        excess[arm] = float((weights * products).sum())
        shift = centre @ (_mean(data, arm) - _mean(data, base))
        observed[arm] = float(shift @ shift) / (tasks - 1)
        kept = np.sqrt(min(max(excess[arm], 0.0) / observed[arm], 1.0)) if observed[arm] else 0.0
        projection[arm] = sign * 2 / (tasks - 1) * kept * shift
        projection[base] = projection[base] - projection[arm]
        noise = np.array([linear_estimate(data, {base: -row, arm: row}).variance for row in centre])
        if noise.any():
            effective = max(1.0, (1 - 1 / tasks) * float(noise.sum() ** 2 / (noise**2).sum()))
            more.append((2 * float(noise.mean()) ** 2 / effective, effective))
    linear = linear_estimate(data, projection)
    variance, freedoms = add_parts(*zip((linear.variance, linear.freedom), *more, strict=True))
    value = sum(sign * excess[arm] for arm, sign in zip(arms, signs, strict=True))
    error, freedom = float(np.sqrt(variance)), float(freedoms)
    low, high = student_interval(value, error, freedom, level)
    identified = all(data.layouts[arm].runs > 1 for arm in arms)
    return Excess(excess, observed, value, error, freedom, low, high, level, identified)


def pair_weights(data: Panel, base: str, arm: str) -> Floats:
    """Weights (M, M) of products of models whose sum estimates the squared shift without training noise."""
    weights = np.zeros((len(data.models), len(data.models)))
    of_seed, of_run = (data.models[name].to_numpy() for name in ("seed", "run"))
    for a, b, factor in ((arm, arm, 1.0), (base, base, 1.0), (arm, base, -2.0)):
        rows, columns = data.rows[a], data.rows[b]
        seeds, runs = (each[rows, None] != each[columns] for each in (of_seed, of_run))
        if a == b:
            several = data.layouts[a]
            free = (seeds | (several.seeds == 1)) & (runs | (several.runs == 1))
            if (
                several.seeds > 1 and several.runs > 1 and not free.any()
            ):  # runs that share no seed pair by pair
                free = runs
            free &= ~np.eye(len(rows), dtype=bool)
            if not free.any():
                raise ValueError(f"'{a}' has a single trained model: its noise is unknown")
        else:
            free = seeds if seeds.any() else np.ones_like(seeds)
        weights[np.ix_(rows, columns)] += factor * free / free.sum()
    return (weights + weights.T) / 2


def _products(data: Panel, centre: Floats) -> Floats:
    """H (M, M): products of models over tasks without the noise of the queries that they share."""
    tasks = len(data.tasks)
    centred = data.scores @ centre
    known = data.noise[data.queries > 0]  # tasks without queries: as the average other task
    return centred @ centred.T / (tasks - 1) - (known.mean(axis=0) if len(known) else 0.0)


def _mean(data: Panel, arm: str) -> Floats:
    return data.layouts[arm].weights @ data.scores[data.rows[arm]]
