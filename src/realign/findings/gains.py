"""What contrastive learning achieved: against the untrained backbone, and against shared words (BM25)."""

from __future__ import annotations

import math

import pandas as pd

from realign import stats
from realign.display import tables
from realign.display.format import Text, between, number


def learned(scores: pd.DataFrame, level: float = 0.90) -> pd.DataFrame:
    """What contrastive learning adds: each trained role against its own untrained backbone, by suite.

    Returns:
        Frame with suite, role, untrained, trained, gain, low, high (interval of the gain over seeds, NaN
        with one seed), seeds, better (seeds whose model scores higher). Scores are means over tasks.
    """
    each = tables.task_scores(scores)
    means = each.groupby(["model", "role", "seed", "suite"])["score"].mean(skipna=False)
    rows = []
    for (role, suite), group in means.get("emb", means.iloc[:0]).groupby(level=["role", "suite"]):
        if ("untrained", role, -1, suite) not in means.index:
            continue
        before = float(means.loc[("untrained", role, -1, suite)])
        gains = group.to_numpy() - before
        low, high = stats.t_interval(gains, level)
        rows.append(
            {"suite": suite, "role": role, "untrained": before, "trained": float(group.mean(skipna=False))}
            | {"gain": float(gains.mean()), "low": low, "high": high}
            | {"seeds": len(gains), "better": int((gains > 0).sum())}
        )
    columns = ["suite", "role", "untrained", "trained", "gain", "low", "high", "seeds", "better"]
    return pd.DataFrame(rows, columns=columns).sort_values(["suite", "role"], ignore_index=True)


def display_learned(table: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`learned` as text."""
    shown = table[["suite", "role"]].copy()
    for column in ("untrained", "trained"):
        shown[column] = [number(v, 2) for v in table[column]]
    intervals = zip(table["gain"], table["low"], table["high"], strict=True)
    shown["gain [90% interval over seeds]"] = [between(*row, 2) for row in intervals]
    pairs = zip(table["better"], table["seeds"], strict=True)
    shown["seeds above untrained"] = [f"{better} of {seeds}" for better, seeds in pairs]
    return shown


def against_words(scores: pd.DataFrame) -> pd.DataFrame:
    """Trained models against BM25, tasks with the least word overlap first.

    BM25 sees nothing but shared words, so its own score says how far they lead in a task.

    Returns:
        Frame with task, BM25, and the mean of each trained role over seeds, sorted by BM25.
    """
    each = tables.task_scores(scores)
    words = each[each["model"] == "bm25"].set_index("task")["score"].rename("BM25")
    trained = (
        each[each["model"] == "emb"].groupby(["task", "role"])["score"].mean(skipna=False).unstack("role")
    )
    return pd.concat([words, trained], axis=1, join="inner").sort_values("BM25").rename_axis("task")


def learned_text(scores: pd.DataFrame) -> Text:
    """Say in two sentences, from the numbers, what training achieved here and what it did not."""
    table, words = learned(scores), against_words(scores)
    if table.empty:
        return Text("No trained model has an untrained backbone to be compared with.")
    clear = table[table["low"] > 0]
    parts = [
        f"Training lifts the mean of a suite in {int((table['gain'] > 0).sum())} of {len(table)} cases (role and "
        f"suite), in {len(clear)} of them by more than the interval over seeds leaves open"
    ]
    if table["low"].isna().all():
        parts = [parts[0].rpartition(", in ")[0] + " (one seed: no interval)"]
    rest = table[~(table["low"] > 0)]
    if len(rest) and len(clear):
        names = ", ".join(f"{row.role} on {row.suite}" for row in rest.itertuples())
        parts.append(f"; not so for {names}")
    if words.empty:
        return Text("".join(parts) + ".")
    least = words.head(math.ceil(len(words) / 3))
    roles = [c for c in words if c != "BM25"]
    won = [
        f"{task} ({row['BM25']:.1f})" for task, row in least.iterrows() if (row[roles] > row["BM25"]).all()
    ]
    text = (
        f". Of the {len(least)} ranking tasks where shared words help least (the third on which BM25 scores "
        f"lowest), all trained roles beat BM25 on {len(won)}"
    )
    return Text("".join(parts) + text + (f": {', '.join(won)}." if won else "."))
