"""RQ2 and RQ3: similarity of two models, layer by layer, before and after contrastive learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from realign.display import tables
from realign.display.figures.style import (
    CEILING_LINES,
    GREY,
    Ceilings,
    Reports,
    ceiling_bands,
    ceiling_name,
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
from realign.display.format import between
from realign.display.metrics import METRICS


@styled
def layer_heatmaps(
    groups: Mapping[str, Reports], metric: str = "cka", *, ceilings: Ceilings | None = None
) -> Figure:
    """Similarity of every layer of one model with every layer of the other.

    Below each map stand the mean of its diagonal with its 95% interval, the first noise ceiling's, and how
    far the intervals of single cells reach: the middle one of them, and the widest.

    Args:
        groups: reports by what they are ('backbones', 'after contrastive learning'); a column for each
            pair of each group.
        metric: 'cka' (a row for each estimator) or 'correlation' (one definition, one row).
        ceilings: noise ceilings by group.
    """
    panels = [(group, pair, r) for group, reports in groups.items() for pair, r in reports.items()]
    rows = ["reference", "paper"] if metric == "cka" else [""]
    narrow = len(panels) > 2
    figure, grid = grid_of(len(rows), len(panels), (max(2.2, 8 / len(panels)), 3.0 if narrow else 2.9))
    image = None
    for i, estimator in enumerate(rows):
        for j, (group, pair, report) in enumerate(panels):
            axes, frame = grid[i, j], report.frame(metric)
            if estimator:
                frame = frame[frame["estimator"] == estimator]
            matrix = frame.pivot_table(index="layer_a", columns="layer_b", values="value").to_numpy()
            image = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=1, origin="lower", rasterized=True)
            axes.set_title("\n".join(filter(None, [group, tables.pair_name(pair), estimator])), fontsize=8.5)
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
        figure.colorbar(image, ax=grid, shrink=0.7, label=METRICS[metric], extend="min")
    return figure


def _diagonal(report: Any, metric: str, estimator: str) -> str:
    """Mean over matching layers, all tokens, with its interval."""
    frame = report.frame(f"{metric}_diagonal")
    if estimator:
        frame = frame[(frame["estimator"] == estimator) & (frame["variant"] == "all")]
    return between(*frame[["value", "low", "high"]].mean())


@styled
def layer_profiles(
    groups: Mapping[str, Reports],
    metric: str,
    *,
    ceilings: Ceilings | None = None,
    estimators: Sequence[str] = tables.ESTIMATORS,
    k: int | None = None,
) -> Figure:
    """One metric layer by layer with its interval: a row an estimator, a column a group.

    Args:
        groups: reports by what they are; a line for each pair.
        metric: a name in :data:`realign.display.metrics.METRICS`.
        ceilings: noise ceilings by group, bands in that group's column.
        estimators: which rows, of 'reference' and 'paper'.
        k: neighbours for 'knn'.
    """
    figure, grid = grid_of(len(estimators), len(groups), (7.8 / max(1, len(groups)), 2.5), sharey="row")
    for i, estimator in enumerate(estimators):
        for j, (group, reports) in enumerate(groups.items()):
            axes = grid[i, j]
            limits = (ceilings or {}).get(group, {})
            ceiling_bands(axes, {n: tables.profile(r, metric, estimator, k) for n, r in limits.items()})
            last = 1
            for pair, report in reports.items():
                frame = tables.profile(report, metric, estimator, k)
                line(axes, frame, "layer", colour(pair[1]), tables.pair_name(pair))
                if frame["null"].notna().any():
                    axes.plot(
                        frame["layer"], frame["null"], color=colour(pair[1]), lw=1, ls=":", label="chance"
                    )
                last = max(last, int(frame["layer"].max() or 1))
            least_span(axes)
            axes.set_title(": ".join(filter(None, [group, f"{estimator} estimator"])))
            layer_axis(axes, last)
        grid[i, 0].set_ylabel(METRICS[metric] + (f", k = {k}" if k and metric == "knn" else ""))
    legend(figure)
    return figure


@styled
def neighbours(groups: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """k-NN overlap by layer, a column for each k: chance-corrected above, the paper's Jaccard below.

    Values for different k are not comparable with one another; each panel has its own chance level.
    """
    first = next(r for reports in groups.values() for r in reports.values())
    ks = sorted({int(k) for k in first.frame("knn")["k"]})
    figure, grid = grid_of(2, len(ks), (7.8 / len(ks), 2.4), sharey="row")
    dashes = dict(zip(groups, ("-", "--"), strict=False))
    for i, estimator in enumerate(tables.ESTIMATORS):
        for axes, k in zip(grid[i], ks, strict=True):
            limits = {name: r for group in groups for name, r in (ceilings or {}).get(group, {}).items()}
            bands = {name: tables.profile(r, "knn", estimator, k) for name, r in limits.items()}
            ceiling_bands(axes, bands)
            for group, reports in groups.items():
                for pair, report in reports.items():
                    frame = tables.profile(report, "knn", estimator, k)
                    name = " ".join(filter(None, [tables.pair_name(pair), group]))
                    line(axes, frame, "layer", colour(pair[1]), name, ls=dashes[group])
                    axes.plot(frame["layer"], frame["null"], color=GREY, lw=1, ls=":", label="chance")
            least_span(axes)
            axes.set_title(f"k = {k}, {estimator}")
            layer_axis(axes, int(frame["layer"].max()), narrow=len(ks) > 2)
        grid[i, 0].set_ylabel("corrected overlap" if estimator == "reference" else "Jaccard index")
    legend(figure)
    return figure


@styled
def correlation_histograms(groups: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """How many dimensions of the last layer correlate how well: 1 means that the axis kept its meaning.

    The legend gives the mean over dimensions with its 95% interval over texts.
    """
    figure, grid = grid_of(1, len(groups), (7.8 / len(groups), 2.5), sharex=True, sharey=True)
    edges = np.linspace(-1, 1, 61)
    for axes, (group, reports) in zip(grid[0], groups.items(), strict=True):
        for pair, report in reports.items():
            r = report.frame("correlation_histogram")["r"].dropna().to_numpy()
            mean = tables.profile(report, "correlation").iloc[-1]
            label = f"{tables.pair_name(pair)}: {between(mean['value'], mean['low'], mean['high'])}"
            axes.hist(r, bins=edges, histtype="stepfilled", alpha=0.35, color=colour(pair[1]), label=label)
            axes.hist(r, bins=edges, histtype="step", color=colour(pair[1]))
        for (name, ceiling), look in zip(
            (ceilings or {}).get(group, {}).items(), CEILING_LINES, strict=False
        ):
            r = ceiling.frame("correlation_histogram")["r"].dropna().to_numpy()
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
        # A square root, because most of an orthogonal matrix is tiny beside a clean diagonal.
        image = axes.imshow(np.sqrt(_shrink(magnitude)), cmap="cividis", vmin=0, vmax=1, rasterized=True)
        axes.set_title("\n".join(filter(None, [group, tables.pair_name(pair)])), fontsize=8.5)
        axes.set_xlabel(f"dimension of {pair[1]}")
        axes.set_ylabel(f"dimension of {pair[0]}")
        frame = tables.profile(report, "inverse_row_entropy", "reference")
        limits = (ceilings or {}).get(group, {})
        ceiling_bands(grid[1, j], {n: tables.profile(r, "inverse_row_entropy") for n, r in limits.items()})
        line(grid[1, j], frame, "layer", colour(pair[1]), tables.pair_name(pair))
        grid[1, j].plot(frame["layer"], frame["null"], color=GREY, lw=1, ls=":", label="shuffled pairs")
        grid[1, j].set_ylim(0, 1.02)
        layer_axis(grid[1, j], int(frame["layer"].max()), narrow=len(panels) > 2)
    figure.colorbar(image, ax=grid[0, :], shrink=0.8, label="√|O|")
    grid[1, 0].set_ylabel("inverse row entropy")
    legend(figure)
    return figure


def _shrink(matrix: np.ndarray, limit: int = 320) -> np.ndarray:
    """Block maxima of a large matrix: a thin diagonal stays visible, the page stays small."""
    step = -(-max(matrix.shape) // limit)
    rows, columns = (-(-n // step) * step for n in matrix.shape)
    padded = np.zeros((rows, columns), dtype=matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded.reshape(rows // step, step, columns // step, step).max(axis=(1, 3))


@styled
def probes(groups: Mapping[str, Reports], *, ceilings: Ceilings | None = None) -> Figure:
    """Linear probes read on their own and on the other model: ceilings, transfer and the majority floor.

    The grey band is transfer between a model and itself under the first noise ceiling.
    """
    panels = [(group, pair, r) for group, reports in groups.items() for pair, r in reports.items()]
    columns = max(len(reports) for reports in groups.values())
    rows = -(-len(panels) // columns)
    figure, grid = grid_of(rows, columns, (8 / columns, 2.4), sharey=True)
    for axes, (group, pair, report) in zip(grid.flat, panels, strict=False):
        frame = report.frame("probe")
        order = [d for d in ("a->a", "b->a", "b->b", "a->b") if d in set(frame["direction"])]
        scalers = list(dict.fromkeys(frame["scaler"]))
        for i, scaler in enumerate(scalers):
            mine = (
                frame[frame["scaler"] == scaler].groupby("direction").mean(numeric_only=True).reindex(order)
            )
            x = np.arange(len(order)) + (i - (len(scalers) - 1) / 2) * 0.38
            error = np.stack([mine["accuracy"] - mine["low"], mine["high"] - mine["accuracy"]])
            look = {"color": colour(pair[1]), "alpha": 0.9 if i == 0 else 0.45, "error_kw": {"lw": 1}}
            name = f"{pair[1]}, scaler fitted on the {scaler}"
            height = 100 * mine["accuracy"].to_numpy()
            axes.bar(x, height, 0.36, yerr=100 * np.clip(error, 0, None), label=name, **look)
        for name, ceiling in list((ceilings or {}).get(group, {}).items())[:1]:
            crossed = ceiling.frame("probe").query("direction in ('a->b', 'b->a') and scaler == 'source'")
            mean = 100 * crossed[["accuracy", "low", "high"]].mean()
            axes.axhspan(mean["low"], mean["high"], color=GREY, alpha=0.3, lw=0, label=ceiling_name(name))
        axes.axhline(100 * frame["majority"].mean(), color=GREY, ls=":", label="majority class")
        shuffled = report.frame("probe_controls").query("control == 'shuffled'")["value"].mean()
        axes.axhline(100 * shuffled, color=GREY, ls="--", lw=1, label="shuffled labels")
        axes.set_xticks(range(len(order)), [tables.direction(d, *pair).replace(" → ", "\n→ ") for d in order])
        axes.set_title(": ".join(filter(None, [group, tables.pair_name(pair)])))
        axes.set_ylim(0, 105)
    for axes in grid[:, 0]:
        axes.set_ylabel("probe accuracy (%)")
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
                frame = report.frame("energy")
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
def before_after(
    before: Reports,
    after: Reports,
    ceilings: Sequence[Mapping[str, Any]] = ({}, {}),
    k: int | None = None,
) -> Figure:
    """RQ3 at a glance: each similarity, mean over layers, from backbone to embedding model.

    Args:
        before: reports of the backbones.
        after: reports of the embedding models.
        ceilings: noise ceilings of either, by name: grey bands on their side.
        k: neighbours for k-NN overlap; None takes the middle one.
    """
    stages = {"backbone": before, "after CL": after}
    return joined_means(stages, dict(zip(stages, ceilings, strict=True)), "mean over layers", k)


def joined_means(stages: Mapping[str, Reports], ceilings: Ceilings, label: str, k: int | None) -> Figure:
    """Draw each similarity, mean over layers, joined across what the reports are of, with noise ceilings."""
    metrics = ("cka", "knn", "correlation", "r2")
    figure, grid = grid_of(1, len(metrics), (2.0, 2.6))
    for axes, metric in zip(grid[0], metrics, strict=True):
        for place, stage in enumerate(stages):
            limits = ceilings.get(stage, {})
            ceiling_steps(axes, place, {n: tables.profile(r, metric, k=k).mean() for n, r in limits.items()})
        for i, pair in enumerate(next(iter(stages.values()))):
            reports = [r[pair] for r in stages.values() if pair in r]
            errorbar(axes, [tables.profile(r, metric, k=k).mean() for r in reports], i, pair)
        axes.set_xticks(range(len(stages)), list(stages))
        axes.set_xlim(-0.35, len(stages) - 0.6)
        least_span(axes)
        axes.set_title(METRICS[metric], fontsize=8)
    grid[0, 0].set_ylabel(label)
    legend(figure)
    return figure
