"""Checks and conversions shared by every metric: what fits becomes a torch tensor, the rest a ValueError.

A matrix of states is always ``(n rows, d dimensions)``, a stack ``(L layers, n, d)``; rows of two models
at the same index belong to the same token (or text). Half precision is read as float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = np.ndarray | Tensor
Stack: TypeAlias = Array | Sequence[Array]
"""A model's layers: one array (L, n, d), or L matrices (n, d_l)."""


def as_matrix(values: Array, name: str, *, rows: int = 2) -> Tensor:
    """Return ``values`` as a finite float32 or float64 tensor (n, d) on its own device.

    Raises ValueError for other shapes, fewer than ``rows`` rows, integers, NaN and infinities (the usual
    trace of float16 overflow), naming the first bad place.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have shape (rows, dimensions), got {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} has dtype {tensor.dtype}; convert it to float32 or float64 first")
    if tensor.shape[0] < rows or tensor.shape[1] < 1:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; at least {rows} rows and 1 column needed")
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    tensor = tensor.detach().float() if half else tensor.detach()
    # A sum is finite only if all terms are, and is cheaper to look at than a mask of all values.
    if not torch.isfinite(tensor.abs().amax(dim=1)).all():
        row, column = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
        kind = "NaN" if torch.isnan(tensor[row, column]) else "an infinity"
        hint = "; it was half precision and may have overflowed, extract in float32" if half else ""
        raise ValueError(f"{name} holds {kind} at row {row}, dimension {column}{hint}")
    return tensor


def as_pair(x: Array, y: Array, *, rows: int = 2, same_width: bool = False) -> tuple[Tensor, Tensor]:
    """Return two matrices with the same rows, in their common dtype and on the first one's device."""
    left, right = as_matrix(x, "X", rows=rows), as_matrix(y, "Y", rows=rows)
    if left.shape[0] != right.shape[0]:
        raise ValueError(f"X has {left.shape[0]} rows and Y {right.shape[0]}; rows must be the same tokens")
    if same_width and left.shape[1] != right.shape[1]:
        raise ValueError(
            f"X has {left.shape[1]} dimensions and Y {right.shape[1]}; this metric needs the same axes"
        )
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype), right.to(left.device, dtype)


def as_layers(stack: Stack, name: str, *, rows: int = 2) -> list[Tensor]:
    """Return a stack (L, n, d), or a sequence of (n, d_l) matrices with equal n, as a list of matrices."""
    if isinstance(stack, np.ndarray | Tensor) and stack.ndim != 3:
        raise ValueError(f"{name} must have shape (layers, rows, dimensions), got {tuple(stack.shape)}")
    layers = [as_matrix(layer, f"{name}[{i}]", rows=rows) for i, layer in enumerate(stack)]
    if not layers:
        raise ValueError(f"{name} has no layers")
    for i, layer in enumerate(layers):
        if layer.shape[0] != layers[0].shape[0]:
            raise ValueError(f"{name}[{i}] has {layer.shape[0]} rows and {name}[0] {layers[0].shape[0]}")
    return layers


def as_groups(groups: Sequence[object] | Array | None, n: int) -> np.ndarray:
    """Return group numbers 0..G-1 of ``n`` rows in order of first appearance; None: each row its own."""
    if groups is None:
        return np.arange(n)
    values = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if values.shape != (n,):
        raise ValueError(f"groups has shape {values.shape}; one entry for each of the {n} rows is needed")
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]


def column_sums(x: Tensor) -> Tensor:
    """Sum of each column, accumulated in float64, a few rows at a time: torch would copy all of them."""
    return torch.stack([part.sum(0, dtype=torch.float64) for part in x.split(1024)]).sum(0)


def column_means(x: Tensor) -> Tensor:
    """Mean of each column in the dtype of ``x``, accumulated in float64."""
    return (column_sums(x) / len(x)).to(x.dtype)


def center(x: Tensor) -> Tensor:
    """Return ``x`` minus its column means, the means accumulated in float64."""
    return x - column_means(x)


def row_squares(x: Tensor) -> Tensor:
    """Squared norm of each row, float64."""
    return torch.cat([(part * part).sum(1, dtype=torch.float64) for part in x.split(1024)])


def constant_columns(centred: Tensor, raw: Tensor) -> Tensor:
    """Mark dimensions whose spread is no more than rounding error of their size."""
    eps = 4 * torch.finfo(raw.dtype).eps if raw.dtype != torch.float64 else 1e-14
    return centred.abs().amax(0) <= eps * raw.abs().amax(0).double()


def group_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sum rows of ``values`` (n, ...) by group number: (count, ...) float64."""
    out = torch.zeros((count, *values.shape[1:]), dtype=torch.float64, device=values.device)
    return out.index_add_(0, groups, values.double())


def by_part(parts: NDArray[np.int64] | None, n: int, device: torch.device) -> tuple[Tensor, list[slice]]:
    """An order of the rows that puts parts together, and where each part then lies."""
    if parts is None:
        return torch.arange(n, device=device), [slice(0, n)]
    ends = np.cumsum(np.bincount(parts)).tolist()
    order = torch.from_numpy(np.argsort(parts, kind="stable")).to(device)
    return order, [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def blocks(rows: slice, size: int) -> Iterator[slice]:
    """Cut a slice into slices of at most ``size``."""
    for start in range(rows.start, rows.stop, size):
        yield slice(start, min(start + size, rows.stop))


def numpy(x: Tensor) -> np.ndarray:
    """Return a tensor as a numpy array on the CPU."""
    return x.detach().cpu().numpy()


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32 off while metrics are computed (it costs three digits)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
