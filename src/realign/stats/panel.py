"""Scores of trained models by task and query, checked and laid out for the estimators.

A trained model is an arm, a tuning run and a contrastive seed. Runs are nested in their arm (run 0 of one arm has
nothing to do with run 0 of another); a seed means the same data order in every arm and run, so seeds are crossed
with both; queries are nested in tasks and answered by every model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from realign.stats.designs import Layout, add_parts
from realign.stats.equivalence import student_interval, student_tost
from realign.stats.inputs import Floats, checked_name, real_array, require_columns

COLUMNS = ("arm", "run", "seed", "task", "query", "score")


@dataclass(frozen=True)
class Panel:
    """Complete table of trained models by tasks.

    Attributes:
        models: arm, run ("" for an arm without tuning) and seed of each of the M models.
        tasks: names of the T tasks.
        scores: (M, T) task scores in points.
        queries: (T,) number of queries of each task; 0 where only the task's score is known.
        noise: (T, M, M) covariance of the models' scores over a task's queries, divided by their number.
    """

    models: pd.DataFrame
    tasks: tuple[str, ...]
    scores: Floats
    queries: np.ndarray
    noise: Floats

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Numbers of the models of each arm."""
        arms = self.models["arm"].to_numpy()
        return {arm: np.flatnonzero(arms == arm) for arm in dict.fromkeys(arms)}

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """How the runs and seeds of each arm are crossed."""
        runs, seeds = self.models["run"].to_numpy(), self.models["seed"].to_numpy()
        return {arm: Layout(runs[rows], seeds[rows]) for arm, rows in self.rows.items()}


@dataclass(frozen=True)
class LinearEstimate:
    """A linear contrast of arm means with its variance, in squared points.

    Attributes:
        value: the estimate.
        variance: of the estimate.
        freedom: degrees of freedom of the variance.
        queries: part of the variance that comes from queries.
        runs: part that comes from tuning runs.
        seeds: part that comes from seeds (and what is left between models).
        between_runs: estimate of the variance by runs alone, and its degrees of freedom.
    """

    value: float
    variance: float
    freedom: float
    queries: float
    runs: float
    seeds: float
    between_runs: tuple[float, float]

    def interval(self, level: float) -> tuple[float, float]:
        """Student's interval, and at least that of the runs alone, t_{R-1} sqrt(V_run).

        Satterthwaite's approximation errs up to 7% at 5% where two runs outweigh all else; with this bound, 5-6%.
        """
        low, high = zip(*(student_interval(self.value, e, f, level) for e, f in self._errors()), strict=True)
        return min(low), max(high)

    def tost(self, margin: float) -> float:
        """TOST p-value that is below 0.05 exactly when the 90% interval lies inside the margin."""
        return max(student_tost(self.value, e, f, margin) for e, f in self._errors())

    def _errors(self) -> list[tuple[float, float]]:
        """Standard errors with their degrees of freedom: of everything, and of runs where they vary."""
        both = [(self.variance, self.freedom), self.between_runs]
        return [(float(np.sqrt(v)), f) for number, (v, f) in enumerate(both) if number == 0 or v > 0]


def panel(scores: pd.DataFrame, arms: tuple[str, ...] = ()) -> Panel:
    """Check a tidy frame of scores and lay it out.

    Args:
        scores: columns arm, run (empty or missing for an arm without tuning), seed, task, query, score (points). A
            row without a query is the task's own score; where a task has both, that score is the estimate and its
            queries give the noise. Otherwise a task's score is the mean over its queries, which must be the same
            for all models (what one query gives in several subsets is averaged before).
        arms: the arms to keep; empty keeps all.

    Raises:
        TypeError: scores is not a frame, or its scores are not numbers.
        ValueError: a column, an arm, or a model's score of a task or query is missing, or one is listed twice.
    """
    require_columns(scores, set(COLUMNS))
    for name in arms:
        checked_name(name, "a, b, base or arms")
        if not (scores["arm"] == name).any():
            raise ValueError(f"scores has no arm '{name}'; it has {sorted(map(str, set(scores['arm'])))}")
    kept = scores[scores["arm"].isin(arms)] if arms else scores
    if kept.empty:
        raise ValueError("scores has no rows")
    real_array(kept["score"], "rows", name="scores")
    kept = kept[list(COLUMNS)].astype({"arm": str, "run": object, "query": object})
    kept = kept.fillna({"run": "", "query": ""}).astype({"run": str, "query": str})
    if kept[["seed", "task"]].isna().to_numpy().any():
        raise ValueError("a row of scores lacks its seed or task")
    twice = kept.duplicated(list(COLUMNS[:-1]))
    if twice.any():
        raise ValueError(f"listed twice: {dict(kept[twice].iloc[0][list(COLUMNS[:-1])])}")
    kept["score"] = kept["score"].astype(np.float64)
    keys = ["arm", "run", "seed"]
    models = kept[keys].drop_duplicates().sort_values(keys).reset_index(drop=True)
    index = pd.MultiIndex.from_frame(models)
    tasks = tuple(pd.unique(kept["task"]))
    table, counts = np.empty((len(models), len(tasks))), np.zeros(len(tasks), dtype=int)
    noise = np.zeros((len(tasks), len(models), len(models)))
    for number, task in enumerate(tasks):
        wide = kept[kept["task"] == task].pivot(index=keys, columns="query", values="score").reindex(index)
        gaps = np.argwhere(wide.isna().to_numpy())
        if len(gaps):
            model, query = index[gaps[0][0]], str(wide.columns[gaps[0][1]])
            what = f"query '{query}' of task '{task}'" if query else f"task '{task}'"
            raise ValueError(f"model {model} has no score of {what}: leave out that task or that model")
        queries = wide.drop(columns="", errors="ignore").to_numpy()
        if queries.shape[1] > 1:
            counts[number] = queries.shape[1]
            noise[number] = np.cov(queries) / queries.shape[1]
        table[:, number] = wide[""] if "" in wide.columns else queries.mean(axis=1)
    return Panel(models, tasks, table, counts, noise)


