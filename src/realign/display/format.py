"""How numbers, names and frames are written on a page."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from realign.findings.similarity import Pair

EMPTY = "–"


@dataclass(frozen=True)
class Text:
    """A Markdown text that notebooks render and scripts print."""

    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """A frame as a page shows it: no row numbers, dashes for what is missing."""

    frame: pd.DataFrame

    def __str__(self) -> str:
        return self.frame.to_string(index=False, na_rep=EMPTY)

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False, border=0, na_rep=EMPTY, classes="table", justify="left")


def show(frame: pd.DataFrame) -> Table:
    """Show a frame on a page."""
    return Table(frame)


def number(value: float, digits: int = 2) -> str:
    """Write a number with fixed digits; NaN and None become a dash."""
    return EMPTY if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float, sd: float, digits: int = 2) -> str:
    """Write a difference with its sign, and its standard deviation where there is one."""
    if not math.isfinite(value):
        return EMPTY
    return f"{value:+.{digits}f}" + (f" ± {sd:.{digits}f}" if math.isfinite(sd) else "")


def between(value: float, low: float, high: float, digits: int = 3) -> str:
    """Write a value with its interval, where there is one."""
    if not math.isfinite(value):
        return EMPTY
    known = math.isfinite(low) and math.isfinite(high)
    return number(value, digits) + (f" [{low:.{digits}f}, {high:.{digits}f}]" if known else "")


def percent(value: float, low: float, high: float) -> str:
    """Write a fraction as a percentage with its interval."""
    return between(100 * value, 100 * low, 100 * high, 1)


def p_value(p: float) -> str:
    """Write a p-value with three digits, or as below what they can show."""
    return "< 0.001" if p < 0.001 else number(p, 3)


def pair_name(pair: Pair) -> str:
    """Write a pair of roles."""
    return f"{pair[0]} – {pair[1]}"


def ceiling_name(name: str) -> str:
    """Write a noise ceiling's name."""
    return f"noise ceiling ({name})"


def intervals(frame: pd.DataFrame, digits: int = 3, value: str = "value") -> list[str]:
    """Write the columns value, low and high of a frame as one text a row."""
    rows = frame[[value, "low", "high"]].to_numpy(dtype=float)
    return [between(middle, low, high, digits) for middle, low, high in rows]
