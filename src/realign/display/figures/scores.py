"""RQ1: scores, their paired differences, and the training behind them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realign.display.figures.style import CARD, GREY, colour, empty, grid_of, legend, line, styled
from realign.findings import scores as findings


@styled
def forest(scores: pd.DataFrame, items: pd.DataFrame, margin: float) -> Figure:
    """Differences to base with their 90% intervals: of tasks by role (over seeds), of suites by arm (all noise)."""
    tasks = findings.deltas(scores, "task").rename(columns={"role": "name"})
    suites = findings.equivalence(scores, items, margin).rename(columns={"arm": "name"})
    suites = suites[suites["suite"] != "all"]
    if tasks.empty:
        return empty("no trained sibling to compare with base")
    rows = [(s, t) for s in dict.fromkeys(tasks["suite"]) for t in [*_tasks(tasks, s), None]]
    names = list(dict.fromkeys([*tasks["name"], *suites["name"]]))
    figure, grid = grid_of(1, 1, (7.6, 0.9 + 0.27 * len(rows)))
    axes = grid[0, 0]
    axes.axvspan(-margin, margin, color=GREY, alpha=0.15, lw=0, label=f"equivalence margin ±{margin:g}")
    axes.axvline(0, color=GREY, lw=1)
    for i, name in enumerate(names):
        offset = (i - (len(names) - 1) / 2) * min(0.3, 0.8 / len(names))
        for y, (suite, task) in enumerate(rows):
            frame = suites if task is None else tasks[tasks["task"] == task]
            for _, row in frame[(frame["suite"] == suite) & (frame["name"] == name)].iterrows():
                _whisker(axes, row, y + offset, colour(name), heavy=task is None, label=f"{name} − base")
    labels = [f"{s}: mean" if t is None else t for s, t in rows]
    axes.set_yticks(range(len(rows)), labels)
    for text, (_, task) in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_fontweight("bold" if task is None else "normal")
    axes.invert_yaxis()
    axes.set_xlabel("difference in score to base-Emb (points)")
    legend(figure)
    return figure


def _tasks(frame: pd.DataFrame, suite: str) -> list[str]:
    return list(dict.fromkeys(frame.loc[frame["suite"] == suite, "task"]))


def _whisker(axes: Axes, row: pd.Series, y: float, colour: str, *, heavy: bool, label: str) -> None:
    known = bool(np.isfinite(row["low"])) and bool(row.get("identified", True))  # an open marker: one seed
    if known:
        axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=2.4 if heavy else 1.2)
    face = colour if known else CARD
    axes.plot(
        row["delta"], y, "D" if heavy else "o", color=colour, mfc=face, ms=6 if heavy else 4.5, label=label
    )


@styled
def score_dots(scores: pd.DataFrame) -> Figure:
    """Mean score of every model by suite: trained roles (one dot a seed) and the baselines below them."""
    each = findings.task_scores(scores)
    suites = list(dict.fromkeys(each["suite"]))
    figure, grid = grid_of(1, len(suites), (max(2.6, 7.6 / len(suites)), 2.7), sharey=True)
    means = each.groupby(["model", "role", "seed", "suite"], as_index=False)["score"].mean()
    label = {"emb": "{}-Emb", **findings.BASELINES, "untrained": "{}, untrained"}
    kinds = list(dict.fromkeys(zip(means["model"], means["role"], strict=True)))
    kinds.sort(key=lambda kind: (list(label).index(kind[0]), kind[1]))
    for axes, suite in zip(grid[0], suites, strict=True):
        for y, (model, role) in enumerate(kinds):
            mine = means[(means["suite"] == suite) & (means["model"] == model) & (means["role"] == role)]
            face = colour(role) if model == "emb" else CARD
            edge = colour(role) if role else GREY
            axes.plot(mine["score"], np.full(len(mine), y), "o", color=edge, mfc=face, alpha=0.85)
        axes.set_title(suite)
        axes.set_xlabel("mean score (0–100)")
        axes.grid(axis="x", color=GREY, alpha=0.2)
    grid[0, 0].set_yticks(range(len(kinds)), [label[m].format(r) for m, r in kinds])
    grid[0, 0].invert_yaxis()
    return figure


@styled
def training_curves(logs: pd.DataFrame) -> Figure:
    """Contrastive learning, step by step: mean over seeds with the range of the seeds as a band."""
    titles = {"loss": "InfoNCE loss (nats)", "accuracy": "in-batch accuracy", "grad_norm": "gradient norm"}
    return _curves(logs, titles, "training step", "no training log")


@styled
def training_details(logs: pd.DataFrame) -> Figure:
    """The rest of the step log: schedule, shape of the embedding, speed, padding and memory."""
    titles = {
        "learning_rate": "learning rate",
        "alignment": "alignment (0: pairs coincide)",
        "uniformity": "uniformity (lower: more spread)",
        "tokens_per_second": "tokens a second",
        "padding_share": "padding, share of positions",
        "memory_gib": "peak memory so far (GiB)",
    }
    return _curves(logs, titles, "training step", "no training log", per_row=3)


@styled
def tuning_curves(logs: pd.DataFrame) -> Figure:
    """How the siblings were made: what the tuning of each role logged, step by step."""
    titles = {"reward": "mean reward", "loss": "loss", "entropy": "token entropy (nats)"}
    titles["completion_length"] = "completion length (tokens)"
    return _curves(logs, titles, "tuning step", "these backbones came without a tuning log")


def _curves(
    logs: pd.DataFrame, titles: Mapping[str, str], xlabel: str, nothing: str, per_row: int = 4
) -> Figure:
    columns = [c for c in titles if c in logs and logs[c].notna().any()]
    if not columns:
        return empty(nothing)
    wide = min(per_row, len(columns))
    figure, grid = grid_of(-(-len(columns) // wide), wide, (max(2.5, 7.8 / wide), 2.5))
    for axes in grid.flat[len(columns) :]:
        axes.set_axis_off()
    for axes, column in zip(grid.flat, columns, strict=False):
        for role, mine in logs.dropna(subset=[column]).groupby("role", sort=False):
            steps = mine.groupby("step")[column].agg(value="mean", low="min", high="max").reset_index()
            line(axes, steps, "step", colour(str(role)), str(role))
        axes.set_title(titles[column])
        axes.set_xlabel(xlabel)
    legend(figure)
    return figure
