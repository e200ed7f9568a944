"""Every layer of one model with every layer of another: linear CKA.

CKA works on column-centred states. With K = Xc Xc', L = Yc Yc' (centred Gram matrices), k and l their
diagonals, and <K, L> the sum of their elementwise product, both estimators need three numbers only:

    biased    HSIC_0 = <K, L>                                          (Kornblith et al. 2019)
    debiased  HSIC_1 = <K, L> - (1 + 2/(n-2)) k.l + tr K tr L / ((n-1)(n-2))   (Song 2012; Nguyen 2021)

up to factors that cancel in CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)). HSIC_1 is usually written with
zero-diagonal Grams; on centred data their row sums are -k, which gives the line above. <K, L> equals
||Xc'Yc||^2, so the Gram form, the feature form and both estimators agree to rounding.

Each of these numbers is a sum over rows. Summed over parts of the texts instead of over all rows, it gives the
influence of each part, and with it an interval of every cell (a delete-a-group jackknife), without
another matrix product.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa.arrays import (
    Stack,
    as_layers,
    blocks,
    by_part,
    center,
    column_means,
    full_precision,
    numpy,
    row_squares,
)
from realign.hrsa.checks import one_of, whole_number

Estimator = Literal["biased", "debiased"]
Method = Literal["auto", "gram", "feature", "minibatch"]

ROW_TILES = 2
"""Row tiles kept centred in memory while the loop goes over all column tiles."""


def cka_grid(
    xs: Stack,
    ys: Stack,
    *,
    estimator: Estimator = "debiased",
    method: Method = "auto",
    block: int = 256,
    batch: int = 256,
) -> np.ndarray:
    """Linear CKA of every layer of one model with every layer of another.

    Args:
        xs: (L, n, d) states of the first model, or L matrices (n, d_l) that may differ in width.
        ys: (M, n, d) of the second, the same rows.
        estimator: 'biased' lies in [0, 1] and rises as n falls below d; 'debiased' is centred on 0 for
            independent data and may be negative (it is never clamped). It needs n >= 4.
        method: 'gram' computes each layer's Gram matrix once, in blocks; 'feature' multiplies each
            pair of layers; 'auto' takes the cheaper; all three are exact and equal. 'minibatch' averages
            the debiased HSIC over batches of rows (Nguyen et al. 2021), an approximation in time linear
            in n.
        block: side of the tiles of the Gram matrices.
        batch: rows of a minibatch.

    Returns:
        (L, M) float64; NaN where the debiased self-similarity of a layer is not positive.
    """
    one_of(estimator, "estimator", get_args(Estimator))
    one_of(method, "method", get_args(Method))
    block, batch = whole_number(block, "block"), whole_number(batch, "batch")
    left, right = _layers(xs, ys, rows=4 if estimator == "debiased" else 2)
    with full_precision():
        if method == "minibatch":
            if estimator != "debiased":
                raise ValueError("method 'minibatch' is unbiased only with estimator='debiased'")
            return _minibatch(left, right, batch)
        return _exact(left, right, method, block, None, (estimator,))[estimator][0]


def cka_grids(
    xs: Stack, ys: Stack, *, method: Method = "auto", block: int = 256, parts: NDArray[np.int64] | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both estimators for the price of one, and the influence of parts of the texts on every cell.

    Args:
        xs: as in :func:`cka_grid`.
        ys: as in :func:`cka_grid`.
        method: 'auto', 'gram' or 'feature'; with ``parts`` 'gram' is used.
        block: as in :func:`cka_grid`.
        parts: (n,) number of the part, 0 to P - 1, that each row belongs to; None: one part.

    Returns:
        {'biased': ..., 'debiased': ...}, each a grid (L, M) and its influences (P, L, M), which sum to 0.
    """
    one_of(method, "method", ("auto", "gram", "feature"))
    left, right = _layers(xs, ys, rows=4)
    with full_precision():
        return _exact(left, right, method, block, parts, ("biased", "debiased"))


def _layers(xs: Stack, ys: Stack, rows: int) -> tuple[list[Tensor], list[Tensor]]:
    left = as_layers(xs, "xs", rows=rows)
    right = left if xs is ys else as_layers(ys, "ys", rows=rows)
    n = left[0].shape[0]
    if right[0].shape[0] != n:
        raise ValueError(f"xs has {n} rows and ys {right[0].shape[0]}; rows must be the same tokens")
    if right is left:
        return left, left
    device, dtype = left[0].device, torch.promote_types(left[0].dtype, right[0].dtype)
    return [x.to(dtype) for x in left], [y.to(device, dtype) for y in right]


