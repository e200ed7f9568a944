"""Crossed designs: tasks and training seeds both vary, and a mean must hold for new ones of both."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from realign.stats.equivalence import bootstrap_mean, student_interval
from realign.stats.inputs import Floats, checked_level, real_array


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
    table, level = real_array(differences, "tasks, seeds", missing=True), checked_level(level)
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