def linear_estimate(data: Panel, projection: Mapping[str, Floats]) -> LinearEstimate:
    """Estimate ``sum_a sum_t p_at mean_a,t`` over arms a and tasks t, tasks fixed.

    Three sources vary: runs and seeds (between trained models) and queries. With ``z_m = sum_t p_at y_mt`` the
    variance of an arm's mean of z comes from :class:`Layout` (separately for each arm, as Welch 1947: no arm is
    assumed to be as noisy as another, and no credit is taken for what shared seeds have in common, which can only
    make the interval too wide). Per query q of task t, ``d_q = sum_m c_m p_at y_mq`` gives ``V_Q = sum_t var(d)/n_t``.
    What a model's draw of queries adds to z_m is in both; it is W = ``sum_m c_m^2 p_at^2 MS_at / n_t`` (MS: mean
    square of model x query within an arm), so V = V_Q + max(V_M - W, 0), never below V_Q, with Satterthwaite's
    (1946) degrees of freedom. Tasks without queries are given the noise of the average other task.
    """
    value, parts, runs = 0.0, [], []
    weights = np.zeros(data.scores.shape)
    known: list[np.ndarray] = []
    for arm, p in projection.items():
        rows, layout = data.rows[arm], data.layouts[arm]
        z = data.scores[rows] @ p
        value += float(layout.weights @ z)
        weights[rows] = layout.weights[:, None] * p
        if layout.identified:
            variance, freedom, by_run = layout.variance(z)
            parts.append((variance, freedom))
            runs.append((by_run, max(layout.runs - 1, 1)))
            known.append(rows)
    models, models_freedom = add_parts(*zip(*parts, strict=True)) if parts else (np.zeros(()), np.ones(()))
    by_task, overlap = query_noise(data, weights, known)
    if not parts and not data.queries.any():
        return LinearEstimate(value, np.nan, np.nan, np.nan, np.nan, np.nan, (np.nan, np.nan))
    queries, queries_freedom = add_parts(by_task, np.maximum(data.queries - 1.0, 1.0))
    total, freedoms = add_queries(models, models_freedom, queries, queries_freedom, overlap)
    beyond = float(total) - float(queries)
    between, between_freedom = (float(v) for v in add_parts(*zip(*runs, strict=True))) if runs else (0.0, 1.0)
    of_runs = min(between, beyond)
    return LinearEstimate(
        value,
        float(total),
        float(freedoms),
        float(queries),
        of_runs,
        beyond - of_runs,
        (between, between_freedom),
    )


def query_noise(data: Panel, weights: Floats, known: list[np.ndarray]) -> tuple[Floats, float]:
    """V_Q by task (T,), scaled up for tasks without queries, and the overlap W of :func:`linear_estimate`.

    Args:
        data: the scores.
        weights: (M, T) weight of each score in the contrast.
        known: rows of the arms whose variance between models is known, so that it overlaps.
    """
    by_task = np.einsum("mt,tmn,nt->t", weights, data.noise, weights)
    overlap = 0.0
    for rows in known:
        block = data.noise[:, rows[:, None], rows]
        own = np.trace(block, axis1=1, axis2=2) - block.mean(axis=2).sum(axis=1)
        overlap += float((weights[rows] ** 2).sum(axis=0) @ own) / (len(rows) - 1)
    covered = float((weights[:, data.queries > 0] ** 2).sum())
    scale = float((weights**2).sum()) / covered if covered else 0.0
    return scale * by_task, scale * overlap


def add_queries(
    models: Floats | float,
    freedom: Floats | float,
    queries: Floats | float,
    of_queries: Floats | float,
    overlap: Floats | float,
) -> tuple[Floats, Floats]:
    """Variance V_Q + max(V_M - W, 0) and its degrees of freedom; W is known so well that it takes none."""
    total = queries + np.maximum(np.subtract(models, overlap), 0.0)
    spread = np.square(models) / freedom + np.square(queries) / of_queries
    return total, np.where(spread > 0, np.square(total) / np.maximum(spread, 1e-300), 1.0)