def _exact(
    left: list[Tensor],
    right: list[Tensor],
    method: str,
    block: int,
    parts: NDArray[np.int64] | None,
    wanted: tuple[str, ...],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    order, bounds = by_part(parts, left[0].shape[0], left[0].device)
    if method == "auto":
        method = _cheaper(left, right)
    sides = [_moments(left, "xs", order)]
    sides.append(sides[0] if right is left else _moments(right, "ys", order))
    squares = [side[1] for side in sides]
    if method == "gram" or parts is not None:
        products = _gram_products(left, right, [side[0] for side in sides], order, bounds, block)
    else:
        products = _feature_products(left, right)
    return {name: _ratio(products, squares, bounds, name) for name in wanted}


def _moments(layers: list[Tensor], name: str, order: Tensor) -> tuple[list[Tensor], Tensor]:
    """Column means of each layer, and (L, n) float64 squared norms of its centred rows, in ``order``."""
    # Allocated before the loop, to avoid memory fragmentation by small results between large temporaries.
    means = [torch.empty(x.shape[1], dtype=x.dtype, device=x.device) for x in layers]
    squares = torch.empty(len(layers), len(order), dtype=torch.float64, device=order.device)
    for i, (x, mean) in enumerate(zip(layers, means, strict=True)):
        mean.copy_(column_means(x))
        torch.index_select(row_squares(varying(x - mean, f"{name}[{i}]")), 0, order, out=squares[i])
    return means, squares


def varying(centred: Tensor, name: str) -> Tensor:
    """Return centred states, or raise ValueError where they are all zero."""
    if float(centred.abs().max()) == 0:
        raise ValueError(f"{name} does not vary over its rows; CKA is not defined")
    return centred


def _cheaper(left: list[Tensor], right: list[Tensor]) -> str:
    """Compare multiply-adds of the two exact forms."""
    n = left[0].shape[0]
    widths, others = [x.shape[1] for x in left], [y.shape[1] for y in right]
    gram = n * n * (sum(widths) + sum(others)) / 2 + n * n * len(left) * len(right) / 2
    pairs = sum(a * b for a in widths for b in others) + sum(a * a for a in [*widths, *others])
    return "gram" if gram < n * pairs else "feature"


def _feature_products(left: list[Tensor], right: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    same, left = right is left, [center(x) for x in left]
    right = left if same else [center(y) for y in right]

    def square(a: Tensor, b: Tensor) -> Tensor:
        return ((a.T @ b) ** 2).sum(dtype=torch.float64)

    cross = torch.stack([torch.stack([square(x, y) for y in right]) for x in left])[None]
    own = torch.stack([square(x, x) for x in left])[None]
    return cross, own, own if right is left else torch.stack([square(y, y) for y in right])[None]


def _gram_products(
    left: list[Tensor],
    right: list[Tensor],
    means: list[list[Tensor]],
    order: Tensor,
    bounds: list[slice],
    block: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """<K_i, L_j> for all pairs, by part of the rows, from tiles of the upper half of the Gram matrices.

    One (L, t) x (t, M) product serves all pairs of a tile, so each Gram matrix is made once instead
    of once a pair. A tile right of the diagonal stands for its mirror image as well. Rows are centred as they
    are read: only a few tiles of each layer are in memory, never a second copy of the states.
    """
    same = right is left
    layers = list(zip(left, means[0], strict=True)) + (
        [] if same else list(zip(right, means[1], strict=True))
    )
    a, device = len(left), left[0].device
    cross = torch.zeros(len(bounds), a, len(right), dtype=torch.float64, device=device)
    own = torch.zeros(len(bounds), len(layers), dtype=torch.float64, device=device)
    buffer = torch.empty(len(layers) * block**2, dtype=left[0].dtype, device=device)
    spans = [(p, part) for p, whole in enumerate(bounds) for part in blocks(whole, block)]

    def centred(rows: slice) -> list[Tensor]:
        return [x.index_select(0, order[rows]).sub_(mean) for x, mean in layers]

    for first in range(0, len(spans), ROW_TILES):
        held = [
            (i, *spans[i], centred(spans[i][1])) for i in range(first, min(first + ROW_TILES, len(spans)))
        ]
        for j in range(first, len(spans)):
            q, columns = spans[j]
            others = held[j - first][3] if j < first + ROW_TILES else centred(columns)
            for i, p, rows, tiles in held[: j - first + 1]:
                size, width = rows.stop - rows.start, columns.stop - columns.start
                grams = buffer[: len(layers) * size * width].view(len(layers), size, width)
                for gram, x, y in zip(grams, tiles, others, strict=True):
                    torch.mm(x, y.T, out=gram)
                flat = grams.view(len(layers), -1)
                product = (flat[:a] @ (flat if same else flat[a:]).T).double()
                norms = product.diagonal() if same else torch.stack([g.dot(g) for g in flat]).double()
                for part in (p,) if i == j else (p, q):
                    cross[part] += product
                    own[part] += norms
    return cross, own[:, :a], own if same else own[:, a:]


def hsic(product: Tensor, dot: Tensor, traces: Tensor, n: int, estimator: str) -> Tensor:
    """HSIC up to a factor: from <K, L>, k.l and tr K tr L, or from the shares of some rows in them."""
    if estimator == "biased":
        return product
    return product - (1 + 2 / (n - 2)) * dot + traces / ((n - 1) * (n - 2))


def _ratio(
    products: tuple[Tensor, Tensor, Tensor], squares: list[Tensor], bounds: list[slice], estimator: str
) -> tuple[np.ndarray, np.ndarray]:
    """CKA from what each part holds of every sum, and each part's influence (as in cka_with_influence)."""
    (k, l_), n = squares, bounds[-1].stop
    k_traces, l_traces = (torch.stack([side[:, rows].sum(1) for rows in bounds]) for side in squares)
    k_squares, l_squares = (torch.stack([(side[:, r] ** 2).sum(1) for r in bounds]) for side in squares)
    dot = torch.stack([k[:, rows] @ l_[:, rows].T for rows in bounds])
    mixed = k_traces[:, :, None] * l_traces.sum(0) + k_traces.sum(0)[:, None] * l_traces[:, None]
    cross = hsic(products[0], dot, mixed / 2, n, estimator)
    first = hsic(products[1], k_squares, k_traces * k_traces.sum(0), n, estimator)
    second = hsic(products[2], l_squares, l_traces * l_traces.sum(0), n, estimator)
    norms = [torch.where(v.sum(0) > 0, v.sum(0), torch.nan) for v in (first, second)]
    scale = torch.sqrt(norms[0])[:, None] * torch.sqrt(norms[1])
    value = cross.sum(0) / scale
    share = (first / norms[0])[:, :, None] + (second / norms[1])[:, None]
    return numpy(value), numpy(2 * cross / scale - value * share)


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
            diagonals.append(row_squares(part))
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
