"""What a report says in brief, and what two reports say together: curves and differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from realign.hrsa import calibration as cal
from realign.hrsa.report import Report


def drift_summary(report: Report) -> pd.DataFrame:
    """One line per headline number, for curves over checkpoints.

    Returns:
        frame with metric, value, low, high. Metrics: ``correlation``, ``cka`` and ``cka_no_sinks``
        (debiased), ``knn@K`` (chance-corrected), ``procrustes_r2`` (held out), ``inverse_row_entropy`` and
        ``diagonal_energy`` of the Procrustes map, each with ``_mean`` (over the report's layers) and ``_last``;
        ``probe_transfer`` (mean transfer ratio of both directions).
    """
    frames = report.frames
    records: list[tuple[str, float, float, float]] = []
    for metric, influence in report.influence.items():
        by_layer = _layer_values(report, metric)
        weights = cal.resample_weights(influence.shape[1], report.meta["resamples"], report.meta["seed"])
        for suffix, number, effect in (
            ("mean", by_layer.mean(), influence.mean(axis=0)),
            ("last", by_layer[-1], influence[-1]),
        ):
            low, high = cal.interval(number, effect, weights)
            top = max(1.0, float(number))  # no metric exceeds 1
            records.append((f"{metric}_{suffix}", float(number), float(low), min(float(high), top)))
    if "probe_controls" in frames:
        chosen = _pick(frames["probe_controls"], control="transfer_ratio")
        value, low, high = chosen[["value", "low", "high"]].to_numpy(dtype=float).mean(axis=0)
        records.append(("probe_transfer", float(value), float(low), float(high)))
    return pd.DataFrame(records, columns=["metric", "value", "low", "high"])


def by_layer(report: Report) -> pd.DataFrame:
    """Reference value of every metric that has influences, layer by layer: metric, layer, value, low, high."""
    frames = []
    for metric, influence in report.influence.items():
        weights = cal.resample_weights(influence.shape[1], report.meta["resamples"], report.meta["seed"])
        value = _layer_values(report, metric)
        low, high = cal.interval(value, influence, weights)
        layers = report.meta["influence_layers"][metric]
        frames.append(
            pd.DataFrame({"metric": metric, "layer": layers, "value": value, "low": low, "high": high})
        )
    return pd.concat(frames, ignore_index=True)


def _pick(frame: pd.DataFrame, **equal: Any) -> pd.DataFrame:
    for column, value in equal.items():
        frame = frame[frame[column] == value]
    return frame


def difference(first: Report, second: Report, metric: str, *, layer: int | None = None) -> dict[str, float]:
    """Difference of one metric between two comparisons on the same tokens, with its interval.

    Answers "is RLVR's drop in overlap smaller than SFT's?" with texts paired, so what both comparisons
    share cancels.

    Args:
        first: report of one pair of models.
        second: report of another pair on the same texts and sample.
        metric: a key of ``Report.influence``: cka, correlation, procrustes_r2, knn@10, ...
        layer: which layer; None is the mean over layers.

    Returns:
        value (first - second), low, high (95%) and p (two-sided, normal).
    """
    if first.meta["sample"] != second.meta["sample"]:
        raise ValueError("the two reports read different tokens; compare them on the same texts and seed")
    for report in (first, second):
        if metric not in report.influence:
            raise ValueError(f"metric '{metric}' has no influences; there are {', '.join(report.influence)}")
    layers = first.meta["influence_layers"][metric]
    if layers != second.meta["influence_layers"][metric]:
        raise ValueError(f"the two reports hold {metric} for different layers")
    numbers = [_layer_values(r, metric) for r in (first, second)]
    effect = first.influence[metric].astype(np.float64) - second.influence[metric]
    gap = numbers[0] - numbers[1]
    if layer is None:
        value, influence = float(gap.mean()), effect.mean(axis=0)
    else:
        if layer not in layers:
            raise ValueError(f"layer {layer} was not compared; there are {layers}")
        at = layers.index(layer)
        value, influence = float(gap[at]), effect[at]
    weights = cal.resample_weights(len(influence), first.meta["resamples"], first.meta["seed"])
    low, high = cal.interval(value, influence, weights)
    error = float(np.sqrt((influence**2).sum() * len(influence) / max(1, len(influence) - 1)))
    p = float(2 * norm.sf(abs(value) / error)) if error > 0 else float("nan")
    return {"value": value, "low": float(low), "high": float(high), "p": p}


def _layer_values(report: Report, metric: str) -> NDArray[Any]:
    frames = report.frames
    if metric == "correlation":
        return frames["correlation_diagonal"]["value"].to_numpy()
    if metric.startswith("knn@"):
        part = _pick(frames["knn"], estimator="reference", k=int(metric.removeprefix("knn@")))
        return part["corrected"].to_numpy()
    if metric in ("procrustes_r2", "inverse_row_entropy", "diagonal_energy"):
        quantity = metric.removeprefix("procrustes_")
        return _pick(frames["procrustes"], estimator="reference", quantity=quantity)["value"].to_numpy()
    variant = "no_sinks" if metric == "cka_no_sinks" else "all"
    return _pick(frames["cka_diagonal"], estimator="reference", variant=variant)["value"].to_numpy()
