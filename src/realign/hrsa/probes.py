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

AVERAGES: tuple[Literal["macro", "weighted"], ...] = ("macro", "weighted")


def probe(pair: Pair) -> Rows:
    """Probe accuracy and transfer ratio; details `probe`, `probe_controls`, (full detail) `probe_paper`."""
    rows = Rows()
    if not pair.probes:
        return rows
    full, seed = pair.detail == "full", pair.options.seed
    folds, strengths = (FOLDS, STRENGTHS) if full else (3, (0.01,))
    tested, controls, paper = [], [], []
    for text_set, data in pair.probes.items():
        weights = unc.resample_weights(len(data.labels), pair.options.resamples, seed)
        for here, there, source, target in (("a", "b", data.a, data.b), ("b", "a", data.b, data.a)):
            result = cross_model_probe(
                source, target, data.labels, groups=data.groups, folds=folds, strengths=strengths, seed=seed
            )
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
    columns = ["text_set", "direction", "control", "value", "low", "high"]
    rows.details["probe"] = pd.DataFrame(tested)
    rows.details["probe_controls"] = pd.DataFrame(controls, columns=columns)
    if full:
        rows.details["probe_paper"] = pd.DataFrame(paper)
    add_means(rows, pair.layers - 1)
    return rows


def add_means(rows: Rows, layer: int) -> None:
    """Add the two numbers that stand for all probes, means over text sets, as those of the last layer.

    `probe_accuracy` is that of the first model's probe on the second one, beside the most frequent class
    (null) and the second model's own probe (ceiling); `probe_transfer` is the transfer ratio, from 0 (the
    most frequent class) to 1 (the own probe), of both directions.
    """
    for estimator, name in (("reference", "probe"), ("paper", "probe_paper")):
        if name in rows.details:
            frame = rows.details[name]
            across = frame[(frame["direction"] == "a->b") & (frame["scaler"] == "source")]
            value, low, high, null = (
                across[["accuracy", "low", "high", "majority"]].to_numpy(float).mean(axis=0)
            )
            own = float(frame.loc[frame["direction"] == "b->b", "accuracy"].mean())
            rows.add("probe_accuracy", estimator, [layer], value, (low, high), null=null, ceiling=own)
    frame = rows.details["probe_controls"]
    ratios = frame.loc[frame["control"] == "transfer_ratio", ["value", "low", "high"]]
    value, low, high = ratios.to_numpy(float).mean(axis=0)
    rows.add("probe_transfer", "reference", [layer], value, (low, high), null=0.0, ceiling=1.0)


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
