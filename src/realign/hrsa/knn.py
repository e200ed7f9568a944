"""Local geometry: do two models agree on which tokens (or texts) are neighbours?

What a neighbour is, is the same everywhere: see :mod:`realign.hrsa.neighbours`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import uncertainty as unc
from realign.hrsa.arrays import Array, as_groups, as_pair, center, numpy
from realign.hrsa.checks import whole_number, whole_numbers
from realign.hrsa.geometry import standardise
from realign.hrsa.neighbours import BLOCK, Metric, neighbour_lists, tile_buffer
from realign.hrsa.pair import Pair
from realign.hrsa.rows import COLUMNS, Rows, metric_id


@dataclass(frozen=True)
class KNNOverlap:
    """Neighbour agreement of two models for each k, K values of k and n rows.

    Attributes:
        k: the values of k.
        overlap_rows: (K, n) shared neighbours / k.
        jaccard_rows: (K, n) shared / union.
        chance_rows: (K, n) overlap expected of two random neighbour lists.
    """

    k: tuple[int, ...]
    overlap_rows: np.ndarray
    jaccard_rows: np.ndarray
    chance_rows: np.ndarray

    @property
    def overlap(self) -> np.ndarray:
        """Mean overlap fraction for each k, in [0, 1]."""
        return self.overlap_rows.mean(axis=1)

    @property
    def jaccard(self) -> np.ndarray:
        """Mean Jaccard index for each k, in [0, 1]; chance is about half of the overlap's."""
        return self.jaccard_rows.mean(axis=1)

    @property
    def chance(self) -> np.ndarray:
        """Overlap expected by chance for each k: k / (candidates of a row)."""
        return self.chance_rows.mean(axis=1)

    @property
    def corrected_rows(self) -> np.ndarray:
        """(K, n) (overlap - chance) / (1 - chance): 0 at chance, 1 when all neighbours are shared."""
        with np.errstate(invalid="ignore"):  # chance is 1 where k takes every candidate: 0 / 0
            return (self.overlap_rows - self.chance_rows) / (1 - self.chance_rows)

    @property
    def least(self) -> np.ndarray:
        """The corrected overlap for each k where no neighbour is shared: the lowest that there is."""
        with np.errstate(invalid="ignore"):
            return (-self.chance_rows / (1 - self.chance_rows)).mean(axis=1)

    @property
    def corrected(self) -> np.ndarray:
        """Mean chance-corrected overlap for each k."""
        return self.corrected_rows.mean(axis=1)


def knn_overlap(
    x: Array,
    y: Array,
    *,
    k: Sequence[int] | int = (5, 10, 50),
    metric: Metric = "cosine",
    groups: Sequence[object] | Array | None = None,
    block: int = BLOCK,
) -> KNNOverlap:
    """Agreement of nearest neighbours between two representations of the same rows.

    Args:
        x: states (n, d1).
        y: states (n, d2).
        k: neighbourhood sizes, each below the number of candidates.
        metric: 'cosine' or 'euclidean'.
        groups: (n,) text of each row; its own text's rows are excluded from a row's neighbours.
        block: side of a tile of similarities; memory is about 12 x block x block bytes.

    Raises:
        ValueError: rows differ, k is too large, a row is zero under cosine.
    """
    left, right = as_pair(x, y)
    k, block = whole_numbers(k, "k"), whole_number(block, "block")
    return overlaps(left, right, k, metric, [as_groups(groups, len(left))], block)[0]


def overlaps(
    x: Tensor,
    y: Tensor,
    k: Sequence[int] | int,
    metric: str,
    groupings: list[np.ndarray],
    block: int = BLOCK,
    buffer: Tensor | None = None,
) -> list[KNNOverlap]:
    """:func:`knn_overlap` under several groupings, each coarser than the one before, in one pass.

    ``buffer`` is a :func:`tile_buffer` of these rows, for callers that compare many layers.
    """
    ks = (k,) if isinstance(k, int) else tuple(k)
    first = neighbour_lists(x, max(ks), metric, groupings, block, "X", buffer)
    second = neighbour_lists(y, max(ks), metric, groupings, block, "Y", buffer)
    return [_agreement(a, b, ks, numbers) for a, b, numbers in zip(first, second, groupings, strict=True)]


def _agreement(a: Tensor, b: Tensor, ks: tuple[int, ...], groups: np.ndarray) -> KNNOverlap:
    n = len(a)
    shared = np.empty((len(ks), n))
    for start in range(0, n, 1024):
        rows = slice(start, min(start + 1024, n))
        equal = a[rows, :, None].int() == b[rows, None, :].int()
        for i, k in enumerate(ks):
            shared[i, rows] = numpy(equal[:, :k, :k].sum(dim=(1, 2)))
    sizes = np.asarray(ks, dtype=np.float64)[:, None]
    candidates = n - np.bincount(groups)[groups]
    return KNNOverlap(
        ks, shared / sizes, shared / (2 * sizes - shared), np.minimum(1.0, sizes / candidates[None, :])
    )


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
        influence = unc.mean_influence(per_row, texts, int(texts.max()) + 1)
        value = per_row.mean(1)
        low, high = pair.interval("knn", estimator, value, influence)
        if estimator == "reference":
            low = np.fmax(low, overlap.least)
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
    pair: Pair, tokens: NDArray[np.int64], overlap: KNNOverlap, layer: int, groups: NDArray[np.int64]
) -> pd.DataFrame:
    """Corrected overlap of the tokens of each label: layer, label, k, corrected, low, high, tokens."""
    given = np.asarray(pair.labels)
    if given.shape != pair.a.text_keys.shape:
        raise ValueError(f"labels has shape {given.shape}; one for each of the {len(pair.a.text_keys)} texts")
    of_row = given[pair.a.text_ids[tokens]]
    frames = []
    for label in np.unique(of_row):
        chosen = of_row == label
        value = np.array([row[chosen].mean() for row in overlap.corrected_rows])
        spread = np.where(chosen, overlap.corrected_rows - value[:, None], 0) / chosen.mean()
        influence = unc.mean_influence(spread, groups, int(groups.max()) + 1)
        low, high = pair.interval("knn", "reference", value, influence)
        numbers = {"k": overlap.k, "corrected": value, "low": low, "high": high, "tokens": chosen.sum()}
        frames.append(pd.DataFrame({"layer": layer, "label": label, **numbers}))
    return pd.concat(frames, ignore_index=True)


def _variants(
    pair: Pair, tokens: NDArray[np.int64], groups: NDArray[np.int64], ks: tuple[int, ...]
) -> Iterator[tuple[int, str, KNNOverlap, NDArray[np.int64]]]:
    """Centred and standardised tokens at the first, middle and last layer; text means at every layer.

    Yields layer, variant, overlap, and the text of each row.
    """
    for layer in sorted({0, pair.layers // 2, pair.layers - 1}):
        x, y = pair.layer(layer, tokens)
        for variant, change in (("centred", center), ("standardised", standardise)):
            yield layer, variant, knn_overlap(change(x), change(y), k=ks, groups=groups), groups
    texts = as_groups(pair.a.text_keys, len(pair.a.text_keys))
    small = tuple(k for k in ks if k < len(texts))
    for layer in range(pair.layers if small else 0):
        yield layer, "text", knn_overlap(pair.a.pooled[layer], pair.b.pooled[layer], k=small), texts
