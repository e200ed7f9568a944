"""RQ1 in numbers: means of scores, paired differences to base, and whether they are nothing.

Functions read the frame of ``study.scores()``; :mod:`realign.display.tables` hands them to the chapters.
``display_scores`` turns a numeric frame into the strings that a page shows, so that tests and verdicts
work on numbers and readers see units, signs and rounding.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from realign import stats
from realign.display.format import between, number, signed
from realign.evaluation import yardstick


def task_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return one score (0-100) for each model, role, seed, suite, type and task.

    Subsets of a task (languages, say) are averaged with equal weight. A subset that failed (NaN) makes
    its task, and every mean with that task, NaN: a mean over what happened to work would mislead.
    """
    keys = ["model", "role", "seed", "suite", "type", "task"]
    filled = scores.assign(role=scores["role"].fillna(""))
    return filled.groupby(keys)["score"].mean(skipna=False).reset_index()


def _differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Return sibling minus base of trained models: one row a role, suite, type and task, one column a seed."""
    trained = task_scores(scores).query("model == 'emb'")
    wide = trained.pivot(index=["suite", "type", "task", "seed"], columns="role", values="score")
    siblings = [role for role in wide.columns if role != "base"]
    if not siblings:
        return pd.DataFrame()
    parts = {role: (wide[role] - wide["base"]).unstack("seed") for role in siblings}
    return pd.concat(parts, names=["role"])


def deltas(scores: pd.DataFrame, by: str = "task", level: float = 0.90) -> pd.DataFrame:
    """Paired differences to ``base`` after training with the same seed.

    Args:
        scores: the frame of ``study.scores()``.
        by: 'task', 'type' or 'suite': what is averaged (tasks with equal weight).
        level: of the interval, for new tasks and new seeds where there are several of both
            (:func:`realign.stats.hierarchical_interval`), else for new seeds.

    Returns:
        Frame with role, suite, [type, task], tasks, seeds, delta, sd (over seeds), low, high in score
        points. A single seed leaves sd and the interval NaN: the variance of training is then
        unidentified. A failed task leaves everything NaN that it is part of.
    """
    keys = {"suite": ["suite"], "type": ["suite", "type"], "task": ["suite", "type", "task"]}[by]
    rows = []
    table = _differences(scores)
    for place, part in table.groupby(level=["role", *keys], sort=False) if not table.empty else ():
        values = part.to_numpy(dtype=np.float64)
        several = values.shape[1] > 1
        known = several and bool(np.isfinite(values).all())
        low, high = stats.hierarchical_interval(values, level=level) if known else (math.nan, math.nan)
        sd = float(values.mean(axis=0).std(ddof=1)) if several else math.nan
        head = dict(zip(["role", *keys], place, strict=True))
        rows.append(
            {**head, "tasks": len(values), "seeds": values.shape[1]}
            | {"delta": float(values.mean()), "sd": sd, "low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=["role", *keys, "tasks", "seeds", "delta", "sd", "low", "high"])


def equivalence(scores: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Test each sibling against ``base`` in each suite (:func:`realign.stats.delta_table`), as text.

    Args:
        scores: the frame of ``study.scores()``.
        margin: equivalence margin in points.

    Returns:
        Suite ('all' is every task), sibling, difference with its 90% interval, p of "no difference",
        p of "at least the margin apart" (TOST), the answer, tasks and seeds. A suite with a failed task
        is left to the table of failures, and so is 'all'.
    """
    trained = task_scores(scores).query("model == 'emb'")
    whole = trained.groupby("suite")["score"].transform(lambda s: s.notna().all())
    if not whole.any() or set(trained["role"]) <= {"base"}:
        return pd.DataFrame(columns=["suite", "sibling", "difference"])
    found = stats.delta_table(trained[whole], margin=margin)
    rows = []
    for row in found[(found["group"] != "all") | bool(whole.all())].itertuples():
        answer = f"within ±{margin:g}" if row.equivalent else "not shown"
        rows.append(
            {"suite": row.group, "sibling": row.b, "difference": between(row.delta, row.low90, row.high90, 2)}
            | {"p, no difference": number(row.p, 3), "p, TOST": number(row.tost_p, 3)}
            | {
                "equivalent": answer if row.seeds > 1 else "open: one seed",
                "tasks": row.n,
                "seeds": row.seeds,
            }
        )
    return pd.DataFrame(rows)


