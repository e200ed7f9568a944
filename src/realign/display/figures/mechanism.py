"""RQ4: what tuning changes in behaviour, against what it changes in the representation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from realign.display.figures.style import GREY, colour, grid_of, least_span, legend, line, styled
from realign.display.metrics import headline, metric_title

_POLICY = {
    "accuracy_greedy": "greedy accuracy",
    "accuracy_sampled": "sampled accuracy",
    "entropy": "token entropy (nats)",
    "kl": "KL to base (nats / token)",
}
START = pd.DataFrame({"step": [0], "value": [1.0], "low": [1.0], "high": [1.0]})
"""Where every sibling starts: as similar to the base as the base to itself."""


@styled
def behaviour_and_drift(policy: pd.DataFrame, drift: pd.DataFrame) -> Figure:
    """Along tuning: behaviour of the policy above, similarity of the representation to base below."""
    metrics = headline(drift)
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
    for axes, metric in zip(grid[1], metrics, strict=False):
        for role, mine in drift[drift["metric"] == metric].groupby("role", sort=False):
            path = pd.concat([START, mine]).sort_values("step")
            line(axes, path, "step", colour(str(role)), str(role))
        axes.axhline(1, color=GREY, lw=1, ls=":")
        least_span(axes)
        axes.set_title(metric_title(metric).replace(", ", "\n"), fontsize=8.5)
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
    metrics = headline(drift)
    figure, grid = grid_of(1, len(metrics), (max(1.9, 8 / len(metrics)), 2.5))
    where = policy[["role", "step", "kl"]]
    for axes, metric in zip(grid[0], metrics, strict=True):
        joined = drift[drift["metric"] == metric].merge(where, on=["role", "step"])
        for role, mine in joined.sort_values("step").groupby("role", sort=False):
            x, y = np.r_[0, mine["kl"]], np.r_[0, 1 - mine["value"]]
            axes.plot(x, y, marker="o", ms=4, color=colour(str(role)), label=str(role))
            error = np.clip(
                np.nan_to_num([mine["high"] - mine["value"], mine["value"] - mine["low"]]), 0, None
            )
            axes.errorbar(mine["kl"], 1 - mine["value"], error, fmt="none", color=colour(str(role)), lw=1)
        least_span(axes)
        axes.set_title("1 − " + metric_title(metric).replace(", ", "\n"), fontsize=8.5)
        axes.set_xlabel("KL to base (nats / token)")
    legend(figure)
    return figure
