"""Readout of a report: cross-model probes in both directions, with controls and the paper's split."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from realign.hrsa import uncertainty as unc
from realign.hrsa.function import FOLDS, STRENGTHS, ProbeResult, cross_model_probe, paper_probe
from realign.hrsa.pair import Pair, Probe
from realign.hrsa.rows import Rows

AVERAGES: tuple[Literal["macro", "weighted"], ...] = ("macro", "weighted")


def probe(pair: Pair) -> Rows:
    """Probe accuracy and transfer ratio; details `probe`, `probe_controls`, (full detail) `probe_paper`."""
    rows = Rows()
    if not pair.probes:
        return rows
    tested, controls, paper = [], [], []
    for text_set, data in pair.probes.items():
        for here, there, a_to_b in (("a", "b", True), ("b", "a", False)):
            directed = data if a_to_b else Probe(data.b, data.a, data.labels, data.groups)
            mine, checks = _cross_validated(pair, text_set, here, there, directed)
            tested += mine
            controls += checks
            if pair.detail == "full":
                paper += _as_paper(pair, text_set, here, there, directed)
    columns = ["text_set", "direction", "control", "value", "low", "high"]
    rows.details["probe"] = pd.DataFrame(tested)
    rows.details["probe_controls"] = pd.DataFrame(controls, columns=columns)
    if paper:
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


def _cross_validated(
    pair: Pair, text_set: str, here: str, there: str, data: Probe
) -> tuple[list[dict[str, object]], list[tuple[object, ...]]]:
    """Rows of `probe` and of `probe_controls` for probes from ``data.a`` to ``data.b``."""
    folds, strengths = (FOLDS, STRENGTHS) if pair.detail == "full" else (3, (0.01,))
    result = cross_model_probe(
        data.a,
        data.b,
        data.labels,
        groups=data.groups,
        folds=folds,
        strengths=strengths,
        seed=pair.options.seed,
    )
    weights = unc.resample_weights(len(data.labels), pair.options.resamples, pair.options.seed)
    across = f"{here}->{there}"
    tested = [
        _probe_row(result, name, text_set, direction, scaler, weights)
        for name, direction, scaler in (
            ("own", f"{here}->{here}", "source"),
            ("source", across, "source"),
            ("target", across, "target"),
        )
    ]
    controls: list[tuple[object, ...]] = []
    for name in ("procrustes", "shuffled"):
        ends = _accuracy_interval(result, name, weights)
        controls.append((text_set, across, name, result.score(name), *ends))
    for name, control in (("source", "transfer_ratio"), ("procrustes", "transfer_ratio_procrustes")):
        ratio = result.transfer_ratio(name)
        low, high = unc.interval(ratio, result.transfer_influence(name), weights)
        controls.append((text_set, across, control, ratio, float(low), float(high)))
    return tested, controls


def _as_paper(pair: Pair, text_set: str, here: str, there: str, data: Probe) -> list[dict[str, object]]:
    """Rows of `probe_paper` for probes from ``data.a`` to ``data.b``."""
    result = paper_probe(data.a, data.b, data.labels, seed=pair.options.seed)
    weights = unc.resample_weights(len(result.truth), pair.options.resamples, pair.options.seed)
    return [
        _probe_row(result, name, text_set, direction, "source", weights)
        for name, direction in (("own", f"{here}->{here}"), ("source", f"{here}->{there}"))
    ]


def _accuracy_interval(result: ProbeResult, name: str, weights: np.ndarray) -> tuple[float, float]:
    right = result.correct(name)
    low, high = unc.interval(right.mean(), (right - right.mean()) / len(right), weights)
    return max(0.0, float(low)), min(1.0, float(high))


def _probe_row(
    result: ProbeResult, name: str, text_set: str, direction: str, scaler: str, weights: np.ndarray
) -> dict[str, object]:
    low, high = _accuracy_interval(result, name, weights)
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
            ends = np.quantile(result.f1_resampled(name, weights, average), [0.025, 0.975]).tolist()
        row[f"{column}_low"], row[f"{column}_high"] = ends
    return row
