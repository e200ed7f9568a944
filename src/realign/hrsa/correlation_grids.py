"""Every layer of one model with every layer of another: dimension-wise correlation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa.arrays import (
    Stack,
    as_layers,
    blocks,
    by_part,
    column_means,
    column_sums,
    constant_columns,
    full_precision,
    numpy,
)


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
    left, right = as_layers(xs, "xs"), as_layers(ys, "ys")
    n, width = left[0].shape
    if right[0].shape[0] != n or any(layer.shape[1] != width for layer in [*left, *right]):
        raise ValueError("all layers of both models need the same rows and dimensions")
    device = left[0].device
    order, bounds = by_part(parts, n, device)
    moments = [_standardisers(side) for side in (left, right)]
    valid = [(scales > 0).double() for _, scales in moments]
    sums = torch.zeros(width, len(left), len(right), dtype=torch.float64, device=device)
    cross = torch.zeros(len(bounds), len(left), len(right), dtype=torch.float64, device=device)
    squares = [
        torch.zeros(len(bounds), len(s), width, dtype=torch.float64, device=device) for s in (left, right)
    ]
    with full_precision():
        for p, whole in enumerate(bounds):
            for span in blocks(whole, block):
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
        mean.copy_(column_means(layer))
        centred = layer - mean
        norm = torch.sqrt(column_sums(centred * centred))
        scale.copy_(torch.where(constant_columns(centred, layer), 0.0, 1 / norm.clamp_min(1e-300)))
    return means, scales
