"""What else decides a comparison (attention mode, language, the metric itself), and all models on one map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realign.display import tables
from realign.display.figures.similarity import joined_means
from realign.display.figures.style import (
    CARD,
    GREY,
    INK,
    ROLES,
    Ceilings,
    Reports,
    ceiling_bands,
    ceiling_name,
    colour,
    grid_of,
    layer_axis,
    legend,
    line,
    styled,
)
from realign.display.format import between
from realign.display.metrics import middle_k
from realign.hrsa import demonstration

ALIGNMENT = {"cka": "debiased CKA", "knn": "k-NN overlap", "correlation": "dimension-wise r"}


@styled
def attention_modes(
    modes: Mapping[str, Reports], *, ceilings: Ceilings | None = None, k: int | None = None
) -> Figure:
    """Each similarity, mean over layers, when both models read bidirectionally and when both read causally.

    Args:
        modes: of ``study.attention_modes()``.
        ceilings: noise ceilings by mode.
        k: neighbours for k-NN overlap; None takes the middle one.
    """
    return joined_means(modes, ceilings or {}, "mean over six layers", k)


@styled
def languages(alignment: pd.DataFrame, ceilings: Mapping[str, Any] | None = None) -> Figure:
    """English against other languages within each model, by layer: 0 is what unrelated texts give.

    Args:
        alignment: the frame of ``study.alignment()``; a row a metric, a column a language.
        ceilings: noise ceilings of the backbones, by name: the same language, read twice.
    """
    spoken = list(dict.fromkeys(alignment["language"]))
    figure, grid = grid_of(len(ALIGNMENT), len(spoken), (7.8 / len(spoken), 2.1), sharey="row")
    for i, (metric, title) in enumerate(ALIGNMENT.items()):
        name = middle_k(alignment["metric"]) if metric == "knn" else metric
        k = int(name.partition("@")[2] or 0) or None
        limits = {n: tables.profile(r, metric, k=k) for n, r in (ceilings or {}).items()}
        for axes, language in zip(grid[i], spoken, strict=True):
            mine = alignment[(alignment["metric"] == name) & (alignment["language"] == language)]
            ceiling_bands(axes, limits)
            for model, frame in mine.groupby("model", sort=False):
                role, _, trained = str(model).partition("-")
                line(axes, frame, "layer", colour(role), str(model), ls="--" if trained else "-")
            axes.set_title(f"en – {language}")
            layer_axis(axes, int(mine["layer"].max()), narrow=True)
        grid[i, 0].set_ylabel(title + (f", k = {k}" if k else ""))
    legend(figure)
    return figure


@styled
def models_map(places: pd.DataFrame, ceilings: Mapping[str, Any] | None = None) -> Figure:
    """All models on a plane: the closer, the higher their debiased CKA (mean angle over six layers).

    Circles are backbones joined along tuning, squares embedding models; bars are 95% intervals over texts. On the
    right the backbones alone, enlarged, with their steps of tuning.
    Small triangles are models kept during contrastive learning: the dashed way from a role's final backbone
    to its embedding model of the first seed. Grey scale bars below are as long as the distance of each noise
    ceiling, their ends 95% intervals.

    Args:
        places: the frame of ``study.models_map()``.
        ceilings: noise ceilings of backbones and of embedding models, by name: reports.
    """
    figure, grid = grid_of(1, 2, (4.0, 4.2))
    axes = grid[0, 0]
    for role, mine in places[places["kind"] == "kept"].groupby("role", sort=False):
        ends = [places[(places["role"] == role) & (places["kind"] == k)] for k in ("backbone", "embedding")]
        path = pd.concat([ends[0].tail(1), mine.sort_values("number"), ends[1].head(1)])
        axes.plot(path["x"], path["y"], color=colour(str(role)), lw=1, ls="--", alpha=0.6)
        axes.plot(mine["x"], mine["y"], color=colour(str(role)), ls="", marker="^", ms=4)
        for place in mine.itertuples():
            axes.annotate(
                f"CL {place.number}", (place.x, place.y), (3, -8), textcoords="offset points", fontsize=7
            )
    for side in grid[0]:
        _backbones(side, places[places["kind"] == "backbone"])
    for place in places[(places["kind"] == "backbone") & (places["role"] != "base")].itertuples():
        grid[0, 1].annotate(
            f"{place.number}", (place.x, place.y), (4, 4), textcoords="offset points", fontsize=7
        )
    for role, mine in places[places["kind"] == "embedding"].groupby("role", sort=False):
        _places(axes, mine, "s", f"{role}-Emb")
    for place in places[(places["kind"] == "embedding") & (places["role"] == "base")].itertuples():
        axes.annotate(
            f"seed {place.number}", (place.x, place.y), (4, 4), textcoords="offset points", fontsize=7
        )
    left, low = places["x"].min(), (places["y"] - 1.96 * places["y_error"]).min()
    step = 0.09 * np.ptp(places["y"])
    for i, (name, report) in enumerate((ceilings or {}).items(), start=1):
        far = tables.map_distance(report)
        error = [[far["value"] - far["low"]], [far["high"] - far["value"]]]
        y = low - i * step
        axes.plot([left, left + far["value"]], [y, y], color=GREY, lw=3, solid_capstyle="butt")
        axes.errorbar(left + far["value"], y, xerr=error, color=GREY, lw=1, capsize=3)
        text = f"{ceiling_name(name)}: {between(far['value'], far['low'], far['high'])}"
        axes.annotate(text, (left, y), (0, 4), textcoords="offset points", fontsize=7)
    for side in grid[0]:
        side.set_aspect("equal", adjustable="datalim")
        side.set_xlabel("first axis (radians)")
    axes.set_ylabel("second axis (radians)")
    grid[0, 1].set_title("the backbones alone")
    explained = places.attrs.get("explained", np.nan)
    if np.isfinite(explained):
        axes.set_title(f"the plane shows {100 * explained:.0f}% of the squared distances")
    legend(figure)
    return figure


def _backbones(axes: Axes, places: pd.DataFrame) -> None:
    """Backbones, each sibling joined to the base along its tuning."""
    base = places[places["role"] == "base"]
    for role, mine in places.groupby("role", sort=False):
        _places(axes, mine, "o", str(role))
        path = pd.concat([base, mine.sort_values("number")])
        axes.plot(path["x"], path["y"], color=colour(str(role)), lw=1, alpha=0.6)


def _places(axes: Axes, mine: pd.DataFrame, mark: str, name: str) -> None:
    """Models of one role with their 95% intervals."""
    look: dict[str, Any] = {
        "color": colour(str(mine["role"].iloc[0])),
        "mec": INK,
        "mew": 0.5,
        "elinewidth": 0.8,
    }
    errors = {"xerr": 1.96 * mine["x_error"], "yerr": 1.96 * mine["y_error"]}
    axes.errorbar(mine["x"], mine["y"], ls="", marker=mark, ms=6, label=name, **errors, **look)


@styled
def metrics_seen(frame: pd.DataFrame) -> Figure:
    """What each metric says of a known change: reference estimator filled, paper estimator open.

    Args:
        frame: of :func:`realign.hrsa.demonstration.demonstration`.
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
        axes.set_title(demonstration.METRICS[metric])
    legend(figure)
    return figure
