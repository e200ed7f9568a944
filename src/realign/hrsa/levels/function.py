"""Readout of a report: cross-model probes in both directions, with controls and the paper's split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from realign.hrsa import calibration as cal
from realign.hrsa.function import ProbeResult, cross_model_probe, paper_probe
from realign.hrsa.work import Probe, Work

AVERAGES: tuple[Literal["macro", "weighted"], ...] = ("macro", "weighted")


def probe(work: Work, probes: Mapping[str, Probe]) -> None:
    """Frames `probe`, `probe_controls` and (full detail) `probe_paper`, both directions."""
    if not probes:
        return
    full = work.detail == "full"
    rows, controls, paper = [], [], []
    for text_set, data in probes.items():
        weights = cal.resample_weights(len(data.labels), work.options.resamples, work.options.seed)
        for here, there, source, target in (("a", "b", data.a, data.b), ("b", "a", data.b, data.a)):
            cheap: dict[str, Any] = {} if full else {"folds": 3, "strengths": (0.01,)}
            found = cross_model_probe(
                source, target, data.labels, groups=data.groups, seed=work.options.seed, **cheap
            )
            across = f"{here}->{there}"
            for name, direction, scaler in (
                ("own", f"{here}->{here}", "source"),
                ("source", across, "source"),
                ("target", across, "target"),
            ):
                rows.append(_probe_row(found, name, text_set, direction, scaler, weights))
            for name in ("procrustes", "shuffled"):
                low, high = _accuracy_interval(found, name, weights)
                controls.append((text_set, across, name, found.score(name), low, high))
            for name, control in (("source", "transfer_ratio"), ("procrustes", "transfer_ratio_procrustes")):
                ratio = found.transfer_ratio(name)
                ends = cal.interval(ratio, found.transfer_influence(name), weights)
                controls.append((text_set, across, control, ratio, float(ends[0]), float(ends[1])))
            if full:
                plain = paper_probe(source, target, data.labels, seed=work.options.seed)
                few = cal.resample_weights(len(plain.truth), work.options.resamples, work.options.seed)
                for name, direction in (("own", f"{here}->{here}"), ("source", across)):
                    paper.append(_probe_row(plain, name, text_set, direction, "source", few))
    frames = work.report.frames
    frames["probe"] = pd.DataFrame(rows)
    columns = ["text_set", "direction", "control", "value", "low", "high"]
    frames["probe_controls"] = pd.DataFrame(controls, columns=columns)
    if full:
        frames["probe_paper"] = pd.DataFrame(paper)


def _accuracy_interval(found: ProbeResult, name: str, weights: NDArray[Any]) -> tuple[float, float]:
    right = found.correct(name)
    low, high = cal.interval(right.mean(), (right - right.mean()) / len(right), weights)
    return max(0.0, float(low)), min(1.0, float(high))


def _probe_row(
    found: ProbeResult, name: str, text_set: str, direction: str, scaler: str, weights: NDArray[Any]
) -> dict[str, Any]:
    low, high = _accuracy_interval(found, name, weights)
    row = {
        "text_set": text_set,
        "direction": direction,
        "scaler": scaler,
        "accuracy": found.score(name),
        "low": low,
        "high": high,
        "majority": found.majority,
    }
    for average in AVERAGES:
        column = f"{average}_f1"
        row[column] = found.f1(name, average)
        ends = [np.nan, np.nan]
        if len(weights):
            ends = np.quantile(found.f1_resampled(name, weights, average), [0.025, 0.975]).tolist()
        row[f"{column}_low"], row[f"{column}_high"] = ends
    return row
