"""Similarity of two models by layer: of backbones, after contrastive learning, by attention mode and language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from realign.display.figures.style import (
    GREY,
    ceiling_bands,
    ceiling_steps,
    colour,
    errorbar,
    grid_of,
    layer_axis,
    least_span,
    legend,
    line,
    styled,
)
from realign.display.format import between, pair_name
from realign.findings.similarity import Ceilings, Reports, by_layer_ids, headline
from realign.hrsa import METRICS, Report
from realign.hrsa.metrics import ESTIMATORS, id_title
from realign.hrsa.rows import split_id


@styled
def layer_heatmaps(
    groups: Mapping[str, Reports], metric: str = "cka", *, ceilings: Ceilings | None = None
) -> Figure:
    """Similarity of every layer of one model with every layer of the other: a row for each estimator.

    Below each map stand the mean of its diagonal with its 95% interval, the first noise ceiling's, and how
    far the intervals of single cells reach: the middle one of them, and the widest.

    Args:
        groups: reports by what they are ('backbones', 'after contrastive learning'); a column for each
            pair of each group.
        metric: one that reports hold for all layer pairs: 'cka' or 'correlation'.
        ceilings: noise ceilings by group.
    """
    panels = [(group, pair, r) for group, reports in groups.items() for pair, r in reports.items()]
    rows = METRICS[metric].estimators
    narrow = len(panels) > 2
    figure, grid = grid_of(len(rows), len(panels), (max(2.2, 8 / len(panels)), 3.0 if narrow else 2.9))
    image = None
    for i, estimator in enumerate(rows):
        for j, (group, pair, report) in enumerate(panels):
            axes, frame = grid[i, j], report.grid(metric, estimator)
            matrix = frame.pivot_table(index="layer_a", columns="layer_b", values="value").to_numpy()
            image = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=1, origin="lower", rasterized=True)
            title = [group, pair_name(pair), estimator if len(rows) > 1 else ""]
            axes.set_title("\n".join(filter(None, title)), fontsize=8.5)
            under = [f"layer of {pair[1]}", f"diagonal {_diagonal(report, metric, estimator)}"]
            for ceiling in list((ceilings or {}).get(group, {}).values())[:1]:
                under.append(f"ceiling {_diagonal(ceiling, metric, estimator)}")
            reach = (frame["high"] - frame["low"]) / 2
            under.append(f"cells ± {reach.median():.3f} (at most {reach.max():.3f})")
            layer_axis(axes, matrix.shape[1] - 1, "x", "\n".join(under), narrow)
            layer_axis(axes, matrix.shape[0] - 1, "y", f"layer of {pair[0]}" if j == 0 else "", narrow)
            if narrow:  # the notes below would otherwise leave the maps little room
                axes.xaxis.label.set_fontsize(7)
                axes.tick_params(labelsize=7, labelleft=j == 0)
    if image is not None:
        figure.colorbar(image, ax=grid, shrink=0.7, label=METRICS[metric].title, extend="min")
    return figure


def _diagonal(report: Report, metric: str, estimator: str) -> str:
    """Mean over matching layers, all tokens, with its interval."""
    return between(*report.by_layer(metric, estimator, variant="")[["value", "low", "high"]].mean())


@styled
def by_layer(
    groups: Mapping[str, Reports],
    metric: str,
    *,
    ceilings: Ceilings | None = None,
    estimators: Sequence[str] = (),
) -> Figure:
    """One metric layer by layer with its interval: a row an estimator, a column a group.

    Args:
        groups: reports by what they are; a line for each pair.
        metric: a name in :data:`realign.hrsa.METRICS`.
        ceilings: noise ceilings by group, bands in that group's column.
        estimators: which rows, of 'reference' and 'paper'; empty: those that the metric has.
    """
    rows = estimators or METRICS[metric].estimators
    figure, grid = grid_of(len(rows), len(groups), (7.8 / max(1, len(groups)), 2.5), sharey="row")
    for i, estimator in enumerate(rows):
        for axes, (group, reports) in zip(grid[i], groups.items(), strict=True):
            limits = (ceilings or {}).get(group, {})
            ceiling_bands(axes, {n: r.by_layer(metric, estimator) for n, r in limits.items()})
            last = 1
            for pair, report in reports.items():
                frame = report.by_layer(metric, estimator)
                line(axes, frame, "layer", colour(pair[1]), pair_name(pair))
                if frame["null"].notna().any():
                    axes.plot(
                        frame["layer"], frame["null"], color=colour(pair[1]), lw=1, ls=":", label="chance"
                    )
                last = max(last, int(frame["layer"].max() or 1))
            least_span(axes)
            axes.set_title(": ".join(filter(None, [group, f"{estimator} estimator"])))
            layer_axis(axes, last)
        grid[i, 0].set_ylabel(METRICS[metric].title)
    legend(figure)
    return figure


@styled
def neighbours(groups: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """k-NN overlap by layer, a column for each k: chance-corrected above, the paper's Jaccard below.

    Values for different k are not comparable with one another; each panel has its own chance level.
    """
    ks = next(r for reports in groups.values() for r in reports.values()).ks
    figure, grid = grid_of(2, len(ks), (7.8 / len(ks), 2.4), sharey="row")
    dashes = dict(zip(groups, ("-", "--"), strict=False))
    limits = {name: r for group in groups for name, r in (ceilings or {}).get(group, {}).items()}
    for i, estimator in enumerate(ESTIMATORS):
        for axes, k in zip(grid[i], ks, strict=True):
            ceiling_bands(axes, {name: r.by_layer("knn", estimator, k=k) for name, r in limits.items()})
            for group, reports in groups.items():
                for pair, report in reports.items():
                    frame = report.by_layer("knn", estimator, k=k)
                    name = " ".join(filter(None, [pair_name(pair), group]))
                    line(axes, frame, "layer", colour(pair[1]), name, ls=dashes[group])
                    axes.plot(frame["layer"], frame["null"], color=GREY, lw=1, ls=":", label="chance")
            least_span(axes)
            axes.set_title(f"k = {k}, {estimator}")
            layer_axis(axes, int(frame["layer"].max()), narrow=len(ks) > 2)
        grid[i, 0].set_ylabel("corrected overlap" if estimator == "reference" else "Jaccard index")
    legend(figure)
    return figure


@styled
def before_after(
    before: Reports, after: Reports, ceilings: Sequence[Mapping[str, Report]] = ({}, {})
) -> Figure:
    """RQ3 at a glance: each similarity, mean over layers, from backbone to embedding model.

    Args:
        before: reports of the backbones.
        after: reports of the embedding models.
        ceilings: noise ceilings of either, by name: grey bands on their side.
    """
    sides = {"backbone": before, "after CL": after}
    return _joined_means(sides, dict(zip(sides, ceilings, strict=True)), "mean over layers")


@styled
def attention_modes(modes: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """Each similarity, mean over layers, when both models read bidirectionally and when both read causally.

    Args:
        modes: of ``study.drift.modes()``.
        ceilings: noise ceilings by mode.
    """
    return _joined_means(modes, ceilings or {}, "mean over six layers")


def _joined_means(sides: Mapping[str, Reports], ceilings: Ceilings, label: str) -> Figure:
    """Draw each similarity, mean over layers, joined across what the reports are of, with noise ceilings."""
    metrics = [*headline(), "r2"]  # R² says how much of a difference a rotation takes away
    figure, grid = grid_of(1, len(metrics), (2.0, 2.6))
    for axes, metric in zip(grid[0], metrics, strict=True):
        for place, side in enumerate(sides):
            limits = ceilings.get(side, {})
            ceiling_steps(axes, place, {n: r.by_layer(metric).mean() for n, r in limits.items()})
        for i, pair in enumerate(next(iter(sides.values()))):
            reports = [r[pair] for r in sides.values() if pair in r]
            errorbar(axes, [r.by_layer(metric).mean() for r in reports], i, pair)
        axes.set_xticks(range(len(sides)), list(sides))
        axes.set_xlim(-0.35, len(sides) - 0.6)
        least_span(axes)
        axes.set_title(METRICS[metric].title, fontsize=8)
    grid[0, 0].set_ylabel(label)
    legend(figure)
    return figure


@styled
def recovery(before: Reports, after: Reports, ceilings: Mapping[str, Report] | None = None) -> Figure:
    """Does contrastive learning undo it? Basis, global and local similarity by layer, before and after.

    Args:
        before: reports of the backbones, by pair of roles.
        after: reports of the embedding models.
        ceilings: noise ceilings of the embedding models, by name.
    """
    metrics = headline()
    figure, grid = grid_of(len(before), len(metrics), (8.1 / len(metrics), 2.1), sharey="col")
    for i, (pair, report) in enumerate(before.items()):
        for axes, metric in zip(grid[i], metrics, strict=True):
            ceiling_bands(axes, {name: r.by_layer(metric) for name, r in (ceilings or {}).items()})
            shown = report.by_layer(metric)
            line(axes, shown, "layer", colour(pair[1]), f"{pair_name(pair)}, backbones", ls="--")
            if pair in after:
                trained = after[pair].by_layer(metric)
                line(axes, trained, "layer", colour(pair[1]), f"{pair_name(pair)}, after CL")
            least_span(axes)
            layer_axis(axes, int(shown["layer"].max()), narrow=True)
            if i == 0:
                axes.set_title(f"{METRICS[metric].level}:\n{METRICS[metric].title}", fontsize=8.5)
    for axes in grid[:, 0]:
        axes.set_ylabel("similarity")
    legend(figure)
    return figure


@styled
def languages(frame: pd.DataFrame, ceilings: Mapping[str, Report] | None = None) -> Figure:
    """English against other languages within each model, by layer: 0 is what unrelated texts give.

    Args:
        frame: of ``study.languages.frame()``: role, trained (after contrastive learning), language, metric,
            layer, value, low, high; a row a metric, a column a language.
        ceilings: noise ceilings of the backbones, by name: the same language, read twice.
    """
    metrics = by_layer_ids(frame["metric"])
    spoken = list(dict.fromkeys(frame["language"]))
    figure, grid = grid_of(len(metrics), len(spoken), (7.8 / len(spoken), 2.1), sharey="row")
    for i, metric in enumerate(metrics):
        name, _, k = split_id(metric)
        limits = {n: r.by_layer(name, k=k or None) for n, r in (ceilings or {}).items()}
        for axes, language in zip(grid[i], spoken, strict=True):
            mine = frame[(frame["metric"] == metric) & (frame["language"] == language)]
            ceiling_bands(axes, limits)
            for (role, trained), rows in mine.groupby(["role", "trained"], sort=False):
                label = f"{role}-Emb" if trained else role
                line(axes, rows, "layer", colour(role), label, ls="--" if trained else "-")
            axes.set_title(f"en – {language}")
            layer_axis(axes, int(mine["layer"].max()), narrow=True)
        grid[i, 0].set_ylabel(fill(id_title(metric), 22), fontsize=8)
    legend(figure)
    return figure
