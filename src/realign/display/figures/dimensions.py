"""The coordinate basis: single dimensions, the rotation between two models, and what is read from them linearly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realign.display.figures.style import (
    CEILING_LINES,
    GREY,
    ceiling_bands,
    colour,
    empty,
    grid_of,
    layer_axis,
    least_span,
    legend,
    line,
    styled,
)
from realign.display.format import between, ceiling_name, pair_name
from realign.findings import similarity
from realign.findings.similarity import Ceilings, Reports
from realign.hrsa.procrustes import shrink_rotation

IMAGE_WIDTH = 320  # pixels of a rotation: block maxima keep a thin diagonal visible, and the page small


@styled
def correlation_histograms(groups: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """How many dimensions of the last layer correlate how well: 1 means that the axis kept its meaning.

    The legend gives the mean over dimensions with its 95% interval over texts.
    """
    figure, grid = grid_of(1, len(groups), (7.8 / len(groups), 2.5), sharex=True, sharey=True)
    edges = np.linspace(-1, 1, 61)
    for axes, (group, reports) in zip(grid[0], groups.items(), strict=True):
        for pair, report in reports.items():
            r = report.detail("correlation_histogram")["r"].dropna().to_numpy()
            mean = report.by_layer("correlation").iloc[-1]
            label = f"{pair_name(pair)}: {between(mean['value'], mean['low'], mean['high'])}"
            axes.hist(r, bins=edges, histtype="stepfilled", alpha=0.35, color=colour(pair[1]), label=label)
            axes.hist(r, bins=edges, histtype="step", color=colour(pair[1]))
        for (name, ceiling), look in zip(
            (ceilings or {}).get(group, {}).items(), CEILING_LINES, strict=False
        ):
            r = ceiling.detail("correlation_histogram")["r"].dropna().to_numpy()
            axes.hist(r, bins=edges, histtype="step", color=GREY, ls=look, label=ceiling_name(name))
        axes.set_title(group)
        axes.set_xlabel("Pearson r of a dimension, last layer")
        axes.legend(loc="upper left")
    grid[0, 0].set_ylabel("dimensions")
    return figure


@styled
def rotations(groups: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """The Procrustes map O of the last layer (absolute values) and how mixed each of its rows is.

    A diagonal says that axes kept their place; a full square, that they were mixed. Below: inverse
    row entropy by layer (1: every axis maps to one axis; dotted: the shuffled-pair null).
    """
    panels = [(group, pair, r) for group, reports in groups.items() for pair, r in reports.items()]
    figure, grid = grid_of(2, len(panels), (max(2.1, 8 / len(panels)), 2.5))
    for j, (group, pair, report) in enumerate(panels):
        axes, magnitude = grid[0, j], np.abs(np.asarray(report.rotation, dtype=np.float32))
        small, _ = shrink_rotation(magnitude, IMAGE_WIDTH)
        # A square root, because most of an orthogonal matrix is tiny beside a clean diagonal.
        root = np.sqrt(small.astype(np.float32))
        image = axes.imshow(root, cmap="cividis", vmin=0, vmax=1, rasterized=True)
        axes.set_title("\n".join(filter(None, [group, pair_name(pair)])), fontsize=8.5)
        axes.set_xlabel(f"dimension of {pair[1]}")
        axes.set_ylabel(f"dimension of {pair[0]}")
        frame = report.by_layer("inverse_row_entropy")
        limits = (ceilings or {}).get(group, {})
        ceiling_bands(grid[1, j], {n: r.by_layer("inverse_row_entropy") for n, r in limits.items()})
        line(grid[1, j], frame, "layer", colour(pair[1]), pair_name(pair))
        grid[1, j].plot(frame["layer"], frame["null"], color=GREY, lw=1, ls=":", label="shuffled pairs")
        grid[1, j].set_ylim(0, 1.02)
        layer_axis(grid[1, j], int(frame["layer"].max()), narrow=len(panels) > 2)
    figure.colorbar(image, ax=grid[0, :], shrink=0.8, label="√|O|")
    grid[1, 0].set_ylabel("inverse row entropy")
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
                as_it_is, back = (report.by_layer(metric) for metric in (plain, turned))
                label = pair_name(pair)
                line(axes, as_it_is, "layer", colour(pair[1]), f"{label}, as it is")
                line(axes, back, "layer", colour(pair[1]), f"{label}, rotated back", ls=":")
                least_span(axes)
                layer_axis(axes, int(as_it_is["layer"].max()), narrow=True)
            if name.startswith("R²"):
                axes.set_title(group)
                axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.5))
        row[0].set_ylabel(name)
    legend(figure)
    return figure


@styled
def sinks(groups: Mapping[str, Reports]) -> Figure:
    """What could fake a similarity: the share of the norm in one dimension and in 1% of the tokens."""
    titles = {"top_dimension_share": "in the top dimension", "top_rows_share": "in the top 1% of tokens"}
    figure, grid = grid_of(1, 2, (3.9, 2.4), sharey=True)
    for axes, (column, title) in zip(grid[0], titles.items(), strict=True):
        for group, reports in groups.items():
            for pair, report in reports.items():
                frame = report.detail("energy")
                for model, mine in frame.groupby("model", sort=False):
                    role = {"a": pair[0], "b": pair[1]}.get(str(model), str(model))
                    ends = {"value": column, "low": f"{column}_low", "high": f"{column}_high"}
                    mine = mine.assign(**{k: mine[v] for k, v in ends.items()}).sort_values("layer")
                    name = " ".join(filter(None, [role, group]))
                    line(axes, mine, "layer", colour(role), name)
        axes.set_title(f"share of squared norm {title}")
        axes.set_ylim(0, 1.02)
        layer_axis(axes, int(frame["layer"].max()))
    legend(figure)
    return figure


@styled
def probes(groups: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """Linear probes read on their own and on the other model: ceilings, transfer and the majority floor.

    A panel for each text set, with its flag where it tells nothing of transfer. The grey band is transfer between a model and itself under the first noise ceiling.
    """
    frames = [
        (group, pair, report, similarity.probes({pair: report}))
        for group, reports in groups.items()
        for pair, report in reports.items()
    ]
    panels = [
        (*each, rows)
        for *each, frame in frames
        if len(frame)
        for _, rows in frame.groupby("text_set", sort=False)
    ]
    if not panels:
        return empty(similarity.NO_PROBE)
    columns = max(sum(each[0] == group for each in panels) for group in groups)
    figure, grid = grid_of(-(-len(panels) // columns), columns, (8 / columns, 2.4), sharey=True)
    for axes, (group, pair, report, frame) in zip(grid.flat, panels, strict=False):
        order = [d for d in ("a->a", "b->a", "b->b", "a->b") if d in set(frame["direction"])]
        text_set, flag = frame[["text_set", "flag"]].iloc[0]
        _probe_bars(axes, frame, order, pair[1])
        for name, ceiling in list((ceilings or {}).get(group, {}).items())[:1]:
            rows = ceiling.detail("probe").query("text_set == @text_set and scaler == 'source'")
            mean = (
                100 * rows.loc[rows["direction"].isin(["a->b", "b->a"]), ["accuracy", "low", "high"]].mean()
            )
            axes.axhspan(mean["low"], mean["high"], color=GREY, alpha=0.3, lw=0, label=ceiling_name(name))
        axes.axhline(100 * frame["majority"].mean(), color=GREY, ls=":", label="majority class")
        controls = report.detail("probe_controls").query("control == 'shuffled' and text_set == @text_set")
        axes.axhline(100 * controls["value"].mean(), color=GREY, ls="--", lw=1, label="shuffled labels")
        ends = frame.drop_duplicates("direction").set_index("direction").loc[order]
        axes.set_xticks(range(len(order)), ends["source"] + "\n→ " + ends["target"], fontsize=7)
        words = [group, pair_name(pair), f"{text_set} ({flag})" if flag else str(text_set)]
        axes.set_title("\n".join(filter(None, words)), fontsize=8)
        axes.set_ylim(0, 105)
    for axes in grid[:, 0]:
        axes.set_ylabel("probe accuracy (%)")
    legend(figure)
    return figure


def _probe_bars(axes: Axes, frame: pd.DataFrame, order: Sequence[str], role: str) -> None:
    """A group of bars for each direction, a bar for each way of scaling."""
    scalers = list(dict.fromkeys(frame["scaler"]))
    for i, scaler in enumerate(scalers):
        mine = frame[frame["scaler"] == scaler].set_index("direction").reindex(order)
        x = np.arange(len(order)) + (i - (len(scalers) - 1) / 2) * 0.38
        error = np.stack([mine["accuracy"] - mine["low"], mine["high"] - mine["accuracy"]])
        axes.bar(
            x,
            100 * mine["accuracy"].to_numpy(),
            0.36,
            yerr=100 * np.clip(error, 0, None),
            error_kw={"lw": 1},
            color=colour(role),
            alpha=0.9 if i == 0 else 0.45,
            label=f"{role}, scaler fitted on the {scaler}",
        )
