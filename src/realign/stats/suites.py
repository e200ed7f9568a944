"""Is one arm as good as another on these suites? Tasks fixed; queries, contrastive seeds and tuning runs random.

"On these suites" is the claim, so a task is no draw from anything and what varies is the rest: other queries of
the same tasks, other seeds, other tuning runs. :func:`realign.stats.hierarchical_interval` answers the other
question, about new tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from realign.stats.designs import hierarchical_interval
from realign.stats.inputs import checked_margin
from realign.stats.panel import Panel, linear_estimate, panel


@dataclass(frozen=True)
class SuiteDifference:
    """How arm b differs from arm a on the mean of fixed tasks. All numbers are in points but shares and p.

    Attributes:
        a: the reference arm.
        b: the other arm.
        delta: mean over tasks of (b - a).
        error: its standard error.
        freedom: its degrees of freedom (Satterthwaite).
        low: lower end of the 95% interval.
        high: upper end of it.
        low90: lower end of the 90% interval, the one that decides equivalence.
        high90: upper end of it.
        margin: differences smaller than this count as none.
        tost_p: p-value of "the difference is at least the margin" (Schuirmann 1987; Lakens 2017).
        equivalent: tost_p < 0.05, that is, the 90% interval lies inside (-margin, margin).
        queries: share of the variance of delta that comes from queries.
        seeds: share from contrastive seeds.
        runs: share from tuning runs.
        n: number of tasks.
        run_identified: whether every tuned arm has two or more runs. If not, the interval speaks of that run only.
        seed_identified: whether both arms have two or more trained models, so that training noise is in the interval.
        without_queries: tasks known by their score only; they are given the query noise of the average other task.
        note: what the interval does not cover, in words.
    """

    a: str
    b: str
    delta: float
    error: float
    freedom: float
    low: float
    high: float
    low90: float
    high90: float
    margin: float
    tost_p: float
    equivalent: bool
    queries: float
    seeds: float
    runs: float
    n: int
    run_identified: bool
    seed_identified: bool
    without_queries: tuple[str, ...]
    note: str


def suite_difference(scores: pd.DataFrame, a: str, b: str, margin: float) -> SuiteDifference:
    """Estimate b - a on the mean of the tasks of a suite, and test its equivalence.

    The estimate is a mean of task means, of run means, of seed means; its variance is that of
    :func:`realign.stats.panel.linear_estimate`, and the interval is never narrower than that of the runs
    alone. Seeds that only one arm has count for that arm.

    Args:
        scores: as for :func:`realign.stats.panel.panel`; of one suite.
        a: reference arm.
        b: other arm.
        margin: equivalence margin in points, stated before looking.

    Raises:
        TypeError: scores is not a frame, or its scores are not numbers.
        ValueError: a column, an arm or a score is missing, or one is listed twice.
    """
    margin = checked_margin(margin)
    data = panel(scores, (a, b))
    equal = np.full(len(data.tasks), 1 / len(data.tasks))
    found = linear_estimate(data, {a: -equal, b: equal})
    (low, high), (low90, high90) = found.interval(0.95), found.interval(0.90)
    tost_p = found.tost(margin)
    shares = np.array([found.queries, found.seeds, found.runs]) / (found.variance or np.nan)
    tuned = [arm for arm in (a, b) if (data.models["run"][data.rows[arm]] != "").any()]
    single = [arm for arm in tuned if data.layouts[arm].runs == 1]
    untrained = [arm for arm in (a, b) if not data.layouts[arm].identified]
    without = tuple(task for number, task in enumerate(data.tasks) if not data.queries[number])
    return SuiteDifference(
        a=a,
        b=b,
        delta=found.value,
        error=float(np.sqrt(found.variance)),
        freedom=found.freedom,
        low=low,
        high=high,
        low90=low90,
        high90=high90,
        margin=margin,
        tost_p=tost_p,
        equivalent=bool(tost_p < 0.05),
        queries=float(shares[0]),
        seeds=float(shares[1]),
        runs=float(shares[2]),
        n=len(data.tasks),
        run_identified=not single,
        seed_identified=not untrained,
        without_queries=without,
        note="; ".join(_limits(data, single, untrained)),
    )


def new_tasks_interval(scores: pd.DataFrame, a: str, b: str, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of b - a for new tasks and new seeds: :func:`hierarchical_interval` on the seeds that both arms have.

    Runs are averaged: with tasks random, they are the smaller worry. Arguments and errors as for
    :func:`suite_difference`.
    """
    data = panel(scores, (a, b))
    table = data.models.assign(row=range(len(data.models))).groupby(["arm", "seed"])["row"].agg(list)
    shared = sorted(set(table[a].index) & set(table[b].index))
    if not shared:
        raise ValueError(f"'{a}' and '{b}' share no seed; leave new tasks out")
    shifts = [data.scores[table[b][s]].mean(axis=0) - data.scores[table[a][s]].mean(axis=0) for s in shared]
    return hierarchical_interval(np.stack(shifts, axis=1), level=level)


def _limits(data: Panel, single: list[str], untrained: list[str]) -> list[str]:
    """What an interval does not cover, in words."""
    notes = [
        f"one tuning run of {arm}: the effect of tuning is not identified apart from that run, the interval speaks of it only"
        for arm in single
    ]
    notes += [f"one trained model of {arm}: its training noise is not in the interval" for arm in untrained]
    notes += [
        f"runs of {arm} do not share seeds: seeds and runs vary together"
        for arm in data.models["arm"].unique()
        if data.layouts[arm].runs > 1 and not data.layouts[arm].crossed
    ]
    if not data.queries.any():
        notes.append("no task has scores of queries: what other queries would give is not in the interval")
    return notes
