"""What several reports say together: means over replicates, shares of the way from floor to ceiling, differences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t as student

from realign.hrsa import metrics
from realign.hrsa import uncertainty as unc
from realign.hrsa.activations import Activations
from realign.hrsa.arrays import as_groups
from realign.hrsa.checks import instance, one_of
from realign.hrsa.effects import Effect, Units, calibrated, combine
from realign.hrsa.intervals import SCALES
from realign.hrsa.report import CALIBRATED, Report
from realign.hrsa.rows import ORDER, between, metric_id, split_id

# Texts in place of influences that are not known: the error of a row that is averaged from intervals, at 95%.
STAND_IN = np.tile([1.0, -1.0], 100) * np.sqrt(199) / 200 / 1.96
Levels = Mapping[str, Collection[str]]
"""Of a pair of models, by kind ('seed', 'run'): the levels that either model has."""


def mean(reports: Sequence[Report], levels: Sequence[Levels], *, details: Report | None = None) -> Report:
    """Average over pairs of models that differ in seeds and runs alone.

    A row of the table is averaged over the reports that hold it, and so are the influences of texts. How much it owes
    to one seed or run comes from leaving out all pairs that have it (the jackknife): with too few of them, intervals
    are NaN. One run says nothing of other runs: it is then left out of the interval, and ``meta["levels"]`` shows it.

    Args:
        reports: on the same texts.
        levels: of each report.
        details: the report whose details and rotation stand for all; None is the first.
    """
    shown = details or reports[0]
    tables = [report.table.set_index(ORDER) for report in reports]
    index = tables[0].index
    for other in tables[1:]:
        index = index.union(other.index)
    tables = [table.reindex(index) for table in tables]
    values = np.stack([table["value"].to_numpy(float) for table in tables])
    average = _average(values)
    units = {kind: _left_out(values, [each[kind] for each in levels]) for kind in levels[0]}
    table = pd.DataFrame({"value": average}, index=index)
    for name in ("null", "ceiling"):
        table[name] = _average(np.stack([each[name].to_numpy(float) for each in tables]))
    half = _average(np.stack([((each["high"] - each["low"]) / 2).to_numpy(float) for each in tables]))
    influence, ends = {}, np.empty((2, len(index)))
    own: dict[str, Units] = {}
    place = pd.Series(np.arange(len(index)), index=index)
    for keys, rows in place.groupby(level=ORDER[:4], sort=False):
        metric, estimator, variant, k = keys
        at, name = rows.to_numpy(), metric_id(metric, variant, k)
        held = [r.influence[name] for r in reports if estimator == "reference" and name in r.influence]
        moved = {kind: _present(at, *parts) for kind, parts in units.items()}
        moved = {kind: each for kind, each in moved.items() if len(each) > 1 or kind != "run"}
        texts = np.mean(held, axis=0) if held else half[at, None] * STAND_IN
        ends[:, at] = Effect(average[at], texts, moved).interval(metrics.metric(metric).scale_of(estimator))
        if held:
            influence[name], own[name] = texts.astype(np.float32), moved
    table["low"], table["high"] = ends
    table["value"] = between(table["value"], *ends)
    counts = {kind: sorted(set().union(*(each[kind] for each in levels))) for kind in levels[0]}
    meta = shown.meta | {"pairs": len(reports), "levels": counts}
    columns = [*ORDER, *(c for c in reports[0].table if c not in ORDER)]
    return Report(table.reset_index()[columns], shown.details, shown.rotation, influence, meta, own)


def _average(values: np.ndarray) -> np.ndarray:
    """Mean (rows,) of what is known of (reports, rows); NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)


