"""Global geometry: linear CKA, biased and debiased, and the diagnostics that keep it honest.

All forms work on column-centred states. With K = Xc Xc', L = Yc Yc' (centred Gram matrices), k and l
their diagonals, and <K, L> the sum of their elementwise product, both estimators need three numbers only:

    biased    HSIC_0 = <K, L>                                          (Kornblith et al. 2019)
    debiased  HSIC_1 = <K, L> - (1 + 2/(n-2)) k.l + tr K tr L / ((n-1)(n-2))   (Song 2012; Nguyen 2021)

up to factors that cancel in CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)). HSIC_1 is usually written with
zero-diagonal Grams; on centred data their row sums are -k, which gives the line above. <K, L> equals
||Xc'Yc||^2, so the Gram form, the feature form and both estimators agree to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from realign.hrsa.arrays import as_layers, as_matrix, as_pair, center, full_precision, numpy

Estimator = Literal["biased", "debiased"]
Method = Literal["auto", "gram", "feature", "minibatch"]


def linear_cka(x: Any, y: Any, *, estimator: Estimator = "biased") -> float:
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


def cka_grid(
    xs: Any,
    ys: Any,
    *,
    estimator: Estimator = "debiased",
    method: Method = "auto",
    block: int = 128,
    batch: int = 256,
) -> np.ndarray:
    """Linear CKA of every layer of one model with every layer of another.

    Args:
        xs: (L, n, d) states of the first model, or L matrices (n, d_l) that may differ in width.
        ys: (M, n, d) of the second, the same rows.
        estimator: 'biased' or 'debiased', see :func:`linear_cka`.
        method: 'gram' computes each layer's Gram matrix once, in row blocks; 'feature' multiplies each
            pair of layers; 'auto' takes the cheaper; all three are exact and equal. 'minibatch' averages
            the debiased HSIC over batches of rows (Nguyen et al. 2021), an approximation in time linear
            in n.
        block: rows of the Gram matrices held at a time.
        batch: rows of a minibatch.

    Returns:
        (L, M) float64; NaN where the debiased self-similarity of a layer is not positive.
    """
    return _grids(xs, ys, method=method, block=block, batch=batch, wanted=(estimator,))[estimator]


def cka_grids(xs: Any, ys: Any, *, method: Method = "auto", block: int = 128) -> dict[str, np.ndarray]:
    """Return both estimators, {'biased': (L, M), 'debiased': (L, M)}, for the price of one."""
    return _grids(xs, ys, method=method, block=block, batch=0, wanted=("biased", "debiased"))


def _grids(
    xs: Any, ys: Any, *, method: str, block: int, batch: int, wanted: tuple[str, ...]
) -> dict[str, np.ndarray]:
    for name in wanted:
        if name not in ("biased", "debiased"):
            raise ValueError(f"estimator '{name}' is unknown; choose 'biased' or 'debiased'")
    rows = 4 if "debiased" in wanted else 2
    same = xs is ys
    left = as_layers(xs, "xs", rows=rows)
    right = left if same else as_layers(ys, "ys", rows=rows)
    n = left[0].shape[0]
    if right[0].shape[0] != n:
        raise ValueError(f"xs has {n} rows and ys {right[0].shape[0]}; rows must be the same tokens")
    with full_precision():
        if method == "minibatch":
            if wanted != ("debiased",):
                raise ValueError("method 'minibatch' is unbiased only with estimator='debiased'")
            return {"debiased": _minibatch(left, right, batch)}
        left = [_varying(center(x), f"xs[{i}]") for i, x in enumerate(left)]
        right = left if same else [_varying(center(y), f"ys[{i}]") for i, y in enumerate(right)]
        if method == "auto":
            method = _cheaper(left, right)
        if method not in ("gram", "feature"):
            raise ValueError(f"method '{method}' is unknown; choose auto, gram, feature or minibatch")
        products = (_gram_products if method == "gram" else _feature_products)(left, right, block)
        diagonals = [
            torch.stack([_row_squares(x) for x in left]),
            torch.stack([_row_squares(y) for y in right]),
        ]
        return {name: numpy(_ratio(products, diagonals, n, name)) for name in wanted}


def _varying(centred: Tensor, name: str) -> Tensor:
    if float(centred.abs().max()) == 0:
        raise ValueError(f"{name} does not vary over its rows; CKA is not defined")
    return centred


def _row_squares(x: Tensor) -> Tensor:
    return (x * x).sum(1, dtype=torch.float64)


def _cheaper(left: list[Tensor], right: list[Tensor]) -> str:
    """Compare multiply-adds of the two exact forms."""
    n = left[0].shape[0]
    widths, others = [x.shape[1] for x in left], [y.shape[1] for y in right]
    gram = n * n * (sum(widths) + sum(others)) / 2 + n * n * len(left) * len(right) / 2
    pairs = sum(a * b for a in widths for b in others) + sum(a * a for a in [*widths, *others])
    return "gram" if gram < n * pairs else "feature"


def _feature_products(left: list[Tensor], right: list[Tensor], _block: int) -> tuple[Tensor, Tensor, Tensor]:
    def square(a: Tensor, b: Tensor) -> Tensor:
        return ((a.T @ b) ** 2).sum(dtype=torch.float64)

    cross = torch.stack([torch.stack([square(x, y) for y in right]) for x in left])
    own = torch.stack([square(x, x) for x in left])
    return cross, own, own if right is left else torch.stack([square(y, y) for y in right])


def _gram_products(left: list[Tensor], right: list[Tensor], block: int) -> tuple[Tensor, Tensor, Tensor]:
    """<K_i, L_j> for all pairs from row blocks of the Gram matrices; only the upper half is computed.

    One (L, b n) x (b n, M) product serves all pairs of a block, so each Gram matrix is made once instead
    of once a pair. Entries right of the diagonal block stand for their mirror images as well.
    """
    layers = left if right is left else [*left, *right]
    n, a = left[0].shape[0], len(left)
    device, dtype = left[0].device, left[0].dtype
    cross = torch.zeros(a, len(right), dtype=torch.float64, device=device)
    own = torch.zeros(len(layers), dtype=torch.float64, device=device)
    buffer = torch.empty(len(layers) * block * n, dtype=dtype, device=device)
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        size = rows.stop - start
        # Diagonal block and the rest apart: the rest counts twice.
        for columns, weight in ((rows, 1.0), (slice(rows.stop, n), 2.0)):
            width = columns.stop - columns.start
            if width == 0:
                continue
            grams = buffer[: len(layers) * size * width].view(len(layers), size, width)
            for i, x in enumerate(layers):
                torch.mm(x[rows], x[columns].T, out=grams[i])
            flat = grams.view(len(layers), -1)
            first, second = flat[:a], flat if right is left else flat[a:]
            cross += weight * (first @ second.T).double()
            if right is not left:
                own += weight * torch.stack([row.dot(row) for row in flat]).double()
    if right is left:
        return cross, cross.diagonal(), cross.diagonal()
    return cross, own[:a], own[a:]


def hsic(product: Tensor, dot: Tensor, traces: Tensor, n: int, estimator: str) -> Tensor:
    """HSIC up to a factor: from <K, L>, k.l and tr K tr L."""
    if estimator == "biased":
        return product
    return product - (1 + 2 / (n - 2)) * dot + traces / ((n - 1) * (n - 2))


def _ratio(
    products: tuple[Tensor, Tensor, Tensor], diagonals: list[Tensor], n: int, estimator: str
) -> Tensor:
    (cross, own_x, own_y), (k, l_) = products, diagonals
    trace_x, trace_y = k.sum(1), l_.sum(1)
    top = hsic(cross, k @ l_.T, trace_x[:, None] * trace_y[None, :], n, estimator)
    bottom_x = hsic(own_x, (k * k).sum(1), trace_x**2, n, estimator)
    bottom_y = hsic(own_y, (l_ * l_).sum(1), trace_y**2, n, estimator)
    scale = torch.sqrt(torch.where(bottom_x > 0, bottom_x, torch.nan))[:, None] * torch.sqrt(
        torch.where(bottom_y > 0, bottom_y, torch.nan)
    )
    return top / scale


def _minibatch(left: list[Tensor], right: list[Tensor], batch: int) -> np.ndarray:
    n = left[0].shape[0]
    if not 4 <= batch <= n:
        raise ValueError(f"batch must lie between 4 and the {n} rows, got {batch}")
    a, b, device = len(left), len(right), left[0].device
    cross = torch.zeros(a, b, dtype=torch.float64, device=device)
    own = torch.zeros(a + b, dtype=torch.float64, device=device)
    # A ragged last batch is left out: batches of different size have different variance.
    for start in range(0, n - batch + 1, batch):
        rows = slice(start, start + batch)
        grams, diagonals = [], []
        for x in [*left, *right]:
            part = center(x[rows])
            grams.append((part @ part.T).flatten())
            diagonals.append(_row_squares(part))
        flat, k = torch.stack(grams), torch.stack(diagonals)
        traces = k.sum(1)
        cross += hsic(
            (flat[:a] @ flat[a:].T).double(),
            k[:a] @ k[a:].T,
            traces[:a, None] * traces[None, a:],
            batch,
            "debiased",
        )
        norms = torch.stack([row.dot(row) for row in flat]).double()
        own += hsic(norms, (k * k).sum(1), traces**2, batch, "debiased")
    own = torch.where(own > 0, own, torch.nan)
    return numpy(cross / torch.sqrt(own[:a, None] * own[None, a:]))


@dataclass(frozen=True)
class CKAResult:
    """CKA of one pair with the influence (n,) of each row on the debiased and the biased value."""

    biased: float
    debiased: float
    influence: np.ndarray
    biased_influence: np.ndarray


def cka_with_influence(x: Any, y: Any) -> CKAResult:
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
        xc, yc = _varying(center(left), "X"), _varying(center(right), "Y")
        if n < min(xc.shape[1], yc.shape[1]):
            gram_x, gram_y = xc @ xc.T, yc @ yc.T
            parts = [(gram_x * gram_y), gram_x * gram_x, gram_y * gram_y]
            rows = [part.sum(1, dtype=torch.float64) for part in parts]
        else:
            cross = xc.T @ yc
            rows = [
                ((p @ matrix) * q).sum(1, dtype=torch.float64)
                for p, matrix, q in ((xc, cross, yc), (xc, xc.T @ xc, xc), (yc, yc.T @ yc, yc))
            ]
        k, l_ = _row_squares(xc), _row_squares(yc)
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


def standardise(x: Any) -> Tensor:
    """Centre each dimension and divide it by its standard deviation; constant dimensions become 0."""
    values = center(as_matrix(x, "X"))
    scale = torch.sqrt((values * values).mean(0, dtype=torch.float64)).to(values.dtype)
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


def energy(x: Any) -> Energy:
    """Measure how much a single dimension or 1% of the rows can dominate CKA and Procrustes."""
    values = as_matrix(x, "X")
    squared = _varying(center(values), "X") ** 2
    total = squared.sum(dtype=torch.float64)
    by_row = squared.sum(1, dtype=torch.float64)
    few = max(1, round(0.01 * len(by_row)))
    norms = torch.sqrt(_row_squares(values))
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
