"""The one look of all figures, and the pieces that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realign.display.format import ceiling_name, pair_name

CARD, INK, GREY = "#fbfbf8", "#24292f", "#8a8f98"
ROLES = {"base": INK, "reason": "#0072B2", "sft": "#D55E00",
         "reason-seed1": "#2A9DC7", "reason-cot": "#BE6597", "random-reward": "#009E73"}  # fmt: skip
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLE: Any = {
    "figure.facecolor": CARD,
    "savefig.facecolor": CARD,
    "axes.facecolor": CARD,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "realign",
    "svg.fonttype": "path",
}
CEILING_LINES = ("--", "-.")
P = ParamSpec("P")


@contextmanager
def style() -> Iterator[None]:
    """Draw in the book's look inside this block."""
    with mpl.rc_context(STYLE):
        yield


def setup() -> None:
    """Make a notebook show figures as reproducible SVG in the book's look (does nothing elsewhere)."""
    mpl.rcParams.update(STYLE)
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None}, bbox_inches=None)


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw a figure in the book's look, whatever the caller's settings are."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style():
            return draw(*args, **kwargs)

    return drawn


def grid_of(rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure and its (rows, columns) axes; ``size`` is of one panel, in inches."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows))
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def colour(role: str) -> str:
    """Return the colour of a role, the same everywhere; unknown roles get one by their name."""
    return ROLES.get(role) or OTHERS[sum(map(ord, role)) % len(OTHERS)]


def layer_axis(axes: Axes, last: int, which: str = "x", label: str = "layer", narrow: bool = False) -> None:
    """Name the ends of a layer axis for what they are: token embeddings, and after the final norm."""
    step = 10 if narrow else 5
    inner = [t for t in range(step, last, step) if t <= last - 3]
    if last <= 6 and not narrow:
        inner = list(range(1, last))
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks([0, *inner, last], ["embed-\ndings", *map(str, inner), "final\nnorm"])
    axis.set_label_text(label)


def line(axes: Axes, frame: pd.DataFrame, x: str, colour: str, label: str, **kwargs: Any) -> None:
    """A line with its interval as a band of the same colour; layers of low rank are crosses beside it."""
    if "determined" in frame and not frame["determined"].all():
        open_ = frame[~frame["determined"].astype(bool)]
        axes.plot(
            open_[x], open_["value"], color=GREY, marker="x", ls="", ms=5, label="rotation not determined"
        )
        frame = frame[frame["determined"].astype(bool)]
    axes.plot(frame[x], frame["value"], color=colour, label=label, marker=".", ms=4, **kwargs)
    if {"low", "high"} <= set(frame) and frame["low"].notna().any():
        axes.fill_between(
            frame[x].to_numpy(float), frame["low"].to_numpy(float), frame["high"].to_numpy(float),
            color=colour, alpha=0.2, lw=0,
        )  # fmt: skip


def errorbar(axes: Axes, values: Sequence[pd.Series], place: int, pair: tuple[str, str]) -> None:
    """Join numbers (rows with value, low, high) of one pair at x = 0, 1, ..., a little apart by ``place``."""
    x = np.arange(len(values)) + 0.05 * place
    y = np.array([v["value"] for v in values])
    error = np.array([[v["value"] - v["low"], v["high"] - v["value"]] for v in values]).T
    axes.errorbar(x, y, np.clip(np.nan_to_num(error), 0, None), color=colour(pair[1]), marker="o",
                  capsize=2, label=pair_name(pair))  # fmt: skip


def least_span(axes: Axes, span: float = 0.02) -> None:
    """Widen a y axis that would blow differences of less than ``span`` up to the whole panel."""
    low, high = axes.get_ylim()
    if high - low < span:
        axes.set_ylim((low + high - span) / 2, (low + high + span) / 2)


def ceiling_bands(axes: Axes, frames: Mapping[str, pd.DataFrame]) -> None:
    """Draw noise ceilings by layer as grey bands (lines where they have no interval), by their names."""
    for (name, frame), look in zip(frames.items(), CEILING_LINES, strict=False):
        low = frame["low"].fillna(frame["value"]).to_numpy(float)
        high = frame["high"].fillna(frame["value"]).to_numpy(float)
        axes.fill_between(frame["layer"].to_numpy(float), low, high, color=GREY, alpha=0.3, lw=0)
        axes.plot(frame["layer"], frame["value"], color=GREY, lw=1, ls=look, label=ceiling_name(name))


def ceiling_steps(axes: Axes, place: int, values: Mapping[str, pd.Series]) -> None:
    """Draw noise ceilings (rows with value, low, high) around x = ``place``, by their names."""
    for (name, row), look in zip(values.items(), CEILING_LINES, strict=False):
        ends = [place - 0.25, place + 0.3]
        low, high = (row[c] if np.isfinite(row[c]) else row["value"] for c in ("low", "high"))
        axes.fill_between(ends, low, high, color=GREY, alpha=0.3, lw=0)
        axes.plot(ends, [row["value"]] * 2, color=GREY, lw=1, ls=look, label=ceiling_name(name))


def legend(figure: Figure) -> None:
    """One legend under the figure, every label once; none where there is nothing to tell apart."""
    once: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            once.setdefault(label, handle)
    if once:
        columns = min(len(once), 4)
        figure.legend(list(once.values()), list(once), loc="outside lower center", ncols=columns)


def empty(message: str) -> Figure:
    """Return a small figure that says why there is nothing to show."""
    figure = Figure(figsize=(6, 1))
    figure.text(0.5, 0.5, message, ha="center", va="center", color=GREY)
    return figure
