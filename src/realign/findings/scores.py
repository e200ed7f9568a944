"""RQ1 in numbers: mean scores, paired differences to base, their equivalence, and what training added.

Functions read the frame of ``study.evaluate.scores()`` and return numbers in score points (0-100);
:mod:`realign.display.tables` turns them into text.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from realign import stats

KEYS = {"suite": ["suite"], "type": ["suite", "type"], "task": ["suite", "type", "task"]}
"""What a table by suite, type or task is grouped by."""
BASELINES = {
    "untrained": "untrained base",
    "bm25": "BM25",
    "yardstick": "all-MiniLM-L6-v2",
    "random": "random vectors",
}
"""Names of the models that are no trained siblings, by their value in the column ``model``."""


def task_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return one score (0-100) for each model, role, seed, suite, type and task.

    Subsets of a task (languages, say) are averaged with equal weight. A subset that failed (NaN) makes
    its task, and every mean with that task, NaN: a mean over what happened to work would mislead.
    """
    keys = ["model", "role", "seed", "suite", "type", "task"]
    filled = scores.assign(role=scores["role"].fillna(""))
    return filled.groupby(keys)["score"].mean(skipna=False).reset_index()


# ---------------------------------------------------------------------------- differences to base
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
        scores: the frame of ``study.evaluate.scores()``.
        by: 'task', 'type' or 'suite': what is averaged (tasks with equal weight).
        level: of the interval, for new tasks and new seeds where there are several of both
            (:func:`realign.stats.hierarchical_interval`), else for new seeds.

    Returns:
        Frame with role, suite, [type, task], tasks, seeds, delta, sd (over seeds), low, high in score
        points. A single seed leaves sd and the interval NaN: the variance of training is then
        unidentified. A failed task leaves everything NaN that it is part of.
    """
    keys = KEYS[by]
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
    """Test each sibling against ``base`` in each suite (:func:`realign.stats.paired`).

    Args:
        scores: the frame of ``study.evaluate.scores()``.
        margin: equivalence margin in points.

    Returns:
        Frame with suite ('all' is every task), sibling, delta, low and high (90%), p of "no difference",
        tost_p of "at least the margin apart", equivalent, tasks and seeds. A suite with a failed task is
        left out, and so is then 'all'.
    """
    trained = task_scores(scores).query("model == 'emb'")
    siblings = [role for role in pd.unique(trained["role"]) if role not in ("", "base")]
    rows = []
    for suite, part in [("all", trained), *trained.groupby("suite", sort=False)]:
        roles = set(part["role"])
        if part["score"].isna().any() or "base" not in roles:
            continue
        for sibling in (role for role in siblings if role in roles):
            test = stats.paired(part, "base", sibling, margin)
            rows.append(
                {"suite": suite, "sibling": sibling, "delta": test.delta}
                | {"low": test.low90, "high": test.high90, "p": test.p, "tost_p": test.tost_p}
                | {"equivalent": test.equivalent, "tasks": test.n, "seeds": test.seeds}
            )
    columns = ["suite", "sibling", "delta", "low", "high", "p", "tost_p", "equivalent", "tasks", "seeds"]
    return pd.DataFrame(rows, columns=columns)


# ---------------------------------------------------------------------------- mean scores
def failures(scores: pd.DataFrame) -> pd.DataFrame:
    """List tasks without a score: model, role, seed, suite, task and the reason."""
    failed = scores[scores["score"].isna()]
    return failed[["model", "role", "seed", "suite", "task", "error"]].reset_index(drop=True)


def score_table(scores: pd.DataFrame, by: str = "suite") -> pd.DataFrame:
    """Mean scores by suite, type or task: base, siblings with their delta, and baselines.

    Returns:
        Numeric frame indexed by ``by``; for each sibling also "delta" and "sd" columns (over seeds).
    """
    keys = KEYS[by]
    each = task_scores(scores)
    trained = each.query("model == 'emb'").groupby([*keys, "role"])["score"].mean(skipna=False)
    means = trained.unstack("role")
    table = pd.DataFrame({"tasks": each.groupby(keys)["task"].nunique()})
    if "base" in means:
        table["base"] = means["base"]
    change = deltas(scores, by).set_index(keys)
    for role in [r for r in means.columns if r != "base"]:
        mine = change[change["role"] == role]
        table[role] = means[role]
        table[f"{role} delta"], table[f"{role} sd"] = mine["delta"], mine["sd"]
    for model, name in BASELINES.items():
        rows = each[each["model"] == model]
        if model == "untrained":
            rows = rows[rows["role"] == "base"]
        if rows.empty:
            continue
        groups = rows.groupby(keys)
        covered = groups["task"].nunique().reindex(table.index)
        # A mean over fewer tasks would mislead beside the others.
        mean = groups["score"].mean(skipna=False).reindex(table.index)
        table[name] = mean.where(covered == table["tasks"])
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


# ---------------------------------------------------------------------------- what training added
def gains(scores: pd.DataFrame, level: float = 0.90) -> pd.DataFrame:
    """What contrastive learning adds: each trained role against its own untrained backbone, by suite.

    Returns:
        Frame with suite, role, untrained, trained, gain, low, high (interval of the gain over seeds, NaN
        with one seed or where a task failed), seeds, better (seeds whose model scores higher). Scores are means over tasks.
    """
    each = task_scores(scores)
    means = each.groupby(["model", "role", "seed", "suite"])["score"].mean(skipna=False)
    rows = []
    for (role, suite), group in means.get("emb", means.iloc[:0]).groupby(level=["role", "suite"]):
        if ("untrained", role, -1, suite) not in means.index:
            continue
        before = float(means.loc[("untrained", role, -1, suite)])
        gain = group.to_numpy() - before
        failed = np.isnan(gain).any()  # a task of one of the models
        low, high = (math.nan, math.nan) if failed else stats.t_interval(gain, level)
        rows.append(
            {"suite": suite, "role": role, "untrained": before, "trained": float(group.mean(skipna=False))}
            | {"gain": float(gain.mean()), "low": low, "high": high}
            | {"seeds": len(gain), "better": int((gain > 0).sum())}
        )
    columns = ["suite", "role", "untrained", "trained", "gain", "low", "high", "seeds", "better"]
    return pd.DataFrame(rows, columns=columns).sort_values(["suite", "role"], ignore_index=True)


def against_bm25(scores: pd.DataFrame) -> pd.DataFrame:
    """Trained models against BM25, tasks with the least word overlap first.

    BM25 counts shared words and nothing else, so its score says how far shared words lead in a task.

    Returns:
        Frame indexed by task with BM25 and the mean of each trained role over seeds, sorted by BM25.
    """
    each = task_scores(scores)
    bm25 = each[each["model"] == "bm25"].set_index("task")["score"].rename(BASELINES["bm25"])
    trained = each[each["model"] == "emb"].groupby(["task", "role"])["score"].mean(skipna=False)
    table = pd.concat([bm25, trained.unstack("role")], axis=1, join="inner")
    return table.sort_values(bm25.name).rename_axis("task")
