"""RQ4: updates of the weights, trajectories on the map of the base's states, drift by domain, recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realign.display import tables
from realign.display.figures.style import (
    GREY,
    Reports,
    ceiling_bands,
    colour,
    grid_of,
    layer_axis,
    least_span,
    legend,
    line,
    styled,
)
from realign.display.metrics import METRICS, headline, metric_title


def _quartiles(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Median over a layer's matrices as value, their middle half as low and high."""
    by_layer = frame.groupby("layer")[column]
    found = pd.DataFrame(
        {"value": by_layer.median(), "low": by_layer.quantile(0.25), "high": by_layer.quantile(0.75)}
    )
    return found.reset_index()


@styled
def weight_updates(updates: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """Layer profile of the updates: size, effective rank, share moved, and directions against chance.

    Args:
        updates: of :meth:`realign.study.Study.updates`.
        agreement: of :meth:`realign.study.Study.update_agreement`; shown for the first role and each other.
    """
    figure, grid = grid_of(2, 2, (4.0, 2.4))
    panels = (
        ("size", "update / weight (Frobenius norm)", 1.0),
        ("rank", "effective rank of the update", 1.0),
        ("moved", "entries that move in bfloat16 (%)", 100.0),
    )
    for axes, (column, title, factor) in zip(grid.flat, panels, strict=False):
        for role, mine in updates.groupby("role", sort=False):
            shown = _quartiles(mine.assign(**{column: factor * mine[column]}), column)
            line(axes, shown, "layer", colour(str(role)), str(role))
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("layer")
    axes = grid[1, 1]
    for role, mine in updates.groupby("role", sort=False):
        ratio = mine.assign(x=mine["base_left"] / mine["base_left_chance"])
        line(axes, _quartiles(ratio, "x"), "layer", colour(str(role)), str(role))
    first = agreement[agreement["a"] == updates["role"].iloc[0]]
    for (a, b), mine in first.groupby(["a", "b"], sort=False):
        ratio = mine.assign(x=mine["left"] / mine["left_chance"])
        line(axes, _quartiles(ratio, "x"), "layer", colour(str(b)), f"{a} and {b}", ls="--")
    axes.axhline(1, color=GREY, lw=1, ls=":", label="chance")
    axes.set_title("overlap of output directions / chance")
    axes.set_xlabel("layer")
    axes.set_yscale("log")
    legend(figure)
    return figure


@styled
def trajectories(points: pd.DataFrame) -> Figure:
    """Where the tokens that each model wrote lie on the map of the base's states; a panel a kind of prompt.

    Args:
        points: of :meth:`realign.study.Study.landscape` ("points").
    """
    fixed = points[points["role"] == "fixed texts"]
    written = points[points["role"] != "fixed texts"]
    domains = list(dict.fromkeys(written["domain"]))
    figure, grid = grid_of(1, len(domains), (8.0 / len(domains), 3.6), sharex=True, sharey=True)
    for axes, domain in zip(grid[0], domains, strict=True):
        axes.scatter(fixed["x"], fixed["y"], s=5, color=GREY, alpha=0.35, lw=0, label="fixed texts")
        for role, mine in written[written["domain"] == domain].groupby("role", sort=False):
            shade = colour(str(role))
            axes.scatter(mine["x"], mine["y"], s=6, color=shade, alpha=0.35, lw=0)
            centre = mine[["x", "y"]].mean()
            spread = np.sqrt(mine[["x", "y"]].var(ddof=0))
            axes.errorbar(*centre, xerr=spread["x"], yerr=spread["y"], color=shade, marker="o", ms=6,
                          mec="white", capsize=2, label=str(role))  # fmt: skip
        axes.set_title(f"continuing {'problems' if domain == 'task' else domain}")
        axes.set_xlabel("first axis of the base's states")
    grid[0, 0].set_ylabel("second axis")
    legend(figure)
    return figure


@styled
def landscape_measures(measures: pd.DataFrame) -> Figure:
    """Landscape and trajectories in numbers, with the base against itself as the mark of no change.

    Args:
        measures: of :meth:`realign.study.Study.landscape` ("measures").
    """
    names = list(dict.fromkeys(measures["measure"]))
    domains = list(dict.fromkeys(measures["domain"]))
    columns = 4
    figure, grid = grid_of(-(-len(names) // columns), columns, (2.0, 1.9))
    for axes, name in zip(grid.flat, names, strict=False):
        mine = measures[measures["measure"] == name]
        _dots(axes, mine, domains)
        for i, domain in enumerate(domains):
            null = mine.loc[mine["domain"] == domain, "null"].mean()
            if np.isfinite(null):
                axes.plot([null, null], [i - 0.4, i + 0.4], color=GREY, lw=2, label="base against itself")
        axes.set_title(name.replace(" (", "\n(").replace(" top-1", "\ntop-1"), fontsize=8.5)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_axis_off()
    legend(figure)
    return figure


@styled
def drift_by_domain(domains: pd.DataFrame) -> Figure:
    """Similarity to base on the task that was trained, on other problems and on other text.

    Args:
        domains: of :meth:`realign.study.Study.domains`.
    """
    metrics = headline(domains)
    order = list(dict.fromkeys(domains["domain"]))
    figure, grid = grid_of(1, len(metrics), (8.0 / max(1, len(metrics)), 2.4), sharey=True)
    for axes, metric in zip(grid[0], metrics, strict=True):
        _dots(axes, domains[domains["metric"] == metric], order)
        axes.axvline(1, color=GREY, lw=1, ls=":")
        axes.set_title(metric_title(metric).replace(", ", "\n"), fontsize=8.5)
        axes.set_xlabel("similarity to base")
    legend(figure)
    return figure


def _dots(axes: Axes, frame: pd.DataFrame, order: list[str]) -> None:
    """A dot with its interval a role, a line a domain."""
    roles = list(dict.fromkeys(frame["role"]))
    for j, role in enumerate(roles):
        mine = frame[frame["role"] == role].set_index("domain").reindex(order)
        y = np.arange(len(order)) + 0.18 * (j - (len(roles) - 1) / 2)
        error = np.abs(mine[["low", "high"]].sub(mine["value"], axis=0).to_numpy().T)
        axes.errorbar(mine["value"], y, xerr=np.nan_to_num(error), fmt="o", ms=4, capsize=2,
                      color=colour(str(role)), label=str(role))  # fmt: skip
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.5, -0.5)


@styled
def recovery(
    before: Reports, after: Reports, ceilings: Mapping[str, Any] | None = None, k: int | None = None
) -> Figure:
    """Does contrastive learning undo it? Basis, global and local similarity by layer, before and after.

    Args:
        before: reports of the backbones, by pair of roles.
        after: reports of the embedding models.
        ceilings: noise ceilings of the embedding models, by name.
        k: neighbours; None takes the middle one.
    """
    metrics = {"correlation": "basis", "cka": "global", "knn": "local"}
    figure, grid = grid_of(len(before), len(metrics), (2.7, 2.1), sharey="col")
    for i, (pair, report) in enumerate(before.items()):
        for axes, (metric, level) in zip(grid[i], metrics.items(), strict=True):
            limits = {name: tables.profile(r, metric, k=k) for name, r in (ceilings or {}).items()}
            ceiling_bands(axes, limits)
            shown = tables.profile(report, metric, k=k)
            line(axes, shown, "layer", colour(pair[1]), f"{tables.pair_name(pair)}, backbones", ls="--")
            if pair in after:
                trained = tables.profile(after[pair], metric, k=k)
                line(axes, trained, "layer", colour(pair[1]), f"{tables.pair_name(pair)}, after CL")
            _layers(axes, shown)
            if i == 0:
                axes.set_title(f"{level}: {METRICS[metric]}", fontsize=8.5)
    for axes in grid[:, 0]:
        axes.set_ylabel("similarity")
    legend(figure)
    return figure


@styled
def rotated_back(groups: Mapping[str, Reports]) -> Figure:
    """The counterfactual: agreement as it is, and after the held-out Procrustes rotation, by layer.

    Args:
        groups: reports by what they are; a column for each. Above R^2, below dimension-wise correlation.
    """
    rows = {
        "R² (held out)": ("unrotated_r2", "r2"),
        "correlation (r)": ("correlation", "rotated_correlation"),
    }
    figure, grid = grid_of(len(rows), len(groups), (8.0 / max(1, len(groups)), 2.2), sharey="row")
    for row, (name, (plain, turned)) in zip(grid, rows.items(), strict=True):
        for axes, (group, reports) in zip(row, groups.items(), strict=True):
            for pair, report in reports.items():
                as_it_is, back = (tables.profile(report, metric) for metric in (plain, turned))
                label = tables.pair_name(pair)
                line(axes, as_it_is, "layer", colour(pair[1]), f"{label}, as it is")
                line(axes, back, "layer", colour(pair[1]), f"{label}, rotated back", ls=":")
                _layers(axes, as_it_is)
            if name.startswith("R²"):
                axes.set_title(group)
                axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.5))
        row[0].set_ylabel(name)
    legend(figure)
    return figure


def _layers(axes: Axes, shown: pd.DataFrame) -> None:
    least_span(axes)
    layer_axis(axes, int(shown["layer"].max()), narrow=True)
