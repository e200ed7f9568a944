"""Checks and conversions shared by every metric: what fits becomes a torch tensor, the rest a ValueError.

A matrix of states is always ``(n rows, d dimensions)``, a stack ``(L layers, n, d)``; rows of two models
at the same index belong to the same token (or text). Half precision is read as float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from torch import Tensor

Array: TypeAlias = np.ndarray | Tensor
Stack: TypeAlias = Array | Sequence[Array]
"""A model's layers: one array (L, n, d), or L matrices (n, d_l)."""


LARGEST = 1e100
"""Values up to this, and down to its inverse, can be squared twice in float64."""

NEAR_UNIT = 20
"""Matrices whose largest value lies between 2^-20 and 2^20 are left as they are: float32 has room for fourth powers."""


def plain(values: object, name: str) -> np.ndarray:
    """Return an array-like (array, list, tensor, pandas frame or Series) as a numpy array.

    Raises ValueError for what would lose its meaning on the way: masked and sparse arrays, rows of unequal length.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array; fill in its masked entries or leave their rows out")
    if issparse(values) or (isinstance(values, Tensor) and values.layout != torch.strided):
        raise ValueError(f"{name} is sparse; make it dense first")
    if isinstance(values, Tensor):
        return numpy(values)
    nullable = isinstance(values, pd.DataFrame) and all(map(pd.api.types.is_float_dtype, values.dtypes))
    if isinstance(values, pd.DataFrame) and nullable and np.asarray(values).dtype == object:
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        return np.asarray(values)
    except (ValueError, TypeError):
        raise ValueError(f"{name} is no array: its rows differ in length, or hold no numbers") from None


def as_matrix(values: Array, name: str, *, rows: int = 2) -> Tensor:
    """Return ``values`` as a finite float32 or float64 tensor (n, d) on its own device.

    Raises ValueError for other shapes, fewer than ``rows`` rows, integers, objects, NaN and infinities (the usual
    trace of float16 overflow), naming the first bad place.
    """
    tensor = _as_tensor(values, name)
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have shape (rows, dimensions), got {tuple(tensor.shape)}")
    if tensor.shape[0] < rows or tensor.shape[1] < 1:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; at least {rows} rows and 1 column needed")
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    tensor = tensor.detach().float() if half else tensor.detach()
    size = largest(tensor)
    if not np.isfinite(size):
        row, column = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
        kind = "NaN" if torch.isnan(tensor[row, column]) else "an infinity"
        hint = "; it was half precision and may have overflowed, extract in float32" if half else ""
        raise ValueError(f"{name} holds {kind} at row {row}, dimension {column}{hint}")
    if size and not 1 / LARGEST <= size <= LARGEST:
        raise ValueError(
            f"{name} has values up to {size:.0e}; bring it between {1 / LARGEST:.0e} and {LARGEST:.0e}"
        )
    return tensor


def _as_tensor(values: Array, name: str) -> Tensor:
    """Return an array-like of floating point numbers as a tensor, without a copy where that is possible."""
    if isinstance(values, Tensor) and values.layout == torch.strided:
        if not values.is_floating_point():
            raise ValueError(f"{name} has dtype {values.dtype}; convert it to float32 or float64 first")
        return values
    array = plain(values, name)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ValueError(f"{name} has dtype {array.dtype}; convert it to float32 or float64 first")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    # torch warns of arrays that are not writeable, as those of a file opened read-only; these are copied.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def largest(x: Tensor) -> float:
    """Largest absolute value of a matrix; NaN where it holds NaN."""
    low, high = torch.stack(torch.aminmax(x)).tolist()
    return float(np.maximum(-low, high))


def unit_exponent(*matrices: Tensor) -> int:
    """Power of two that brings matrices together to a largest value of about 1; 0 for those that are near to it."""
    size = max(map(largest, matrices))
    exponent = int(np.frexp(size)[1]) if size else 0
    return 0 if abs(exponent) <= NEAR_UNIT else -exponent


def times_power(x: Tensor, exponent: int) -> Tensor:
    """Return ``x`` times 2^exponent, which is exact; itself where the exponent is 0."""
    if exponent == 0:
        return x
    half = exponent // 2  # in two steps: one factor alone may lie outside of float32
    return x * 2.0**half * 2.0 ** (exponent - half)


def unit_scale(x: Tensor) -> Tensor:
    """Return a matrix at about unit scale, for numbers that do not depend on it.

    Multiplied by a power of two, so that their digits are those of the matrix as it was, without overflow.
    """
    return times_power(x, unit_exponent(x))


def as_pair(
    x: Array, y: Array, *, rows: int = 2, same_width: bool = False, unit: bool = False
) -> tuple[Tensor, Tensor]:
    """Return two matrices with the same rows, in their common dtype and on the first one's device.

    With ``unit`` each is brought to :func:`unit_scale`.
    """
    left, right = as_matrix(x, "X", rows=rows), as_matrix(y, "Y", rows=rows)
    if left.shape[0] != right.shape[0]:
        raise ValueError(f"X has {left.shape[0]} rows and Y {right.shape[0]}; rows must be the same tokens")
    if same_width and left.shape[1] != right.shape[1]:
        raise ValueError(
            f"X has {left.shape[1]} dimensions and Y {right.shape[1]}; this metric needs the same axes"
        )
    dtype = torch.promote_types(left.dtype, right.dtype)
    left, right = left.to(dtype), right.to(left.device, dtype)
    return (unit_scale(left), unit_scale(right)) if unit else (left, right)


def as_layers(stack: Stack, name: str, *, rows: int = 2) -> list[Tensor]:
    """Return a stack (L, n, d), or a sequence of (n, d_l) matrices with equal n, as matrices at unit scale."""
    if isinstance(stack, np.ma.MaskedArray) or getattr(stack, "ndim", 3) != 3:
        shape = getattr(stack, "shape", ())
        raise ValueError(
            f"{name} must be a plain array of shape (layers, rows, dimensions), got {tuple(shape)}"
        )
    if isinstance(stack, str | bytes | Mapping) or not isinstance(stack, Iterable):
        raise ValueError(f"{name} must be a list of matrices (rows, dimensions), got {type(stack).__name__}")
    layers = [unit_scale(as_matrix(layer, f"{name}[{i}]", rows=rows)) for i, layer in enumerate(stack)]
    if not layers:
        raise ValueError(f"{name} has no layers")
    for i, layer in enumerate(layers):
        if layer.shape[0] != layers[0].shape[0]:
            raise ValueError(f"{name}[{i}] has {layer.shape[0]} rows and {name}[0] {layers[0].shape[0]}")
    dtype = reduce(torch.promote_types, (layer.dtype for layer in layers))
    return [layer.to(layers[0].device, dtype) for layer in layers]


def as_groups(groups: Sequence[object] | Array | None, n: int) -> np.ndarray:
    """Return group numbers 0..G-1 of ``n`` rows in order of first appearance; None: each row its own."""
    if groups is None:
        return np.arange(n)
    values = plain(groups, "groups")
    if values.shape != (n,):
        raise ValueError(f"groups has shape {values.shape}; one entry for each of the {n} rows is needed")
    try:
        numbers = pd.factorize(values)[0].astype(np.int64)
    except TypeError:
        raise ValueError("groups must be numbers or names, got objects that cannot be told apart") from None
    if (numbers < 0).any():
        raise ValueError(
            f"the group of row {int(np.argmin(numbers))} is missing; groups needs one for each row"
        )
    return numbers


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
