"""Local geometry of a report: k-NN overlap of tokens and texts, in both estimators."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from realign.hrsa import geometry as geo
from realign.hrsa import uncertainty as unc
from realign.hrsa.arrays import as_groups, center
from realign.hrsa.knn import KNNOverlap, knn_overlap, overlaps
from realign.hrsa.neighbours import tile_buffer
from realign.hrsa.pair import Pair
from realign.hrsa.rows import COLUMNS, Rows, metric_id


def knn(pair: Pair) -> Rows:
    """k-NN overlap of tokens for every k: the paper's Jaccard index, and the chance-corrected overlap.

    Full detail adds the variants 'centred' and 'standardised' (tokens at the first, middle and last layer)
    and 'text' (text means). Details: `knn` (overlap, chance and both numbers of every row), `knn_labels`
    (with labels: the last layer by label).
    """
    tokens = pair.sample(pair.options.knn_tokens)
    groups = pair.texts_of(tokens)
    ks = _sizes(pair, groups)
    records: list[dict[str, object]] = []
    influences: dict[str, list[np.ndarray]] = defaultdict(list)

    def measured(layer: int, estimator: str, variant: str, overlap: KNNOverlap, texts: np.ndarray) -> None:
        """Record one layer; the interval is over the texts (n,) of its rows."""
        per_row = overlap.jaccard_rows if estimator == "paper" else overlap.corrected_rows
        weights = _weights(pair, texts)
        influence = unc.mean_influence(per_row, texts, weights.shape[1])
        value, (low, high) = per_row.mean(1), unc.interval(per_row.mean(1), influence, weights)
        for i, k in enumerate(overlap.k):
            names = ("knn", estimator, variant, k, layer)
            # By chance the corrected overlap is 0; the Jaccard index has no simple chance level.
            numbers = (value[i], low[i], high[i], 0.0 if estimator == "reference" else np.nan, np.nan)
            more = {name: getattr(overlap, name)[i] for name in ("jaccard", "overlap", "chance", "corrected")}
            records.append(dict(zip(COLUMNS, names + numbers, strict=True)) | more)
            if (estimator, variant) == ("reference", ""):
                influences[metric_id("knn", k=k)].append(influence[i])

    buffer = tile_buffer(pair.layer(0, tokens)[0])
    for layer in pair.picked:
        x, y = pair.layer(layer, tokens)
        both = overlaps(x, y, ks, "cosine", [np.arange(len(tokens)), groups], buffer=buffer)
        for estimator, overlap in zip(("paper", "reference"), both, strict=True):
            measured(layer, estimator, "", overlap, groups)
    if pair.detail == "full":
        for other, variant, overlap, texts in _variants(pair, tokens, groups, ks):
            measured(other, "reference", variant, overlap, texts)
    frame, order = pd.DataFrame(records), ["estimator", "variant", "layer", "k"]
    rows = Rows([frame[COLUMNS]])
    rows.influence = {name: np.stack(parts).astype(np.float32) for name, parts in influences.items()}
    shown = frame[[*order, "jaccard", "overlap", "chance", "corrected"]]
    rows.details["knn"] = shown.sort_values(order, ignore_index=True)
    if pair.labels is not None:
        rows.details["knn_labels"] = _by_label(pair, tokens, both[1], layer, groups)
    return rows


def _weights(pair: Pair, texts: NDArray[np.int64]) -> NDArray[np.float64]:
    return unc.resample_weights(int(texts.max()) + 1, pair.options.resamples, pair.options.seed)


def _sizes(pair: Pair, groups: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the values of k for which every token has enough candidates."""
    candidates = len(groups) - int(np.bincount(groups).max())
    ks = tuple(k for k in pair.options.k if k <= candidates)
    if not ks:
        raise ValueError(
            f"k={pair.options.k}: {len(groups)} tokens leave only {candidates} candidates a token"
        )
    return ks


def _by_label(
    pair: Pair,
    tokens: NDArray[np.int64],
    overlap: KNNOverlap,
    layer: int,
    groups: NDArray[np.int64],
) -> pd.DataFrame:
    """Corrected overlap of the tokens of each label: layer, label, k, corrected, low, high, tokens."""
    given = np.asarray(pair.labels)
    if given.shape != pair.a.text_keys.shape:
        raise ValueError(f"labels has shape {given.shape}; one for each of the {len(pair.a.text_keys)} texts")
    weights, of_row = _weights(pair, groups), given[pair.a.text_ids[tokens]]
    return pd.DataFrame(
        [
            (layer, label, k, *_conditional(overlap.corrected_rows[i], of_row == label, groups, weights))
            for label in np.unique(of_row)
            for i, k in enumerate(overlap.k)
        ],
        columns=["layer", "label", "k", "corrected", "low", "high", "tokens"],
    )


def _conditional(
    per_row: np.ndarray, chosen: NDArray[np.bool_], groups: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, int]:
    """Mean over the chosen rows, its interval over texts, and how many rows they are."""
    share = chosen.mean()
    value = float(per_row[chosen].mean())
    influence = unc.mean_influence(np.where(chosen, per_row - value, 0) / share, groups, weights.shape[1])
    low, high = unc.interval(value, influence, weights)
    return value, float(low), float(high), int(chosen.sum())


def _variants(
    pair: Pair, tokens: NDArray[np.int64], groups: NDArray[np.int64], ks: tuple[int, ...]
) -> Iterator[tuple[int, str, KNNOverlap, NDArray[np.int64]]]:
    """Centred and standardised tokens at the first, middle and last layer; text means at every layer.

    Yields layer, variant, overlap, and the text of each row.
    """
    for layer in sorted({0, pair.layers // 2, pair.layers - 1}):
        x, y = pair.layer(layer, tokens)
        for variant, change in (("centred", center), ("standardised", geo.standardise)):
            yield layer, variant, knn_overlap(change(x), change(y), k=ks, groups=groups), groups
    texts = as_groups(pair.a.text_keys, len(pair.a.text_keys))
    small = tuple(k for k in ks if k < len(texts))
    for layer in range(pair.layers if small else 0):
        yield layer, "text", knn_overlap(pair.a.pooled[layer], pair.b.pooled[layer], k=small), texts
