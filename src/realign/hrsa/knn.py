"""Local geometry: do two models agree on which tokens (or texts) are neighbours?

What a neighbour is, is the same everywhere: see :mod:`realign.hrsa.neighbours`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from realign.hrsa.arrays import Array, as_groups, as_pair, numpy
from realign.hrsa.neighbours import BLOCK, Metric, neighbour_lists


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
    if not ks:
        raise ValueError("k is empty; give at least one neighbourhood size")
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
