"""Checks of settings at the door of a public function: what fits comes back as plain Python.

The rest is a ValueError whose sentence names the argument. numpy scalars count as the Python numbers that they are.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import TypeVar

import numpy as np

Kind = TypeVar("Kind")


def whole_number(value: object, name: str, least: int = 1) -> int:
    """Return a whole number that is at least ``least``."""
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise ValueError(f"{name} must be a whole number, got {_shown(value)}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def whole_numbers(values: object, name: str, least: int = 1) -> tuple[int, ...]:
    """Return one whole number, or several, as a tuple."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
        return (whole_number(values, name, least),)
    numbers = tuple(whole_number(value, name, least) for value in values)
    if not numbers:
        raise ValueError(f"{name} is empty; give at least one number")
    return numbers


def number(value: object, name: str, lowest: float = -np.inf, highest: float = np.inf) -> float:
    """Return a finite number strictly between two bounds."""
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a number, got {_shown(value)}")
    if not np.isfinite(float(value)) or not lowest < float(value) < highest:
        bounds = "be finite" if lowest == -np.inf else f"lie between {lowest:g} and {highest:g}"
        raise ValueError(f"{name} must {bounds}, got {value}")
    return float(value)


def positive_numbers(values: object, name: str) -> tuple[float, ...]:
    """Return a sequence of positive, finite numbers."""
    numbers: tuple[object, ...] = ()
    if (
        isinstance(values, Iterable)
        and not isinstance(values, str | bytes)
        and getattr(values, "ndim", 1) == 1
    ):
        numbers = tuple(values)
    real = [float(v) for v in numbers if isinstance(v, Real) and not isinstance(v, bool | np.bool_)]
    if not real or len(real) < len(numbers) or not all(0 < v < np.inf for v in real):
        raise ValueError(f"{name} must be a list of positive numbers, got {_shown(values)}")
    return tuple(real)


def flag(value: object, name: str) -> bool:
    """Return True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {_shown(value)}")
    return bool(value)


def one_of(value: object, name: str, choices: Iterable[str]) -> str:
    """Return one of the names that a setting can have."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        shown = f"'{value}' is unknown" if isinstance(value, str) else f"cannot be {_shown(value)}"
        raise ValueError(f"{name} {shown}; choose {', '.join(map(repr, known))}")
    return value


def instance(value: object, name: str, kind: type[Kind]) -> Kind:
    """Return an object of a class of hrsa."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of class {kind.__name__}, got {_shown(value)}")
    return value


def layer_numbers(layers: object, count: int, name: str = "layers") -> tuple[int, ...]:
    """Return numbers of layers, 0 to ``count`` - 1; negative ones count from the last."""
    numbers = whole_numbers(layers, name, least=-count)
    for number in numbers:
        if number >= count:
            raise ValueError(f"{name} holds {number}; there are layers 0 to {count - 1}")
    return tuple(number % count for number in numbers)


def text_list(texts: Iterable[str], name: str = "texts") -> list[str]:
    """Return texts, however they come (list, tuple, array, Series, generator), as a list of strings.

    Raises:
        ValueError: there are none, or one is empty, no string, or not valid Unicode.
    """
    if (
        isinstance(texts, str | bytes | dict)
        or not isinstance(texts, Iterable)
        or getattr(texts, "ndim", 1) != 1
    ):
        raise ValueError(f"{name} must be a list of strings, got {_shown(texts)}")
    listed: Sequence[object] = list(texts)
    if not listed:
        raise ValueError(f"no texts given; {name} is empty")
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            raise ValueError(f"text {i} is {_shown(text)}; {name} must be strings")
        if not text.strip():
            raise ValueError(f"text {i} is empty; remove it before comparing models")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"text {i} holds half of a surrogate pair, which is no character") from None
    return [str(text) for text in listed]


def _shown(value: object) -> str:
    """Name a value in a message, a large one by its class."""
    if value is None or isinstance(value, Real | str | bytes):
        shown = repr(value)
        return shown if len(shown) <= 60 else f"{shown[:57]}..."
    return f"{type(value).__name__} {shown}" if len(shown := repr(value)) <= 40 else type(value).__name__
