"""Readout of a report: cross-model probes in both directions, with controls and the paper's split."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from realign.hrsa import uncertainty as unc
from realign.hrsa.function import FOLDS, STRENGTHS, ProbeResult, cross_model_probe, paper_probe
from realign.hrsa.intervals import interval
from realign.hrsa.pair import Pair
from realign.hrsa.rows import Rows

SATURATED = 0.98
"""An own probe with this accuracy leaves nothing to see: one text in fifty decides."""
AVERAGES: tuple[Literal["macro", "weighted"], ...] = ("macro", "weighted")


def probe(pair: Pair) -> Rows:
    """Probe accuracy and transfer ratio; details `probe`, `probe_sets`, `probe_controls`, (full) `probe_paper`.

    Text sets are kept apart, as variants: an average would hide one whose own probe has nothing left to lose or to
    find. `probe_accuracy` is that of the first model's probe on the second one, beside the most frequent class (null)
    and the second model's own probe (ceiling); `probe_transfer` says where it lies between the two, from 0 to 1.
    """
    rows = Rows()
    if not pair.probes:
        return rows
    full, seed = pair.detail == "full", pair.options.seed
    folds, strengths = (FOLDS, STRENGTHS) if full else (3, (0.01,))
    tested, controls, paper, sets = [], [], [], []
    for text_set, data in pair.probes.items():
        weights = unc.resample_weights(len(data.labels), pair.options.resamples, seed)
        ways = [("a", "b", data.a, data.b), ("b", "a", data.b, data.a)]
        results = []
        for here, there, source, target in ways if full else ways[:1]:
            result = cross_model_probe(
                source, target, data.labels, groups=data.groups, folds=folds, strengths=strengths, seed=seed
            )
            results.append(result)
            own, across = f"{here}->{here}", f"{here}->{there}"
            tested.append(_probe_row(result, "own", text_set, own, "source", weights))
            for scaler in ("source", "target"):
                tested.append(_probe_row(result, scaler, text_set, across, scaler, weights))
            for name in ("procrustes", "shuffled"):
                ends = _accuracy_interval(result, name)
                controls.append((text_set, across, name, result.score(name), *ends))
            for name, control in (("source", "transfer_ratio"), ("procrustes", "transfer_ratio_procrustes")):
                ratio = result.transfer_ratio(name)
                low, high = interval(ratio, result.transfer_influence(name), "any")
                controls.append((text_set, across, control, ratio, float(low), float(high)))
            if full:
                plain = paper_probe(source, target, data.labels, seed=seed)
                few = unc.resample_weights(len(plain.truth), pair.options.resamples, seed)
                paper.append(_probe_row(plain, "own", text_set, own, "source", few))
                paper.append(_probe_row(plain, "source", text_set, across, "source", few))
                if here == "a":
                    _add_accuracy(rows, "paper", pair.layers - 1, text_set, plain, np.nan)
        first = results[0]
        _add_accuracy(rows, "reference", pair.layers - 1, text_set, first, first.score("ceiling"))
        _add_transfer(rows, pair.layers - 1, text_set, first)
        both = first.score("own"), first.score("ceiling")
        sets.append((text_set, *both, first.majority, flag(first)))
    rows.details["probe"] = pd.DataFrame(tested)
    columns = ["text_set", "direction", "control", "value", "low", "high"]
    rows.details["probe_controls"] = pd.DataFrame(controls, columns=columns)
    rows.details["probe_sets"] = pd.DataFrame(
        sets, columns=["text_set", "own_a", "own_b", "majority", "flag"]
    )
    if full:
        rows.details["probe_paper"] = pd.DataFrame(paper)
    return rows


def flag(result: ProbeResult) -> str:
    """Say why a text set tells nothing of transfer: a model's own probe is 'saturated' (SATURATED) or at 'chance'; else ''."""
    own = ("own", "ceiling")
    if any(result.score(name) >= SATURATED for name in own):
        return "saturated"
    return "chance" if any(_accuracy_interval(result, name)[0] <= result.majority for name in own) else ""


def _add_accuracy(
    rows: Rows, estimator: str, layer: int, text_set: str, result: ProbeResult, ceiling: float
) -> None:
    right = result.correct("source")
    ends = (np.array([end]) for end in _accuracy_interval(result, "source"))
    influence = ((right - right.mean()) / len(right))[None] if estimator == "reference" else None
    value = np.array([right.mean()])
    rows.add("probe_accuracy", estimator, [layer], value, (next(ends), next(ends)), variant=text_set,
             null=result.majority, ceiling=ceiling, influence=influence)  # fmt: skip


def _add_transfer(rows: Rows, layer: int, text_set: str, result: ProbeResult) -> None:
    value, influence = np.array([result.transfer_ratio()]), result.transfer_influence()[None]
    ends = interval(value, influence, "any")
    rows.add("probe_transfer", "reference", [layer], value, ends, variant=text_set, null=0.0, ceiling=1.0,
             influence=influence if np.isfinite(influence).all() else None)  # fmt: skip


def _accuracy_interval(result: ProbeResult, name: str) -> tuple[float, float]:
    right = result.correct(name)
    low, high = interval(right.mean(), (right - right.mean()) / len(right), "share")
    return float(low), float(high)


def _probe_row(
    result: ProbeResult, name: str, text_set: str, direction: str, scaler: str, weights: np.ndarray
) -> dict[str, object]:
    low, high = _accuracy_interval(result, name)
    row: dict[str, object] = {
        "text_set": text_set,
        "direction": direction,
        "scaler": scaler,
        "accuracy": result.score(name),
        "low": low,
        "high": high,
        "majority": result.majority,
    }
    for average in AVERAGES:
        column = f"{average}_f1"
        row[column] = result.f1(name, average)
        ends = [np.nan, np.nan]
        if len(weights):
            low, high = np.quantile(result.f1_resampled(name, weights, average), [0.025, 0.975])
            ends = [min(low, row[column]), max(high, row[column])]  # F1 of a resample is biased
        row[f"{column}_low"], row[f"{column}_high"] = ends
    return row
