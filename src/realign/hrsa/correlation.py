"""Dimension-wise correlation: do two models use the same axes?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import arrays
from realign.hrsa.arrays import Stack, as_pair, center, constant_columns, group_sums, numpy, unit_scale
from realign.hrsa.checks import whole_number
from realign.hrsa.pair import Pair
from realign.hrsa.rows import Rows


def dimension_correlation(x: arrays.Array, y: arrays.Array) -> np.ndarray:
    """Pearson r of every dimension between two models.

    Args:
        x: states (n, d) of the first model.
        y: states (n, d) of the second, same rows and axes.

    Returns:
        (d,) float64 in [-1, 1]; NaN where a dimension is constant in either model.

    Raises:
        ValueError: the shapes differ, a value is not finite, or all dimensions are constant.
    """
    first, second = as_pair(x, y, same_width=True, unit=True)
    left, right = center(first.double()), center(second.double())
    spread = torch.sqrt((left**2).sum(0)) * torch.sqrt((right**2).sum(0))
    constant = constant_columns(left, first) | constant_columns(right, second)
    if bool(constant.all()):
        raise ValueError("every dimension is constant in X or in Y; no correlation is defined")
    r = (left * right).sum(0) / spread
    r[constant] = torch.nan
    return numpy(r.clamp(-1, 1))


def correlation_grid(xs: Stack, ys: Stack, *, block: int = 512) -> np.ndarray:
    """Mean dimension-wise Pearson r for every pair of layers.

    Args:
        xs: (L, n, d) states of the first model, or a sequence of L matrices.
        ys: (M, n, d) of the second, the same rows and axes.
        block: rows held standardised at a time.

    Returns:
        (L, M) float64: the mean over dimensions that vary in both layers; NaN where there is none.
    """
    return correlation_grid_by_part(xs, ys, None, block=block)[0]


def correlation_grid_by_part(
    xs: Stack, ys: Stack, parts: NDArray[np.int64] | None, *, block: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`correlation_grid` and the influence of parts of the texts on every cell, as in :func:`cka_grids`.

    With z the standardised states, sum z^2 = 1, row p moves a dimension's r by
    ``z_x z_y - r (z_x^2 + z_y^2) / 2``.
    """
    block = whole_number(block, "block")
    left, right = arrays.as_layers(xs, "xs"), arrays.as_layers(ys, "ys")
    n, width = left[0].shape
    if right[0].shape[0] != n or any(layer.shape[1] != width for layer in [*left, *right]):
        raise ValueError("all layers of both models need the same rows and dimensions")
    device = left[0].device
    order, bounds = arrays.by_part(parts, n, device)
    moments = [_standardisers(side) for side in (left, right)]
    valid = [(scales > 0).double() for _, scales in moments]
    sums = torch.zeros(width, len(left), len(right), dtype=torch.float64, device=device)
    cross = torch.zeros(len(bounds), len(left), len(right), dtype=torch.float64, device=device)
    squares = [
        torch.zeros(len(bounds), len(s), width, dtype=torch.float64, device=device) for s in (left, right)
    ]
    with arrays.full_precision():
        for p, whole in enumerate(bounds):
            for span in arrays.blocks(whole, block):
                rows = order[span]
                # (d, layers, rows): one small product a dimension
                z = [
                    torch.stack([(x[rows] - m).mul_(s).T for x, m, s in zip(side, *mom, strict=True)], dim=1)
                    for side, mom in zip((left, right), moments, strict=True)
                ]
                product = torch.bmm(z[0], z[1].transpose(1, 2))
                sums += product
                cross[p] += product.sum(0, dtype=torch.float64)
                for total, part in zip(squares, z, strict=True):
                    total[p] += (part * part).sum(2, dtype=torch.float64).T
    counts = valid[0] @ valid[1].T
    share = torch.einsum("pld,dlm->plm", squares[0], sums) + torch.einsum("pmd,dlm->plm", squares[1], sums)
    return numpy(sums.sum(0) / counts), numpy((cross - share / 2) / counts)


def _standardisers(layers: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(L, d) means and 1 / (norm of the centred dimension), 0 for constant dimensions."""
    # Allocated before the loop, as in grids._moments.
    means = layers[0].new_empty(len(layers), layers[0].shape[1])
    scales = torch.empty_like(means)
    for layer, mean, scale in zip(layers, means, scales, strict=True):
        mean.copy_(arrays.column_means(layer))
        centred = layer - mean
        norm = torch.sqrt(arrays.column_sums(centred * centred))
        scale.copy_(torch.where(constant_columns(centred, layer), 0.0, 1 / norm.clamp_min(1e-300)))
    return means, scales


def correlation(pair: Pair) -> Rows:
    """Dimension-wise correlation; detail `correlation_histogram` (r of every dimension, last layer)."""
    rows = Rows()
    if pair.detail == "full":
        value, influence = correlation_grid_by_part(*pair.stacks(), pair.parts)
        rows.add_grid("correlation", "reference", value, influence, pair.scale("correlation", "reference"))
    groups = torch.from_numpy(pair.groups).to(pair.device)
    values, influences = np.empty(len(pair.picked)), np.empty((len(pair.picked), pair.texts))
    for i, layer in enumerate(pair.picked):
        x, y = pair.layer(layer)
        r, influences[i] = correlation_influence(x, y, groups, pair.texts)
        values[i] = np.nanmean(r)
    ends = pair.interval("correlation", "reference", values, influences)
    rows.add("correlation", "reference", pair.picked, values, ends, influence=influences)
    rows.details["correlation_histogram"] = pd.DataFrame({"dimension": range(len(r)), "r": r})
    return rows


def correlation_influence(x: Tensor, y: Tensor, groups: Tensor, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Pearson r (d,) and the jackknife influence (texts,) of each text on its mean over dimensions."""
    r = dimension_correlation(x, y)
    xc, yc = center(unit_scale(x)), center(unit_scale(y))
    ones = torch.ones(len(x), dtype=torch.float64, device=x.device)
    count = len(x) - group_sums(ones, groups, texts)[:, None]

    def without(v: Tensor) -> Tensor:
        """Mean over rows when one text is left out: (texts, d)."""
        sums = group_sums(v, groups, texts)
        return (sums.sum(0) - sums) / count

    mx, my = without(xc), without(yc)
    cov = without(xc * yc) - mx * my
    var = (without(xc * xc) - mx * mx) * (without(yc * yc) - my * my)
    left_out = cov / torch.sqrt(var.clamp_min(1e-300))
    left_out = left_out[:, torch.from_numpy(np.isfinite(r)).to(x.device)].mean(1)
    return r, numpy(left_out.mean() - left_out)
