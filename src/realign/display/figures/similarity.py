"""Similarity of two models by layer: of backbones, after contrastive learning, by attention mode and language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
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
from realign.display.format import between, ceiling_name, pair_name
from realign.findings.similarity import Ceilings, Reports, by_layer_ids, headline
from realign.hrsa import METRICS, Report, replicates
from realign.hrsa.metrics import ESTIMATORS, id_title
from realign.hrsa.report import CALIBRATED
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


def curve(
    report: Report, metric: str, estimator: str = "reference", k: int | None = None
) -> tuple[pd.DataFrame, bool]:
    """Return a metric by layer, calibrated where the report has a floor and a ceiling, and whether it is."""
    frame = report.by_layer(metric, estimator, k=k)
    if estimator != "reference" or CALIBRATED[0] not in frame:
        return frame, False
    shares = frame[["layer", *CALIBRATED, "determined"]]
    return shares.set_axis(["layer", "value", "low", "high", "determined"], axis=1), True


def _panel(
    axes: Axes,
    reports: Reports,
    limits: Mapping[str, Report],
    metric: str,
    estimator: str,
    *,
    k: int | None = None,
    name: str = "",
    **look: str,
) -> None:
    """Draw a metric by layer: calibrated between floor and ceiling, or as measured with the ceiling as a band."""
    calibrated = False
    for pair, report in reports.items():
        frame, calibrated = curve(report, metric, estimator, k)
        line(axes, frame, "layer", colour(pair[1]), " ".join(filter(None, [pair_name(pair), name])), **look)
        if not calibrated and frame["null"].notna().any():
            axes.plot(frame["layer"], frame["null"], color=GREY, lw=1, ls=":", label="chance")
        layer_axis(axes, max(1, int(frame["layer"].max())), narrow=len(axes.figure.axes) > 4)
    if not calibrated:
        return ceiling_bands(axes, {n: r.by_layer(metric, estimator, k=k) for n, r in limits.items()})
    for limit in limits:
        axes.axhline(1, color=GREY, lw=1, ls="--", label=ceiling_name(limit))
    axes.axhline(0, color=GREY, lw=1, ls=":", label="unrelated texts")
    return None


def _label(metric: str, estimator: str, reports: Mapping[str, Reports]) -> str:
    """Title of a y axis."""
    held = [r for each in reports.values() for r in each.values()]
    calibrated = bool(held) and all(curve(r, metric, estimator)[1] for r in held)
    return METRICS[metric].title + ("\ncalibrated" if calibrated else "")


@styled
def by_layer(
    groups: Mapping[str, Reports],
    metric: str,
    *,
    ceilings: Ceilings | None = None,
    estimators: Sequence[str] = (),
) -> Figure:
    """One metric layer by layer with its interval: a row an estimator, a column a group.

    The reference row is calibrated: 0 is what unrelated texts give, 1 the noise ceiling. The paper's is as measured,
    and so is the reference row of reports without floor and ceiling.

    Args:
        groups: reports by what they are; a line for each pair.
        metric: a name in :data:`realign.hrsa.METRICS`.
        ceilings: noise ceilings by group.
        estimators: which rows, of 'reference' and 'paper'; empty: those that the metric has.
    """
    rows = estimators or METRICS[metric].estimators
    figure, grid = grid_of(len(rows), len(groups), (7.8 / max(1, len(groups)), 2.5), sharey="row")
    for i, estimator in enumerate(rows):
        for axes, (group, reports) in zip(grid[i], groups.items(), strict=True):
            _panel(axes, reports, (ceilings or {}).get(group, {}), metric, estimator)
            least_span(axes)
            axes.set_title(": ".join(filter(None, [group, f"{estimator} estimator"])), fontsize=8.5)
        grid[i, 0].set_ylabel(_label(metric, estimator, groups))
    legend(figure)
    return figure


@styled
def neighbours(groups: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """k-NN overlap by layer, a column for each k: calibrated above, the paper's Jaccard index below.

    Values for different k are not comparable with one another; each panel has its own chance level.
    """
    ks = next(r for reports in groups.values() for r in reports.values()).ks
    figure, grid = grid_of(2, len(ks), (7.8 / len(ks), 2.4), sharey="row")
    dashes = dict(zip(groups, ("-", "--", ":"), strict=False))
    for i, estimator in enumerate(ESTIMATORS):
        for axes, k in zip(grid[i], ks, strict=True):
            for group, reports in groups.items():
                limits = (ceilings or {}).get(group, {})
                _panel(axes, reports, limits, "knn", estimator, k=k, name=group, ls=dashes[group])
            least_span(axes)
            axes.set_title(f"k = {k}, {estimator}")
        grid[i, 0].set_ylabel(
            _label("knn", estimator, groups) if estimator == "reference" else "Jaccard index"
        )
    legend(figure)
    return figure


@styled
def before_after(
    before: Reports, after: Reports, ceilings: Sequence[Mapping[str, Report]] = ({}, {})
) -> Figure:
    """RQ3 at a glance: each similarity, mean over layers, calibrated, from backbone to embedding model.

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
    return _joined_means(modes, ceilings or {}, "mean over layers")


def _joined_means(sides: Mapping[str, Reports], ceilings: Ceilings, label: str) -> Figure:
    """Draw each similarity, mean over layers, joined across what the reports are of, with noise ceilings."""
    metrics = [*headline(), "r2"]  # R² says how much of a difference a rotation takes away
    figure, grid = grid_of(1, len(metrics), (2.0, 2.6))
    held = [r for reports in sides.values() for r in reports.values()]
    calibrated = bool(held) and all(r.floor is not None for r in held)
    for axes, metric in zip(grid[0], metrics, strict=True):
        for place, side in enumerate(sides):
            limits = {n: _mean(r, metric, False) for n, r in ceilings.get(side, {}).items()}
            if calibrated:
                limits = {n: pd.Series({"value": 1.0, "low": 1.0, "high": 1.0}) for n in limits}
            ceiling_steps(axes, place, limits)
        for i, pair in enumerate(next(iter(sides.values()))):
            reports = [r[pair] for r in sides.values() if pair in r]
            errorbar(axes, [_mean(r, metric, calibrated) for r in reports], i, pair)
        axes.set_xticks(range(len(sides)), list(sides))
        axes.set_xlim(-0.35, len(sides) - 0.6)
        least_span(axes)
        axes.set_title(METRICS[metric].title, fontsize=8)
    grid[0, 0].set_ylabel(label + (", calibrated" if calibrated else ""))
    legend(figure)
    return figure


def _mean(report: Report, metric: str, calibrated: bool) -> pd.Series:
    """Value, low and high of a metric's mean over layers."""
    row = replicates.overall(report, metric, "mean")
    return row[list(CALIBRATED)].set_axis(["value", "low", "high"]) if calibrated else row


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
            limits = ceilings or {}
            _panel(axes, {pair: report}, limits, metric, "reference", name="backbones", ls="--")
            if pair in after:
                _panel(axes, {pair: after[pair]}, limits, metric, "reference", name="after CL")
            least_span(axes)
            if i == 0:
                axes.set_title(f"{METRICS[metric].level}:\n{METRICS[metric].title}", fontsize=8.5)
    for axes in grid[:, 0]:
        axes.set_ylabel(
            "similarity, calibrated" if curve(next(iter(before.values())), "cka")[1] else "similarity"
        )
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
