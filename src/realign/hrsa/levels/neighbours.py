"""Local geometry of a report: k-NN overlap of tokens and texts, in both estimators."""

from __future__ import annotations

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
from realign.hrsa.rows import Rows


def knn(pair: Pair) -> Rows:
    """k-NN overlap of tokens for every k: the paper's Jaccard index, and the chance-corrected overlap.

    Full detail adds the variants 'centred' and 'standardised' (tokens at the first, middle and last layer)
    and 'text' (text means). Details: `knn` (overlap, chance and both numbers of every row), `knn_labels`
    (with labels: the last layer by label).
    """
    tokens = pair.sample(pair.options.knn_tokens)
    groups = pair.texts_of(tokens)
    weights = _weights(pair, groups)
    ks = _sizes(pair, groups)
    curves = _Curves()
    buffer = tile_buffer(pair.layer(0, tokens)[0])
    for layer in pair.picked:
        x, y = pair.layer(layer, tokens)
        both = overlaps(x, y, ks, "cosine", [np.arange(len(tokens)), groups], buffer=buffer)
        for estimator, overlap in zip(("paper", "reference"), both, strict=True):
            curves.add(layer, estimator, "", overlap, groups, weights)
    rows = Rows()
    if pair.detail == "full":
        for layer, variant, overlap, numbers in _variants(pair, tokens, groups, ks):
            curves.add(layer, "reference", variant, overlap, numbers, _weights(pair, numbers))
    curves.into(rows)
    if pair.labels is not None:
        rows.details["knn_labels"] = _by_label(pair, tokens, both[1], layer, groups, weights)
    return rows


def _weights(pair: Pair, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    return unc.resample_weights(int(groups.max()) + 1, pair.options.resamples, pair.options.seed)


def _sizes(pair: Pair, groups: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the values of k for which every token has enough candidates."""
    candidates = len(groups) - int(np.bincount(groups).max())
    ks = tuple(k for k in pair.options.k if k <= candidates)
    if not ks:
        raise ValueError(
            f"k={pair.options.k}: {len(groups)} tokens leave only {candidates} candidates a token"
        )
    return ks


class _Curves:
    """Overlaps of several layers, collected by estimator, variant and k."""

    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []
        self.influences: dict[int, list[np.ndarray]] = {}

    def add(
        self,
        layer: int,
        estimator: str,
        variant: str,
        overlap: KNNOverlap,
        groups: NDArray[np.int64],
        weights: NDArray[np.float64],
    ) -> None:
        """Take one layer; the interval is over the texts (n,) that ``groups`` names."""
        per_row = overlap.jaccard_rows if estimator == "paper" else overlap.corrected_rows
        influence = unc.mean_influence(per_row, groups, weights.shape[1])
        low, high = unc.interval(per_row.mean(1), influence, weights)
        for i, k in enumerate(overlap.k):
            self.records.append(
                {"estimator": estimator, "variant": variant, "k": k, "layer": layer}
                | {"value": per_row[i].mean(), "low": low[i], "high": high[i]}
                | {name: getattr(overlap, name)[i] for name in ("jaccard", "overlap", "chance", "corrected")}
            )
            if (estimator, variant) == ("reference", ""):
                self.influences.setdefault(k, []).append(influence[i])

    def into(self, rows: Rows) -> None:
        """Write the rows of the table and the detail `knn`."""
        frame = pd.DataFrame(self.records)
        for key, mine in frame.groupby(["estimator", "variant", "k"]):
            estimator, variant, k = key
            # By chance the corrected overlap is 0; the Jaccard index has no simple chance level.
            rows.add(
                "knn",
                estimator,
                mine["layer"].tolist(),
                mine["value"].to_numpy(),
                (mine["low"].to_numpy(), mine["high"].to_numpy()),
                variant=variant,
                k=k,
                null=0.0 if estimator == "reference" else np.nan,
                influence=np.stack(self.influences[k]) if (estimator, variant) == ("reference", "") else None,
            )
        order = ["estimator", "variant", "layer", "k"]
        columns = [*order, "jaccard", "overlap", "chance", "corrected"]
        rows.details["knn"] = frame[columns].sort_values(order, ignore_index=True)


def _by_label(
    pair: Pair,
    tokens: NDArray[np.int64],
    overlap: KNNOverlap,
    layer: int,
    groups: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> pd.DataFrame:
    """Corrected overlap of the tokens of each label: layer, label, k, corrected, low, high, tokens."""
    given = np.asarray(pair.labels)
    if given.shape != pair.a.text_keys.shape:
        raise ValueError(f"labels has shape {given.shape}; one for each of the {len(pair.a.text_keys)} texts")
    of_row = given[pair.a.text_ids[tokens]]
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
