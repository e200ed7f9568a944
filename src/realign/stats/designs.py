"""Crossed designs: tasks and training seeds both vary, and a mean must hold for new ones of both."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from realign.stats.equivalence import bootstrap_mean, student_interval
from realign.stats.inputs import Floats, checked_count, checked_level, real_array


def hierarchical_interval(
    differences: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
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

    Raises:
        TypeError: the table does not hold real numbers.
        ValueError: it has another shape, an infinite value, or a task or seed without any value.
    """
    table, level = (
        real_array(differences, "tasks, seeds", missing=True, name="differences"),
        checked_level(level),
    )
    resamples, seed = checked_count(resamples, "resamples"), checked_count(seed, "seed", 0)
    if min(table.shape) == 1:
        return bootstrap_mean(table[np.isfinite(table)], level=level, resamples=resamples, seed=seed)
    for axis, name in enumerate(("seed", "task")):
        empty = np.isnan(table).all(axis=axis)
        if empty.any():
            raise ValueError(f"{name} {int(np.argmax(empty))} has no value: leave it out")
    return student_interval(*crossed_mean(table), level)


def crossed_mean(table: Floats) -> tuple[float, float, float]:
    """Mean, standard error and degrees of freedom of a two-way random-effects table, 2 x 2 or larger."""
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


class Layout:
    """How the tuning runs and contrastive seeds of one arm are crossed, and what their mean varies by.

    With R runs and S seeds the mean is over runs of the mean over seeds (least-squares means where cells are
    missing). Its variance, for new runs and new seeds, is (MS_run + MS_seed - MS_rest) / RS; a mean square below
    MS_rest counts as no effect and drops out with its degrees of freedom, as in REML for balanced tables (Searle,
    Casella and McCulloch 1992, 4.5). With one run only seeds vary, with one seed (or runs that share no seed) only
    run means do. Arrays of values have the models last, so that simulations go through at once.

    Attributes:
        runs: number of tuning runs (1 for an arm without tuning).
        seeds: number of seeds.
        weights: (models,) weight of each model in the arm's mean.
        identified: whether there are two runs or two seeds.
        crossed: whether runs and seeds can be told apart.
    """

    def __init__(self, run: ArrayLike, seed: ArrayLike) -> None:
        """Take the run and the seed of each model."""
        runs, row = np.unique(np.asarray(run), return_inverse=True)
        seeds, column = np.unique(np.asarray(seed), return_inverse=True)
        self.runs, self.seeds = len(runs), len(seeds)
        cell = np.concatenate([np.eye(self.runs)[row], np.eye(self.seeds)[column]], axis=1)
        self._rest_freedom = len(row) - int(np.linalg.matrix_rank(cell))
        connected = len(row) - self._rest_freedom == self.runs + self.seeds - 1
        self.crossed = self.runs > 1 and connected and self._rest_freedom > 0
        self.identified = len(row) > 1
        grid = np.concatenate(
            [np.repeat(np.eye(self.runs), self.seeds, axis=0), np.tile(np.eye(self.seeds), (self.runs, 1))],
            axis=1,
        )
        fit = np.linalg.pinv(cell)
        self._cells = grid @ fit  # fitted cells (R S, models)
        self._rest = np.eye(len(row)) - cell @ fit
        self._run_means = np.eye(self.runs)[row].T / np.bincount(row)[:, None]
        self.weights = self._cells.mean(axis=0) if self.crossed else self._run_means.mean(axis=0)

    def variance(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        """Variance of the mean of (..., models), its degrees of freedom, and the part of the variance due to runs."""
        if self.runs == 1:
            part = values.var(axis=-1, ddof=1) / self.seeds
            return part, np.full(part.shape, self.seeds - 1.0), np.zeros(part.shape)
        if not self.crossed:
            part = (values @ self._run_means.T).var(axis=-1, ddof=1) / self.runs
            return part, np.full(part.shape, self.runs - 1.0), part
        table = (values @ self._cells.T).reshape(*values.shape[:-1], self.runs, self.seeds)
        a, b, c = self.runs - 1, self.seeds - 1, self._rest_freedom
        rest = ((values @ self._rest) ** 2).sum(axis=-1) / c
        by_run = self.seeds * table.mean(axis=-1).var(axis=-1, ddof=1)
        by_seed = self.runs * table.mean(axis=-2).var(axis=-1, ddof=1)
        total = np.maximum.reduce([by_run + by_seed - rest, by_run, by_seed])
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = by_run**2 / a + by_seed**2 / b + rest**2 / c
            both = np.maximum(total**2 / spread, min(a, b))
        freedom = np.where(
            np.minimum(by_run, by_seed) > rest, both, np.where(by_run >= by_seed, a, min(a, b))
        )
        size = self.runs * self.seeds
        return total / size, freedom.astype(np.float64), np.maximum(by_run - rest, 0.0) / size


def add_parts(variances: ArrayLike, freedoms: ArrayLike) -> tuple[Floats, Floats]:
    """Sum over axis 0 of independent variance estimates, and its degrees of freedom.

    V^2 / sum(v_i^2 / f_i) (Satterthwaite 1946); parts of 0 take none.
    """
    v, f = np.asarray(variances, dtype=np.float64), np.asarray(freedoms, dtype=np.float64)
    total, spread = v.sum(axis=0), np.where(v > 0, v**2 / np.maximum(f, 1e-300), 0.0).sum(axis=0)
    return total, np.where(spread > 0, total**2 / np.maximum(spread, 1e-300), f.sum(axis=0))