def failures(scores: pd.DataFrame) -> pd.DataFrame:
    """List tasks without a score: model, role, seed, suite, task and the reason."""
    failed = scores[scores["score"].isna()]
    return failed[["model", "role", "seed", "suite", "task", "error"]].reset_index(drop=True)


def reading(read: pd.DataFrame) -> pd.DataFrame:
    """What one trained model read: instruction, texts, share cut off, empty texts, tokens, seconds.

    Args:
        read: the frame of ``study.reading()``.

    Returns:
        One row a task of the first trained base model, as text. Texts and tokens that an earlier task
        has read already are not read, and not counted, again.
    """
    mine = read[(read["model"] == "emb") & (read["role"] == "base")]
    mine = mine[mine["seed"] == mine["seed"].min()]
    cut = mine["truncated"] / mine["texts"].clip(lower=1)
    return pd.DataFrame(
        {
            "task": mine["task"],
            "instruction": mine["instruction"],
            "texts": mine["texts"].astype(int),
            "cut off %": [number(100 * share, 0) for share in cut],
            "empty": mine["empty"].astype(int),
            "tokens": mine["tokens"].astype(int),
            "seconds": [number(seconds, 1) for seconds in mine["seconds"]],
            "of which encoding": [number(seconds, 1) for seconds in mine["encode_seconds"]],
            "dtype": mine["dtype"],
        }
    )


def score_table(scores: pd.DataFrame, by: str = "suite") -> pd.DataFrame:
    """Mean scores by suite, type or task: base, siblings with their delta, and baselines.

    Returns:
        Numeric frame indexed by ``by``; for each sibling also "delta" and "sd" columns (over seeds).
    """
    keys = {"suite": ["suite"], "type": ["suite", "type"], "task": ["suite", "type", "task"]}[by]
    each = task_scores(scores)
    trained = (
        each.query("model == 'emb'").groupby([*keys, "role"])["score"].mean(skipna=False).unstack("role")
    )
    table = pd.DataFrame({"tasks": each.groupby(keys)["task"].nunique()})
    if "base" in trained:
        table["base"] = trained["base"]
    change = deltas(scores, by).set_index(keys)
    for role in [r for r in trained.columns if r != "base"]:
        mine = change[change["role"] == role]
        table[role] = trained[role]
        table[f"{role} delta"], table[f"{role} sd"] = mine["delta"], mine["sd"]
    for label, rows in _baselines(each).items():
        groups = rows.groupby(keys)
        covered = groups["task"].nunique().reindex(table.index)
        # A mean over fewer tasks would mislead beside the others.
        table[label] = (
            groups["score"].mean(skipna=False).reindex(table.index).where(covered == table["tasks"])
        )
    return table


def type_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over the task types of each suite, of the same shape as :func:`score_table` by suite.

    A delta is the mean of the types' deltas; its standard deviation over seeds is not given.
    """
    table = score_table(scores, by="type")
    table.loc[:, [c for c in table.columns if c.endswith(" sd")]] = math.nan
    means = table.groupby(level="suite", sort=False).agg(lambda column: column.mean(skipna=False))
    return means.assign(tasks=table.groupby(level="suite", sort=False).size()).rename(
        columns={"tasks": "types"}
    )


def _baselines(each: pd.DataFrame) -> dict[str, pd.DataFrame]:
    untrained = each[(each["model"] == "untrained") & (each["role"] == "base")]
    parts = {"untrained base": untrained, "BM25": each[each["model"] == "bm25"]}
    parts[yardstick.NAME] = each[each["model"] == "yardstick"]
    parts["random vectors"] = each[each["model"] == "random"]
    return {label: rows for label, rows in parts.items() if not rows.empty}


def display_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`score_table` as text: ``Δ reason`` is mean ± standard deviation over seeds."""
    shown = pd.DataFrame(index=table.index)
    for column in table.columns:
        if column.endswith(" sd"):
            continue
        if column.endswith(" delta"):
            role = column.removesuffix(" delta")
            pairs = zip(table[column], table[f"{role} sd"], strict=True)
            shown[f"Δ {role}"] = [signed(d, s) for d, s in pairs]
        elif column in ("tasks", "types"):
            if (table[column] > 1).any():
                shown[column] = table[column].astype(int)
        else:
            shown[column] = [number(v, 2) for v in table[column]]
    return shown.reset_index()
