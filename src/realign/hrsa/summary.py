"""What reports say layer by layer, and what two reports say together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from realign.hrsa import uncertainty as unc
from realign.hrsa.report import Report


@dataclass(frozen=True)
class Difference:
    """Difference of one number between two reports: value, its 95% interval, and p (two-sided, normal)."""

    value: float
    low: float
    high: float
    p: float


def by_layer(report: Report) -> pd.DataFrame:
    """Reference value of every id that has influences, layer by layer: metric (id), layer, value, low, high."""
    frames = [report.curve(name).assign(metric=name) for name in report.influence]
    return pd.concat(frames, ignore_index=True)[["metric", "layer", "value", "low", "high"]]


def difference(first: Report, second: Report, name: str, *, layer: int | None = None) -> Difference:
    """Difference of one metric between two comparisons on the same tokens, with its interval.

    Answers "is RLVR's drop in overlap smaller than SFT's?" with texts paired, so what both comparisons
    share cancels.

    Args:
        first: report of one pair of models.
        second: report of another pair on the same texts and sample.
        name: an id that has influences: 'cka', 'cka:no_sinks', 'correlation', 'r2', 'knn@10', ...
        layer: which layer; None is the mean over layers.

    Returns:
        first - second.

    Raises:
        ValueError: no influences of that id, or the reports differ in tokens or layers.
    """
    if first.meta["sample"] != second.meta["sample"]:
        raise ValueError("the two reports read different tokens; compare them on the same texts and seed")
    for report in (first, second):
        if name not in report.influence:
            raise ValueError(f"'{name}' has no influences; there are those of {', '.join(report.influence)}")
    mine, theirs = first.curve(name), second.curve(name)
    layers = mine["layer"].tolist()
    if layers != theirs["layer"].tolist():
        raise ValueError(f"the two reports hold {name} for different layers")
    effects = first.influence[name].astype(np.float64) - second.influence[name]
    gaps = (mine["value"] - theirs["value"]).to_numpy()
    if layer is None:
        value, influence = float(gaps.mean()), effects.mean(axis=0)
    else:
        if layer not in layers:
            raise ValueError(f"layer {layer} was not compared; there are {layers}")
        at = layers.index(layer)
        value, influence = float(gaps[at]), effects[at]
    weights = unc.resample_weights(len(influence), first.meta["resamples"], first.meta["seed"])
    low, high = unc.interval(value, influence, weights)
    error = float(np.sqrt((influence**2).sum() * len(influence) / max(1, len(influence) - 1)))
    p = float(2 * norm.sf(abs(value) / error)) if error > 0 else float("nan")
    return Difference(value, float(low), float(high), p)
