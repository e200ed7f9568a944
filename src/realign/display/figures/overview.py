"""All models on one map, and all metrics on known changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realign.display.figures.style import CARD, GREY, INK, ROLES, colour, grid_of, legend, styled
from realign.display.format import between, ceiling_name
from realign.findings.similarity import map_distance
from realign.hrsa import METRICS, Report


@styled
def models_map(places: pd.DataFrame, ceilings: Mapping[str, Report] | None = None) -> Figure:
    """All models on a plane: the closer, the higher their debiased CKA (mean angle over six layers).

    Circles are backbones joined along tuning, squares embedding models; bars are 95% intervals over texts. On the
    right the backbones alone, enlarged, with their steps of tuning.
    Small triangles are models kept during contrastive learning: the dashed way from a role's final backbone
    to its embedding model of the first seed. Grey scale bars below are as long as the distance of each noise
    ceiling, their ends 95% intervals.

    Args:
        places: the frame of ``study.map.frame()``.
        ceilings: noise ceilings of backbones and of embedding models, by name: reports.
    """
    figure, grid = grid_of(1, 2, (4.0, 4.2))
    axes, near = grid[0]
    backbones = places[places["kind"] == "backbone"]
    embeddings = places[places["kind"] == "embedding"]
    _kept_in_training(axes, places)
    for side in (axes, near):
        _backbones(side, backbones)
        side.set_aspect("equal", adjustable="datalim")
        side.set_xlabel("first axis (radians)")
    for role, mine in embeddings.groupby("role", sort=False):
        _places(axes, mine, "s", f"{role}-Emb")
    _notes(near, backbones[backbones["role"] != "base"], "")
    _notes(axes, embeddings[embeddings["role"] == "base"], "seed ")
    _scale_bars(axes, places, ceilings or {})
    axes.set_ylabel("second axis (radians)")
    near.set_title("the backbones alone")
    explained = places.attrs.get("explained", np.nan)
    if np.isfinite(explained):
        axes.set_title(f"the plane shows {100 * explained:.0f}% of the squared distances")
    legend(figure)
    return figure


def _kept_in_training(axes: Axes, places: pd.DataFrame) -> None:
    """Models kept on the way of contrastive learning, joined from the final backbone to the first seed's model."""
    for role, mine in places[places["kind"] == "kept"].groupby("role", sort=False):
        ends = [places[(places["role"] == role) & (places["kind"] == k)] for k in ("backbone", "embedding")]
        path = pd.concat([ends[0].tail(1), mine.sort_values("number"), ends[1].head(1)])
        axes.plot(path["x"], path["y"], color=colour(str(role)), lw=1, ls="--", alpha=0.6)
        axes.plot(mine["x"], mine["y"], color=colour(str(role)), ls="", marker="^", ms=4)
        _notes(axes, mine, "CL ", (3, -8))


def _notes(axes: Axes, places: pd.DataFrame, before: str, offset: tuple[int, int] = (4, 4)) -> None:
    """Write the number of each model (step or seed) beside its place."""
    for place in places.itertuples():
        axes.annotate(
            f"{before}{place.number}", (place.x, place.y), offset, textcoords="offset points", fontsize=7
        )


def _scale_bars(axes: Axes, places: pd.DataFrame, ceilings: Mapping[str, Report]) -> None:
    """A bar below the map as long as the distance of each noise ceiling, with its interval."""
    left, low = places["x"].min(), (places["y"] - 1.96 * places["y_error"]).min()
    step = 0.09 * np.ptp(places["y"])
    for i, (name, report) in enumerate(ceilings.items(), start=1):
        far = map_distance(report)
        error = [[far["value"] - far["low"]], [far["high"] - far["value"]]]
        y = low - i * step
        axes.plot([left, left + far["value"]], [y, y], color=GREY, lw=3, solid_capstyle="butt")
        axes.errorbar(left + far["value"], y, xerr=error, color=GREY, lw=1, capsize=3)
        text = f"{ceiling_name(name)}: {between(far['value'], far['low'], far['high'])}"
        axes.annotate(text, (left, y), (0, 4), textcoords="offset points", fontsize=7)


def _backbones(axes: Axes, places: pd.DataFrame) -> None:
    """Backbones, each sibling joined to the base along its tuning."""
    base = places[places["role"] == "base"]
    for role, mine in places.groupby("role", sort=False):
        _places(axes, mine, "o", str(role))
        path = pd.concat([base, mine.sort_values("number")])
        axes.plot(path["x"], path["y"], color=colour(str(role)), lw=1, alpha=0.6)


def _places(axes: Axes, mine: pd.DataFrame, mark: str, name: str) -> None:
    """Models of one role with their 95% intervals."""
    axes.errorbar(
        mine["x"], mine["y"], xerr=1.96 * mine["x_error"], yerr=1.96 * mine["y_error"], ls="", marker=mark,
        ms=6, label=name, color=colour(str(mine["role"].iloc[0])), mec=INK, mew=0.5, elinewidth=0.8,
    )  # fmt: skip


@styled
def metrics_seen(frame: pd.DataFrame) -> Figure:
    """What each metric says of a known change: reference estimator filled, paper estimator open.

    Args:
        frame: of :func:`realign.hrsa.demonstration.demonstration`: change, metric, estimator, value, low, high.
    """
    changes = list(dict.fromkeys(frame["change"]))
    metrics = list(dict.fromkeys(frame["metric"]))
    figure, grid = grid_of(2, -(-len(metrics) // 2), (2.75, 2.5), sharey=True)
    looks = {"reference": (-0.13, "o", ROLES["reason"]), "paper": (0.13, "s", ROLES["sft"])}
    for axes, metric in zip(grid.flat, metrics, strict=False):
        for estimator, (offset, mark, shade) in looks.items():
            mine = frame[(frame["metric"] == metric) & (frame["estimator"] == estimator)]
            y = [changes.index(change) + offset for change in mine["change"]]
            low, high = mine["value"] - mine["low"], mine["high"] - mine["value"]
            axes.errorbar(
                mine["value"], y, xerr=np.clip(np.nan_to_num([low, high]), 0, None), ls="", marker=mark, ms=5,
                color=shade, mfc=shade if estimator == "reference" else CARD, label=estimator,
            )  # fmt: skip
        axes.axvline(0, color=GREY, lw=0.8)
        axes.axvline(1, color=GREY, lw=0.8)
        axes.set_xlim(min(-0.15, axes.get_xlim()[0]), 1.1)
        axes.set_yticks(range(len(changes)), changes)
        axes.set_ylim(len(changes) - 0.4, -0.6)
        axes.set_title(METRICS[metric].title)
    legend(figure)
    return figure
