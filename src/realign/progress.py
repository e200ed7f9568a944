"""Progress with an estimate, the same in a terminal, a log and a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def _options() -> dict[str, Any]:
    # A log that is not a terminal gets a line every 10 s instead of a rewritten one every 0.1 s, and none
    # of what takes less; only the outermost bar stays when it is done.
    seconds = 0.2 if sys.stderr.isatty() else 10
    return {
        "file": sys.stderr,
        "mininterval": seconds,
        "delay": seconds,
        "leave": None,
        "dynamic_ncols": True,
    }


def track(iterable: Iterable[T], total: int | None = None, desc: str = "", unit: str = "it") -> Iterator[T]:
    """Yield from ``iterable`` while showing rate and remaining time on stderr."""
    yield from tqdm(iterable, total=total, desc=desc, unit=unit, **_options())


def bar(total: float | None, desc: str = "", unit: str = "it", initial: int = 0) -> tqdm:
    """Return a bar to be advanced by hand (a context manager), at ``initial`` when work is resumed."""
    return tqdm(total=total, desc=desc, unit=unit, initial=initial, **_options())