def _left_out(
    values: np.ndarray, levels: Sequence[Collection[str]]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Jackknife influences (levels, rows) of seeds or runs on the mean of values (reports, rows).

    Returns:
        the influences, NaN where no pair is left without the level; whether a row has pairs of the level; the levels.
    """
    names, known, average = sorted(set().union(*levels)), np.isfinite(values), _average(values)
    has = np.array([[name in each for each in levels] for name in names])
    present = (known & has[:, :, None]).any(axis=1)
    moved = np.stack([average - _average(np.where(mine[:, None], np.nan, values)) for mine in has])
    count = present.sum(axis=0)
    return moved * (count - 1) / np.maximum(count, 1), present, names


def _present(
    at: np.ndarray, moved: np.ndarray, present: np.ndarray, names: list[str]
) -> dict[str, np.ndarray]:
    """Influences of the levels that some of the rows ``at`` have pairs of."""
    return {name: moved[i, at] for i, name in enumerate(names) if present[i, at].any()}


def repaired(states: Activations, seed: int) -> Activations:
    """Return states whose texts stand in another order: paired with another model's, they are of unrelated texts.

    Tokens keep their order within a text. Compared with any model, they give the floor of every metric.
    """
    groups = as_groups(states.text_keys[states.text_ids], len(states.text_ids))
    order = unc.text_order(groups, np.random.default_rng(seed))
    texts = np.random.default_rng(seed).permutation(states.pooled.shape[1])
    return replace(states, states=states.states[:, order], pooled=states.pooled[:, texts])


def calibrate(report: Report, floor: Report, ceiling: Report) -> Report:
    """Add to a report's table how far each number is on the way from floor to ceiling: :data:`CALIBRATED`.

    Args:
        report: of a pair of models.
        floor: of a pair on unrelated texts (:func:`repaired`); a metric that it lacks has the table's ``null`` as floor.
        ceiling: of a model and a replicate of it.

    Returns:
        the report with the columns calibrated (0: the floor, 1: the ceiling; beyond either where a pair is), and its
        95% interval; NaN where ceiling or floor are not known, or not told apart. Numbers without influences have
        intervals as if floor and ceiling were exact.
    """
    made = replace(report, floor=floor, ceiling=ceiling)
    table = report.table.drop(columns=list(CALIBRATED), errors="ignore").sort_values(ORDER, ignore_index=True)
    keyed = [each.table.set_index(ORDER)["value"] for each in (floor, ceiling)]
    index = pd.MultiIndex.from_frame(table[ORDER])
    low = keyed[0].reindex(index).fillna(pd.Series(table["null"].to_numpy(), index=index)).to_numpy()
    room = keyed[1].reindex(index).to_numpy() - low
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [
            np.where(room != 0, (table[name] - low) / room, np.nan) for name in ("value", "low", "high")
        ]
    table[CALIBRATED[0]], table[CALIBRATED[1]] = shares[0], np.fmin(shares[1], shares[2])
    table[CALIBRATED[2]] = np.fmax(shares[1], shares[2])
    for keys, rows in table[table["estimator"] == "reference"].groupby(ORDER[:4], sort=False):
        share = _share(made, metric_id(keys[0], keys[2], keys[3]))
        if share is not None and len(share.value) == len(rows):
            table.loc[rows.index, list(CALIBRATED)] = np.stack([share.value, *share.interval()], axis=1)
    made.table = table
    return made


def _share(report: Report, name: str, at: str | int | None = None) -> Effect | None:
    """Calibrated value of an id at all layers, or in one number; None where texts or layers are not the same ones."""
    assert report.floor is not None
    assert report.ceiling is not None
    mine, ceiling, floor = report.influence.get(name), report.ceiling.influence.get(name), report.floor
    if mine is None or ceiling is None or mine.shape != ceiling.shape:
        return None
    if name not in floor.influence:  # known without measuring: the null
        metric, variant, k = split_id(name)
        values = report.by_layer(metric, variant=variant, k=k)["null"]
        table = report.table.assign(value=report.table["null"])
        floor = replace(report, table=table, influence={name: np.zeros_like(mine)}, units={})
        if values.isna().any():
            return None
    if floor.influence[name].shape != mine.shape:
        return None
    of = [each.effect(name) if at is None else each.at(name, at) for each in (report, floor, report.ceiling)]
    return calibrated(*of)


def overall(
    report: Report, metric: str, at: str, estimator: str = "reference", *, variant: str | None = None
) -> pd.Series:
    """Return a metric in one number: its mean over the layers where it is determined, or that of the last layer.

    Args:
        report: of one pair, or a mean over several.
        metric: its name in the registry.
        at: 'mean' or 'last'.
        estimator: as in :meth:`Report.by_layer`.
        variant: as there.

    Returns:
        value, low, high (95%) and calibrated, calibrated_low, calibrated_high (NaN without floor and ceiling). Layers
        share their texts: without influences the interval of a mean is the mean of the intervals.
    """
    rows = report.by_layer(metric, estimator, variant=variant).reindex(
        columns=["value", "low", "high", *CALIBRATED, "determined"]
    )
    chosen = rows[rows["determined"]] if at == "mean" and rows["determined"].any() else rows
    numbers = (chosen if at == "mean" else rows.tail(1)).drop(columns="determined").astype(float).mean()
    entry = metrics.metric(metric)
    name = report.reference_id(metric, variant)
    if (estimator == "reference" or estimator not in entry.estimators) and name in report.influence:
        numbers[["low", "high"]] = report.at(name, at).interval(entry.scale)
        share = None if report.floor is None else _share(report, name, at)
        if share is not None:
            numbers[list(CALIBRATED)] = share.value, *share.interval()
    return numbers


@dataclass(frozen=True)
class Difference:
    """Difference of one number between two reports: value, its 95% interval, and p (two-sided)."""

    value: float
    low: float
    high: float
    p: float


def difference(
    first: Report, second: Report, name: str, *, layer: int | None = None, on: str = "value"
) -> Difference:
    """Difference of one metric between two comparisons on the same tokens, with its interval.

    Answers "is RLVR's drop in overlap smaller than SFT's?" with texts, seeds and runs paired, so what both
    comparisons share cancels.

    Args:
        first: report of one pair of models, or a mean over several.
        second: report of another pair on the same texts and sample.
        name: an id that has influences: 'cka', 'cka:no_sinks', 'correlation', 'r2', 'knn@10', ...
        layer: which layer; None is the mean over the layers where both are determined.
        on: 'value', or 'calibrated' for the share of the way from floor to ceiling.

    Returns:
        first - second.

    Raises:
        ValueError: no influences of that id, or the reports differ in tokens or layers, or are not calibrated.
    """
    one_of(on, "on", ("value", "calibrated"))
    for report in (first, second):
        instance(report, "first and second", Report)
        if not isinstance(name, str) or name not in report.influence:
            raise ValueError(
                f"name '{name}' has no influences; there are those of {', '.join(report.influence)}"
            )
    if first.meta["sample"] != second.meta["sample"]:
        raise ValueError("the two reports read different tokens; compare them on the same texts and seed")
    if first.curve(name)["layer"].tolist() != second.curve(name)["layer"].tolist():
        raise ValueError(f"the two reports hold {name} for different layers")
    at = "mean" if layer is None else layer
    of = [report.at(name, at) if on == "value" else _share_of(report, name, at) for report in (first, second)]
    gap = combine([(1.0, of[0]), (-1.0, of[1])])
    low, high = gap.interval()
    if on == "value":
        lowest, highest, *_ = SCALES[metrics.metric(split_id(name)[0]).scale]
        low, high = np.clip((low, high), lowest - highest, highest - lowest)
    error, freedom = gap.error()
    p = 2 * student.sf(abs(gap.value) / error, freedom) if error > 0 else np.nan
    return Difference(float(gap.value), float(low), float(high), float(p))


def _share_of(report: Report, name: str, at: str | int) -> Effect:
    share = None if report.floor is None or report.ceiling is None else _share(report, name, at)
    if share is None:
        raise ValueError(f"'{name}' is not calibrated: its floor or its ceiling is not known on these texts")
    return share
