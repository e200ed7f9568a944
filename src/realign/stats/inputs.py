"""Checks of arguments, shared by the public functions."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

Floats = NDArray[np.float64]


def real_array(values: ArrayLike, dimensions: str, *, missing: bool = False, name: str = "values") -> Floats:
    """Return an array-like of real numbers as float64.

    Args:
        values: list, array, pandas Series or frame.
        dimensions: what its dimensions are called, for example "tasks, seeds"; decides their number.
        missing: allow NaN.
        name: of the argument.

    Raises:
        TypeError: the values are not real numbers.
        ValueError: another number of dimensions, no value, or one that is not finite.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise ValueError(f"{name} has masked entries: leave them out")
    if issparse(values) or getattr(values, "is_sparse", False):
        raise TypeError(
            f"{name} must be real numbers in a dense array, got a sparse one: make it dense first"
        )
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be real numbers in rows of equal length") from None
    if array.dtype.kind == "O" and array.ndim and all(_is_real(v) for v in array.flat):
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got {type(values).__name__} of {array.dtype}")
    if array.ndim != dimensions.count(",") + 1 or array.size == 0:
        raise ValueError(f"{name} must have shape ({dimensions}) with at least one value, got {array.shape}")
    array = array.astype(np.float64)
    bad = np.isinf(array) if missing else ~np.isfinite(array)
    if bad.any():
        of = "" if name == "values" else f" of {name}"
        raise ValueError(f"value {int(np.argmax(bad))}{of} is not finite")
    return array


def checked_number(value: float, name: str, *, finite: bool = True) -> float:
    """Return a real number."""
    if not _is_real(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if finite and not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def checked_choice(value: str, name: str, choices: Sequence[str]) -> None:
    """Refuse what is not one of the names that a setting can have."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}")


def checked_name(value: str, name: str) -> None:
    """Refuse what cannot be the name of an arm or column."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a name, got {type(value).__name__} {value!r}")


def checked_instance(value: object, name: str, kind: type) -> None:
    """Refuse what is not of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of class {kind.__name__}, got {type(value).__name__} {value!r}")


def checked_level(level: float) -> float:
    """Return a coverage, which lies between 0 and 1."""
    if not _is_real(level):
        raise TypeError(f"level must be a number, got {level!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return float(level)


def checked_margin(margin: float) -> float:
    """Return an equivalence margin, which is positive and finite."""
    if not _is_real(margin):
        raise TypeError(f"margin must be a number, got {margin!r}")
    if not 0 < margin < np.inf:
        raise ValueError(f"margin must be positive and finite, got {margin}")
    return float(margin)


def checked_count(count: int, name: str, least: int = 1) -> int:
    """Return a whole number that is at least ``least``."""
    if not isinstance(count, Integral) or isinstance(count, bool):
        raise TypeError(f"{name} must be a whole number, got {count!r}")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return int(count)


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def require_columns(scores: pd.DataFrame, columns: set[str]) -> None:
    """Refuse what is not a frame, lacks a column, or has scores that are not numbers."""
    if not isinstance(scores, pd.DataFrame):
        raise TypeError(f"scores must be a pandas DataFrame, got {type(scores).__name__}")
    missing = columns - set(scores.columns)
    if missing:
        raise ValueError(f"scores lacks the columns {sorted(missing)}")
    if len(scores):
        real_array(scores["score"], "rows", missing=True, name="scores")
