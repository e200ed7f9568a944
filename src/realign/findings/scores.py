"""RQ1 in numbers: mean scores, paired differences to base, their equivalence, and what training added.

Functions read the frame of ``study.evaluate.scores()`` and return numbers in score points (0-100);
:mod:`realign.display.tables` turns them into text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from realign import stats
from realign.config.naming import arm

KEYS = {"suite": ["suite"], "type": ["suite", "type"], "task": ["suite", "type", "task"]}
"""What a table by suite, type or task is grouped by."""
BASELINES = {
    "untrained": "untrained base",
    "bm25": "BM25",
    "yardstick": "all-MiniLM-L6-v2",
    "random": "random vectors",
}
"""Names of the models that are no trained siblings, by their value in the column ``model``."""
EQUIVALENCE_COLUMNS = (
    *("suite", "arm", "delta", "low", "high", "freedom", "tost_p", "equivalent", "queries", "seeds", "runs"),
    *("tasks", "models", "identified", "new_low", "new_high", "note"),
)


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
    """Paired differences to ``base`` after training with the same seed, one row a role.

    Args:
        scores: the frame of ``study.evaluate.scores()``.
        by: 'task', 'type' or 'suite': what is averaged (tasks with equal weight).
        level: of the interval over seeds.

    Returns:
        Frame with role, suite, [type, task], tasks, seeds, delta, sd (over seeds), low, high in score points. The
        interval speaks of new seeds alone (:func:`equivalence` knows queries and tuning runs too). A single seed
        leaves sd and the interval NaN: the variance of training is then unidentified. A failed task leaves
        everything NaN that it is part of.
    """
    keys = KEYS[by]
    rows = []
    table = _differences(scores)
    for place, part in table.groupby(level=["role", *keys], sort=False) if not table.empty else ():
        means = part.to_numpy(dtype=np.float64).mean(axis=0)
        known = len(means) > 1 and bool(np.isfinite(means).all())
        low, high = stats.t_interval(means, level) if known else (math.nan, math.nan)
        sd = float(means.std(ddof=1)) if len(means) > 1 else math.nan
        head = dict(zip(["role", *keys], place, strict=True))
        rows.append(
            {**head, "tasks": len(part), "seeds": len(means)}
            | {"delta": float(means.mean()), "sd": sd, "low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=["role", *keys, "tasks", "seeds", "delta", "sd", "low", "high"])


def trained_scores(scores: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Scores of the trained models as :func:`realign.stats.panel.panel` takes them: arm, run, seed, suite, task, query, score.

    A task's own score (a row without a query) is what counts; those of its queries give the noise.

    Args:
        scores: the frame of ``study.evaluate.scores()``.
        items: the frame of ``study.evaluate.items()``; empty leaves the noise of queries unknown.
    """
    columns = ["role", "seed", "suite", "task", "query", "score"]
    parts = [task_scores(scores).query("model == 'emb'").assign(query="")[columns]]
    if not items.empty:
        single = items[items["model"] == "emb"]
        name = single["subset"].fillna("").astype(str) + "/" + single["item"].astype(str)
        parts.append(single.assign(query=name, score=100 * single["value"])[columns])
    frame = pd.concat(parts, ignore_index=True)
    role = frame.pop("role")
    return frame.assign(arm=role.map(arm), run=role.where(role != "base", ""))


def _by_suite(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield all tasks, then those of each suite; without those that a failed task is part of, or where base is missing."""
    for suite, part in [("all", frame), *frame.groupby("suite", sort=False)]:
        if not part["score"].isna().any() and (part["arm"] == "base").any():
            yield suite, part


def equivalence(scores: pd.DataFrame, items: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Test each arm against ``base`` on the fixed tasks of each suite (:func:`realign.stats.suite_difference`).

    Queries, contrastive seeds and tuning runs are random. ``new_low`` and ``new_high`` answer the other question, about
    new tasks (:func:`realign.stats.new_tasks_interval`).

    Args:
        scores: the frame of ``study.evaluate.scores()``.
        items: the frame of ``study.evaluate.items()``.
        margin: equivalence margin in points.

    Returns:
        Frame with suite ('all' is every task), arm, delta, low and high (90%), freedom, tost_p of "at least the margin
        apart", equivalent, queries, seeds and runs (their shares of the variance), tasks, models, identified (whether
        training noise is known), new_low, new_high, note. A suite with a failed task is left out, and so is then 'all'.
    """
    rows = []
    for suite, part in _by_suite(trained_scores(scores, items)):
        for name in (name for name in pd.unique(part["arm"]) if name != "base"):
            both = part[part["arm"].isin(("base", name))]
            test = stats.suite_difference(both, "base", name, margin)
            several = test.seed_identified and test.n > 1
            new = (
                stats.new_tasks_interval(both, "base", name, level=0.90) if several else (math.nan, math.nan)
            )
            models = both.loc[both["arm"] == name, ["run", "seed"]].drop_duplicates()
            rows.append(
                {"suite": suite, "arm": name, "delta": test.delta, "low": test.low90, "high": test.high90}
                | {"freedom": test.freedom, "tost_p": test.tost_p, "equivalent": test.equivalent}
                | {"queries": test.queries, "seeds": test.seeds, "runs": test.runs, "tasks": test.n}
                | {"models": len(models), "identified": test.seed_identified}
                | {"new_low": new[0], "new_high": new[1], "note": test.note}
            )
    return pd.DataFrame(rows, columns=list(EQUIVALENCE_COLUMNS))


def excess_shift(scores: pd.DataFrame, items: pd.DataFrame, first: str, second: str) -> stats.Excess | None:
    """How much more the tasks of all suites shift apart in the second arm than in the first, beyond noise, in squared points.

    See :func:`realign.stats.excess_variance`; None where a task failed, an arm is missing or training noise is unknown.
    """
    frame = trained_scores(scores, items)
    counts = frame[["arm", "run", "seed"]].drop_duplicates()["arm"].value_counts()
    if frame["score"].isna().any() or any(counts.get(name, 0) < 2 for name in ("base", first, second)):
        return None
    return stats.excess_variance(frame, "base", first, second, level=0.90)


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
