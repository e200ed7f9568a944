"""Global geometry of one pair of layers: linear CKA with influences, and the diagnostics that keep it honest.

For the formulas, and for all pairs of layers at once, see :mod:`realign.hrsa.grids`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from realign.hrsa.arrays import (
    Array,
    as_matrix,
    as_pair,
    center,
    column_sums,
    full_precision,
    numpy,
    row_squares,
)
from realign.hrsa.grids import Estimator, cka_grid, hsic, varying


def linear_cka(x: Array, y: Array, *, estimator: Estimator = "biased") -> float:
    """Linear CKA of two representations of the same rows, in float64.

    Args:
        x: states (n, d1).
        y: states (n, d2).
        estimator: 'biased' lies in [0, 1] and rises as n falls below d; 'debiased' is centred on 0 for
            independent data and may be negative (it is never clamped). It needs n >= 4.

    Raises:
        ValueError: rows differ, a value is not finite, too few rows, or no variance on a side.
    """
    left, right = as_pair(x, y)
    grid = cka_grid([left.double()], [right.double()], estimator=estimator)
    return float(grid[0, 0])


@dataclass(frozen=True)
class CKAResult:
    """CKA of one pair with the influence (n,) of each row on the debiased and the biased value."""

    biased: float
    debiased: float
    influence: np.ndarray
    biased_influence: np.ndarray


def cka_with_influence(x: Array, y: Array) -> CKAResult:
    """Both CKA estimators of one pair, and how much each row moves the debiased one.

    Row p contributes ``sum_q K_pq L_pq = (x_p' X'Y) . y_p`` to <K, L>; because K and L are centred,
    moving the centre has no first-order effect, so twice the contribution is the row's influence on HSIC.
    Sum the influences of a text's rows to get the text's.

    Returns:
        CKAResult with influence (n,), summing to 0.
    """
    left, right = as_pair(x, y, rows=4)
    n = left.shape[0]
    with full_precision():
        xc, yc = varying(center(left), "X"), varying(center(right), "Y")
        if n < min(xc.shape[1], yc.shape[1]):
            gram_x, gram_y = xc @ xc.T, yc @ yc.T
            parts = [(gram_x * gram_y), gram_x * gram_x, gram_y * gram_y]
            rows = [part.sum(1, dtype=torch.float64) for part in parts]
        else:
            cross = xc.T @ yc
            rows = [
                torch.cat(
                    [
                        ((a @ matrix) * b).sum(1, dtype=torch.float64)
                        for a, b in zip(p.split(1024), q.split(1024), strict=True)
                    ]
                )
                for p, matrix, q in ((xc, cross, yc), (xc, xc.T @ xc, xc), (yc, yc.T @ yc, yc))
            ]
        k, l_ = row_squares(xc), row_squares(yc)
    biased = float(rows[0].sum() / torch.sqrt(rows[1].sum() * rows[2].sum()))
    shares_of = [row / row.sum() for row in rows]
    plain = numpy(biased * (2 * shares_of[0] - shares_of[1] - shares_of[2]))
    pairs = ((k, l_), (k, k), (l_, l_))
    shares = [
        hsic(row, p * q, (p * q.sum() + p.sum() * q) / 2, n, "debiased")
        for row, (p, q) in zip(rows, pairs, strict=True)
    ]
    cross_hsic, hsic_x, hsic_y = (share.sum() for share in shares)
    if float(hsic_x) <= 0 or float(hsic_y) <= 0:
        return CKAResult(biased, float("nan"), np.full(n, np.nan), plain)
    scale = torch.sqrt(hsic_x * hsic_y)
    value = cross_hsic / scale
    influence = 2 * shares[0] / scale - value * (shares[1] / hsic_x + shares[2] / hsic_y)
    return CKAResult(biased, float(value), numpy(influence), plain)


def standardise(x: Array) -> Tensor:
    """Centre each dimension and divide it by its standard deviation; constant dimensions become 0."""
    values = center(as_matrix(x, "X"))
    scale = torch.sqrt(column_sums(values * values) / len(values)).to(values.dtype)
    return values / torch.where(scale > 0, scale, torch.inf)


@dataclass(frozen=True)
class Energy:
    """How concentrated the squared Frobenius norm of centred states is.

    Attributes:
        top_dimension: share of the norm in its largest dimension, 1/d to 1.
        top_rows: share in the largest 1% of rows (at least one row).
        norm_ratio: (n,) norm of each uncentred row / median norm.
        influence: (2, n) influence of each row on the two shares; which dimension and rows are on top is
            held fixed.
    """

    top_dimension: float
    top_rows: float
    norm_ratio: np.ndarray
    influence: np.ndarray


def energy(x: Array) -> Energy:
    """Measure how much a single dimension or 1% of the rows can dominate CKA and Procrustes."""
    values = as_matrix(x, "X")
    squared = varying(center(values), "X") ** 2
    total = squared.sum(dtype=torch.float64)
    by_row = squared.sum(1, dtype=torch.float64)
    few = max(1, round(0.01 * len(by_row)))
    norms = torch.sqrt(row_squares(values))
    median = norms.median().clamp_min(1e-300)
    by_dimension = squared.sum(0, dtype=torch.float64)
    top = by_row.topk(few)
    on_top = torch.zeros_like(by_row).index_fill_(0, top.indices, 1.0)
    shares = [float(by_dimension.max() / total), float(top.values.sum() / total)]
    parts = [squared[:, by_dimension.argmax()].double(), by_row * on_top]
    influence = [numpy((part - share * by_row) / total) for part, share in zip(parts, shares, strict=True)]
    return Energy(shares[0], shares[1], numpy(norms / median), np.stack(influence))


SINK_RATIO = 5.0
"""A row is a sink where its norm exceeds this many times the median norm of its layer."""
