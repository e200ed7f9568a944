"""The tables of RQ4: how siblings were tuned, how they behave, and how far their representations went."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from realign.display.format import between, number, percent
from realign.display.metrics import headline, metric_title


def siblings_table(study: Any) -> pd.DataFrame:
    """How each followed role was tuned, as the registry or the profile has it: one row a role.

    A sibling that others tuned has a source and nothing more.
    """
    family = study.models.family
    rows = []
    for role in study.models.followed:
        if study.models.tuned_by_others(role):
            rows.append({"role": role, "method": f"tuned by others: {family.roles[role].source}"})
            continue
        settings = study.models.tuning(role)
        rlvr = settings.method == "rlvr"
        reward = {"verifier": "right or wrong", "random": "a coin"}[settings.reward] if rlvr else "–"
        rows.append(
            {"role": role, "method": settings.method.upper(), "reward": reward, "steps": settings.steps}
            | {"problems a step": settings.prompts if rlvr else settings.batch_size}
            | {"answers a problem": settings.completions if rlvr else 1}
            | {"a completion is": {"answer": "the answer", "working": "working, then answer"}[settings.style]}
            | {"seed": settings.seed}
        )
    return pd.DataFrame(rows, dtype=object).fillna("–")


def policy_table(policy: pd.DataFrame) -> pd.DataFrame:
    """Behaviour of each checkpoint: accuracy (%) with 95% intervals, entropy and KL in nats a token.

    Step 0 is the base; a sibling tuned in another style has a step 0 of its own, the base asked in that style.
    """
    rows = []
    for _, row in policy.sort_values(["role", "step"]).iterrows():
        rows.append(
            {"role": row["role"], "step": int(row["step"])}
            | {f"{mode} accuracy %": _accuracy(row, mode) for mode in ("greedy", "sampled")}
            | {"entropy": number(row["entropy"], 3), "KL to base": number(row["kl"], 4), "n": int(row["n"])}
        )
    return pd.DataFrame(rows)


def drift_table(drift: pd.DataFrame) -> pd.DataFrame:
    """Similarity to base of each checkpoint, with 95% intervals: the headline metrics as columns."""
    chosen = {metric: metric_title(metric) for metric in headline(drift)}
    rows = drift[drift["metric"].isin(chosen)]
    rows = rows.assign(text=[between(r[0], r[1], r[2]) for r in rows[["value", "low", "high"]].to_numpy()])
    rows = rows.assign(metric=rows["metric"].map(chosen))
    table = rows.pivot_table(index=["role", "step"], columns="metric", values="text", aggfunc="first")
    return table[list(chosen.values())].rename_axis(columns=None).reset_index()


def matched_table(policy: pd.DataFrame, drift: pd.DataFrame, role: str = "reason") -> pd.DataFrame:
    """Each role at its end, near the last step that all reach, and where it is as accurate as ``role`` at its end.

    So that representations are compared at equal behaviour as well as at equal tuning. A row a role and
    way of matching: step, greedy accuracy, KL, the headline similarities, and 1 - CKA per nat of KL.
    """
    mine = policy[policy["role"] == role]
    if mine.empty or drift.empty:
        return pd.DataFrame()
    end = mine.loc[mine["step"].idxmax()]
    tuned = policy[policy["step"] > 0].groupby("role", sort=False)
    common = tuned["step"].max().min()
    rows = []
    for other, path in tuned:
        ways = {"the end": -path["step"], "steps": (path["step"] - common).abs()}
        ways["accuracy"] = (path["accuracy_greedy"] - end["accuracy_greedy"]).abs()
        for way, gap in ways.items():
            at = path.loc[gap.idxmin()]
            there = drift[(drift["role"] == other) & (drift["step"] == at["step"])].set_index("metric")
            moved = (1 - there.loc["cka_mean", "value"]) / at["kl"] if at["kl"] > 0 else math.nan
            rows.append(
                {"matched on": way, "role": other, "step": int(at["step"])}
                | {"greedy accuracy %": _accuracy(at, "greedy"), "KL to base": number(at["kl"], 3)}
                | {metric_title(m): between(*there.loc[m, ["value", "low", "high"]]) for m in headline(drift)}
                | {"(1 − CKA) / KL": number(moved, 4)}
            )
    order = ["the end", "steps", "accuracy"]
    return pd.DataFrame(rows).sort_values(
        "matched on", key=lambda c: c.map(order.index), ignore_index=True, kind="stable"
    )


def updates_table(updates: pd.DataFrame) -> pd.DataFrame:
    """Median over matrices, with the middle half: size, effective rank, share moved and overlaps with the base."""
    rows = []
    for role, mine in updates.groupby("role", sort=False):
        quartile = mine.drop(columns=["module", "role"]).quantile([0.25, 0.5, 0.75])

        def shown(column: str, digits: int, scale: float = 1, q: pd.DataFrame = quartile) -> str:
            low, value, high = (scale * q[column]).tolist()
            return between(value, low, high, digits)

        rows.append(
            {"role": role, "update / weight": shown("size", 4), "effective rank": shown("rank", 2)}
            | {"moved in bfloat16 %": shown("moved", 1, 100)}
            | {"output directions in the base's": shown("base_left", 3)}
            | {"chance": number(float(quartile["base_left_chance"].iloc[1]), 3)}
        )
    return pd.DataFrame(rows)


def landscape_table(measures: pd.DataFrame) -> pd.DataFrame:
    """Landscape and trajectories with 95% intervals, and the base against itself."""
    shown = measures.assign(
        text=[between(*row) for row in measures[["value", "low", "high"]].to_numpy()],
        base=[number(v, 3) for v in measures["null"]],
    )
    table = shown.pivot_table(
        index=["domain", "measure", "base"], columns="role", values="text", aggfunc="first", sort=False
    )
    return table.rename_axis(columns=None).reset_index().rename(columns={"base": "base against itself"})


def _accuracy(row: pd.Series, mode: str) -> str:
    name = f"accuracy_{mode}"
    return percent(*(float(row.get(c, math.nan)) for c in (name, f"{name}_low", f"{name}_high")))
