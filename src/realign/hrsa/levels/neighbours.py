"""Local geometry of a report: k-NN overlap of tokens and texts, in both estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from realign.hrsa import calibration as cal
from realign.hrsa import geometry as geo
from realign.hrsa.arrays import as_groups, center
from realign.hrsa.neighbours import tile_buffer
from realign.hrsa.overlap import KNNOverlap, knn_overlap, overlaps
from realign.hrsa.work import Work


def _knn_rows(found: KNNOverlap, **where: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **where,
            "k": found.k,
            "jaccard": found.jaccard,
            "overlap": found.overlap,
            "chance": found.chance,
            "corrected": found.corrected,
        }
    )


def knn(work: Work, labels: Sequence[Any] | None) -> None:
    """Frames `knn`, `knn_labels` (with labels) and `knn_variants` (full detail)."""
    rows = work.sample(work.options.knn_tokens)
    groups = as_groups(work.all_groups[rows], len(rows))
    texts = int(groups.max()) + 1
    weights = (
        work.weights
        if texts == work.texts
        else cal.resample_weights(texts, work.options.resamples, work.options.seed)
    )
    candidates = len(rows) - int(np.bincount(groups).max())
    ks = tuple(k for k in work.options.k if k <= candidates)
    if not ks:
        raise ValueError(f"k={work.options.k}: {len(rows)} tokens leave only {candidates} candidates a token")
    frames, influences = [], np.empty((len(ks), len(work.picked), texts))
    buffer = tile_buffer(work.pair(0, rows)[0])
    for i, layer in enumerate(work.picked):
        x, y = work.pair(layer, rows)
        both = overlaps(x, y, ks, "cosine", [np.arange(len(rows)), groups], buffer=buffer)
        for estimator, found in zip(("paper", "reference"), both, strict=True):
            per_row = found.jaccard_rows if estimator == "paper" else found.corrected_rows
            influence = cal.mean_influence(per_row, groups, texts)
            frame = _knn_rows(found, estimator=estimator, layer=layer)
            frame["low"], frame["high"] = cal.interval(per_row.mean(1), influence, weights)
            frames.append(frame)
        influences[:, i] = influence
    work.report.frames["knn"] = pd.concat(frames, ignore_index=True).sort_values(
        ["estimator", "layer", "k"], ignore_index=True
    )
    for i, k in enumerate(ks):
        work.keep(f"knn@{k}", work.picked, influences[i])
    if labels is not None:
        given = np.asarray(labels)
        if given.shape != work.a.text_keys.shape:
            raise ValueError(
                f"labels has shape {given.shape}; one for each of the {len(work.a.text_keys)} texts"
            )
        of_row = given[work.a.text_ids[rows]]
        work.report.frames["knn_labels"] = pd.DataFrame(
            [
                (layer, label, k, *_conditional(both[1].corrected_rows[i], of_row == label, groups, weights))
                for label in np.unique(of_row)
                for i, k in enumerate(ks)
            ],
            columns=["layer", "label", "k", "corrected", "low", "high", "tokens"],
        )
    if work.detail == "full":
        work.report.frames["knn_variants"] = _knn_variants(work, rows, groups, ks)


def _conditional(
    per_row: NDArray[Any], chosen: NDArray[np.bool_], groups: NDArray[Any], weights: NDArray[Any]
) -> tuple[float, float, float, int]:
    """Mean over the chosen rows, its interval over texts, and how many rows they are."""
    share = chosen.mean()
    value = float(per_row[chosen].mean())
    influence = cal.mean_influence(np.where(chosen, per_row - value, 0) / share, groups, weights.shape[1])
    low, high = cal.interval(value, influence, weights)
    return value, float(low), float(high), int(chosen.sum())


def _knn_variants(work: Work, rows: NDArray[Any], groups: NDArray[Any], ks: tuple[int, ...]) -> pd.DataFrame:
    """Centred and standardised tokens at the first, middle and last layer; text means at every layer."""
    frames = []

    def add(found: KNNOverlap, numbers: NDArray[Any], **where: Any) -> None:
        count = int(numbers.max()) + 1
        weights = cal.resample_weights(count, work.options.resamples, work.options.seed)
        influence = cal.mean_influence(found.corrected_rows, numbers, count)
        low, high = cal.interval(found.corrected, influence, weights)
        frames.append(_knn_rows(found, **where).assign(low=low, high=high))

    for layer in sorted({0, work.layers // 2, work.layers - 1}):
        x, y = work.pair(layer, rows)
        for variant, change in (("centred", center), ("standardised", geo.standardise)):
            found = knn_overlap(change(x), change(y), k=ks, groups=groups)
            add(found, groups, variant=variant, layer=layer)
    keys = as_groups(work.a.text_keys, len(work.a.text_keys))
    small = tuple(k for k in ks if k < len(keys))
    for layer in range(work.layers if small else 0):
        found = knn_overlap(work.a.pooled[layer], work.b.pooled[layer], k=small)
        add(found, keys, variant="text", layer=layer)
    return pd.concat(frames, ignore_index=True)
