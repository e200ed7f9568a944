"""RQ4: along tuning, what changes in behaviour, in the weights, in the landscape and in what is written."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realign.display.figures.style import GREY, colour, grid_of, least_span, legend, line, styled
from realign.findings.mechanism import quartiles
from realign.hrsa.metrics import headlines, id_title

_POLICY = {
    "accuracy_greedy": "greedy accuracy",
    "accuracy_sampled": "sampled accuracy",
    "entropy": "token entropy (nats)",
    "kl": "KL to base (nats / token)",
}
START = pd.DataFrame({"step": [0], "value": [1.0], "low": [1.0], "high": [1.0]})
"""Where every sibling starts: as similar to the base as the base to itself."""


def _rows(frame: pd.DataFrame, metric: str, at: str) -> pd.DataFrame:
    """Rows of one headline metric."""
    return frame[(frame["metric"] == metric) & (frame["at"] == at)]


@styled
def behaviour_and_drift(policy: pd.DataFrame, drift: pd.DataFrame) -> Figure:
    """Along tuning: behaviour of the policy above, similarity of the representation to base below."""
    metrics = headlines(drift)
    columns = max(len(_POLICY), len(metrics))
    figure, grid = grid_of(2, columns, (max(1.9, 8 / columns), 2.2))
    base = policy[policy["role"] == "base"]
    for axes, (column, title) in zip(grid[0], _POLICY.items(), strict=False):
        for role, mine in policy[policy["role"] != "base"].groupby("role", sort=False):
            path = mine if 0 in set(mine["step"]) else pd.concat([base, mine])
            path = path.sort_values("step")
            names = {column: "value", f"{column}_low": "low", f"{column}_high": "high"}
            shown = path[["step", *(n for n in names if n in path)]].rename(columns=names)
            line(axes, shown, "step", colour(str(role)), str(role))
        axes.set_title(title, fontsize=8.5)
    for axes, (metric, at) in zip(grid[1], metrics, strict=False):
        for role, mine in _rows(drift, metric, at).groupby("role", sort=False):
            path = pd.concat([START, mine]).sort_values("step")
            line(axes, path, "step", colour(str(role)), str(role))
        axes.axhline(1, color=GREY, lw=1, ls=":")
        least_span(axes)
        axes.set_title(id_title(metric, at).replace(", ", "\n"), fontsize=8.5)
        axes.set_xlabel("tuning step")
    for axes in [*grid[0, len(_POLICY) :], *grid[1, len(metrics) :]]:
        axes.set_axis_off()
    grid[0, 0].set_ylabel("behaviour")
    grid[1, 0].set_ylabel("similarity to base")
    legend(figure)
    return figure


@styled
def drift_per_behaviour(policy: pd.DataFrame, drift: pd.DataFrame) -> Figure:
    """How far the representation moves (1 − similarity) for how far behaviour moves (KL to base)."""
    metrics = headlines(drift)
    figure, grid = grid_of(1, len(metrics), (max(1.9, 8 / len(metrics)), 2.5))
    where = policy[["role", "step", "kl"]]
    for axes, (metric, at) in zip(grid[0], metrics, strict=True):
        joined = _rows(drift, metric, at).merge(where, on=["role", "step"])
        for role, mine in joined.sort_values("step").groupby("role", sort=False):
            x, y = np.r_[0, mine["kl"]], np.r_[0, 1 - mine["value"]]
            axes.plot(x, y, marker="o", ms=4, color=colour(str(role)), label=str(role))
            error = np.clip(
                np.nan_to_num([mine["high"] - mine["value"], mine["value"] - mine["low"]]), 0, None
            )
            axes.errorbar(mine["kl"], 1 - mine["value"], error, fmt="none", color=colour(str(role)), lw=1)
        least_span(axes)
        axes.set_title("1 − " + id_title(metric, at).replace(", ", "\n"), fontsize=8.5)
        axes.set_xlabel("KL to base (nats / token)")
    legend(figure)
    return figure


def _by_layer(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Median over a layer's matrices as value, their middle half as low and high."""
    return quartiles(frame, "layer", column).sort_values("layer")


@styled
def weight_updates(updates: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """Updates of the weights by layer: size, effective rank, entries moved, and directions against chance.

    Args:
        updates: of ``study.updates.frame()``.
        agreement: of ``study.updates.agreement()``; shown for the first role and each other.
    """
    figure, grid = grid_of(2, 2, (4.0, 2.4))
    panels = (
        ("size", "update / weight (Frobenius norm)", 1.0),
        ("rank", "effective rank of the update", 1.0),
        ("moved", "entries that move in bfloat16 (%)", 100.0),
    )
    for axes, (column, title, factor) in zip(grid.flat, panels, strict=False):
        for role, mine in updates.groupby("role", sort=False):
            shown = _by_layer(mine.assign(**{column: factor * mine[column]}), column)
            line(axes, shown, "layer", colour(str(role)), str(role))
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("layer")
    axes = grid[1, 1]
    for role, mine in updates.groupby("role", sort=False):
        ratio = mine.assign(x=mine["base_left"] / mine["base_left_chance"])
        line(axes, _by_layer(ratio, "x"), "layer", colour(str(role)), str(role))
    first = agreement[agreement["a"] == updates["role"].iloc[0]]
    for (a, b), mine in first.groupby(["a", "b"], sort=False):
        ratio = mine.assign(x=mine["left"] / mine["left_chance"])
        line(axes, _by_layer(ratio, "x"), "layer", colour(str(b)), f"{a} and {b}", ls="--")
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
        points: of ``study.landscape.frame("points")``.
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
        measures: of ``study.landscape.frame()``.
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
        domains: of ``study.domains.frame()``.
    """
    metrics = headlines(domains)
    order = list(dict.fromkeys(domains["domain"]))
    figure, grid = grid_of(1, len(metrics), (8.0 / max(1, len(metrics)), 2.4), sharey=True)
    for axes, (metric, at) in zip(grid[0], metrics, strict=True):
        _dots(axes, _rows(domains, metric, at), order)
        axes.axvline(1, color=GREY, lw=1, ls=":")
        axes.set_title(id_title(metric, at).replace(", ", "\n"), fontsize=8.5)
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
