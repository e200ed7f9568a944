"""RQ4 in numbers: how siblings were tuned, what their behaviour and their weights did, at matched behaviour."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from realign.models import sources

if TYPE_CHECKING:
    from realign.study.models import Models

WAYS = ("the end", "steps", "accuracy", "KL on common text")
"""What checkpoints of different roles are matched on."""


def siblings(models: Models) -> pd.DataFrame:
    """How each followed role was tuned, as the registry or the profile has it: one row a role.

    Returns:
        Frame with role, source (of a sibling that others tuned, else ''), method ('rlvr', 'sft'), reward
        ('verifier', 'random'), steps, problems (a step), answers (a problem), style, seed; missing where it
        does not apply.
    """
    models.check_siblings()
    rows: list[dict[str, object]] = []
    for role in models.followed:
        if models.tuned_by_others(role):
            rows.append({"role": role, "source": sources.public_source(models.family.roles[role])})
            continue
        settings = models.tuning(role)
        row: dict[str, object] = {
            "role": role,
            "source": "",
            "method": settings.method,
            "steps": settings.steps,
        }
        if settings.method == "rlvr":
            row |= {"reward": settings.reward, "problems": settings.prompts, "answers": settings.completions}
        else:
            row |= {"problems": settings.batch_size, "answers": 1}
        rows.append(row | {"style": settings.style, "seed": settings.seed})
    columns = ["role", "source", "method", "reward", "steps", "problems", "answers", "style", "seed"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def matched(policy: pd.DataFrame, drift: pd.DataFrame, role: str = "reason") -> pd.DataFrame:
    """Each role at its end, near the last step that all reach, and where it is as accurate as ``role`` at its end, or as far from base.

    How far is the KL divergence from base on worked answers, which are the same texts for all roles of one style.

    So that representations are compared at equal behaviour as well as at equal tuning.

    Returns:
        Frame with matched (one of :data:`WAYS`), the columns of ``policy`` at that checkpoint, and moved:
        1 - CKA (all tokens, mean over layers) per nat of KL, NaN where there is no KL.
    """
    own = policy[policy["role"] == role]
    if own.empty or drift.empty:
        return pd.DataFrame()
    end = own.loc[own["step"].idxmax()]
    tuned = policy[policy["step"] > 0].groupby("role", sort=False)
    common = tuned["step"].max().min()
    cka = drift[(drift["metric"] == "cka") & (drift["at"] == "mean")].set_index(["role", "step"])["value"]
    rows = []
    for other, path in tuned:
        gaps = (
            -path["step"],
            (path["step"] - common).abs(),
            (path["accuracy_greedy"] - end["accuracy_greedy"]).abs(),
            (path["kl_task"] - end["kl_task"]).abs(),
        )
        for way, gap in zip(WAYS, gaps, strict=True):
            at = path.loc[gap.idxmin()]
            moved = (1 - cka[other, at["step"]]) / at["kl"] if at["kl"] > 0 else math.nan
            rows.append({"matched": way, **at, "moved": moved})
    table = pd.DataFrame(rows)
    return table.sort_values(
        "matched", key=lambda column: column.map(WAYS.index), ignore_index=True, kind="stable"
    )


def quartiles(frame: pd.DataFrame, by: str, column: str) -> pd.DataFrame:
    """Median of a column within each value of ``by`` as value, its middle half as low and high."""
    groups = frame.groupby(by, sort=False)[column]
    ends = {"value": groups.median(), "low": groups.quantile(0.25), "high": groups.quantile(0.75)}
    return pd.DataFrame(ends).reset_index()
