"""Everything a chapter shows as a table, and the numbers that figures and verdicts share.

Functions read the tidy frames of :mod:`realign.pipeline` and :class:`realign.hrsa.Report`; nothing is
computed from a model here. The tables of scores are made in :mod:`realign.scores`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from realign.scores import deltas as deltas  # a chapter's tables are all found here
from realign.scores import display_scores as display_scores
from realign.scores import equivalence as equivalence
from realign.scores import failures as failures
from realign.scores import reading as reading
from realign.scores import score_table as score_table
from realign.scores import task_scores as task_scores
from realign.scores import type_means as type_means
from realign.writing import between, number, percent
from realign.writing import show as show  # what notebooks end a table with

METRICS = {
    "cka": "linear CKA",
    "knn": "k-NN overlap",
    "correlation": "dimension-wise correlation (r)",
    "r2": "Procrustes R²",
    "unrotated_r2": "R² without rotation",
    "rotated_correlation": "correlation after Procrustes (r)",
    "cosine": "cosine after Procrustes",
    "inverse_row_entropy": "inverse row entropy of O",
    "diagonal_energy": "share of O on its diagonal",
}
ESTIMATORS = ("reference", "paper")
F1 = ("macro", "weighted")


# ---------------------------------------------------------------------------- RQ1: training
def training_summary(logs: pd.DataFrame) -> pd.DataFrame:
    """Last row of each training run: role, seed, steps, loss, in-batch accuracy, tokens a second."""
    if logs.empty:
        return pd.DataFrame(columns=["role", "seed", "steps"])
    last = logs.sort_values("step").groupby(["role", "seed"], as_index=False).tail(1)
    names = {"step": "steps", "loss": "final loss", "accuracy": "in-batch accuracy"}
    columns = [c for c in ["role", "seed", *names, "tokens_per_second"] if c in last]
    shown = last[columns].rename(columns=names).reset_index(drop=True)
    return shown.round(3).rename(columns={"tokens_per_second": "tokens / s"})


# ---------------------------------------------------------------------------- RQ2-RQ4: similarity
def profile(report: Any, metric: str, estimator: str = "reference", k: int | None = None) -> pd.DataFrame:
    """Return one metric of a report by layer: layer, value, low, high (and null where it has one).

    Args:
        report: an HRSA report.
        metric: a name in :data:`METRICS`.
        estimator: 'reference' or 'paper'. Of CKA the reference reading leaves out sink tokens; of k-NN
            overlap it is the chance-corrected one, and the paper's is the Jaccard index.
        k: neighbours, for 'knn'; None takes the middle one that was computed.
    """
    columns = ["layer", "value", "low", "high", "null"]
    if metric == "correlation":
        frame = report.frame("correlation_diagonal")
    elif metric == "cka":
        frame = _estimator(report.frame("cka_diagonal"), estimator)
        variant = "no_sinks" if estimator == "reference" and "no_sinks" in set(frame["variant"]) else "all"
        frame = frame[frame["variant"] == variant]
    elif metric == "knn":
        frame = _estimator(report.frame("knn"), estimator)
        ks = sorted(set(frame["k"]))
        frame = frame[frame["k"] == (k if k is not None else ks[len(ks) // 2])]
        if estimator == "reference":
            frame = frame.assign(value=frame["corrected"], null=0.0)
        else:  # chance is known for the overlap fraction, not for the Jaccard index
            frame = frame.assign(value=frame["jaccard"])
    else:
        frame = _estimator(report.frame("procrustes"), estimator).query("quantity == @metric")
    frame = frame.sort_values("layer").reset_index(drop=True)
    for column in columns:
        if column not in frame:
            frame[column] = np.nan
    return frame[columns]


def map_distance(report: Any) -> dict[str, float]:
    """Distance of a report's two models as on the map of models: mean angle of debiased CKA over six layers.

    Returns:
        value, low and high in radians.
    """
    frame = (
        _estimator(report.frame("cka_diagonal"), "reference").query("variant == 'all'").sort_values("layer")
    )
    chosen = frame.iloc[np.linspace(0, len(frame) - 1, 6).round().astype(int)]
    angle = np.arccos(chosen[["value", "low", "high"]].clip(-1, 1)).mean()
    return {"value": angle["value"], "low": angle["high"], "high": angle["low"]}


def _estimator(frame: pd.DataFrame, estimator: str) -> pd.DataFrame:
    """Rows of an estimator; a quantity that only one estimator has is the same for both."""
    mine = frame[frame["estimator"] == estimator]
    return frame if mine.empty else mine


def similarity_table(
    reports: Mapping[tuple[str, str], Any], ceilings: Mapping[str, Any] | None = None, k: int | None = None
) -> pd.DataFrame:
    """Similarity of each pair and noise ceiling, with 95% intervals over texts: both estimators."""
    named = {pair_name(pair): report for pair, report in reports.items()}
    named |= {f"noise ceiling ({name})": report for name, report in (ceilings or {}).items()}
    rows = []
    for name, report in named.items():
        for metric in ("cka", "knn", "correlation", "r2", "inverse_row_entropy", "diagonal_energy"):
            reference, paper = (profile(report, metric, estimator, k) for estimator in ESTIMATORS)
            mean, last, in_sample = reference.mean(), reference.iloc[-1], paper.mean()
            rows.append(
                {"pair": name, "metric": METRICS[metric]}
                | {"mean over layers": between(mean["value"], mean["low"], mean["high"])}
                | {"last layer": between(last["value"], last["low"], last["high"])}
                | {"paper estimator, mean": between(in_sample["value"], in_sample["low"], in_sample["high"])}
            )
    return pd.DataFrame(rows)


def difference_table(reports: Mapping[tuple[str, str], Any]) -> pd.DataFrame:
    """Similarity of the first pair minus that of the second, mean over layers, texts paired.

    Above 0: the first pair is more alike. The interval is of the difference itself, so what both pairs
    share in a text cancels; p is two-sided.

    Raises:
        ValueError: the two reports have read different tokens.
    """
    from realign import hrsa

    columns = ["similarity", "difference", "p"]
    if len(reports) < 2:
        return pd.DataFrame(columns=columns)
    first, second = list(reports.values())[:2]
    rows = []
    for metric in first.influence:
        found = hrsa.difference(first, second, metric)
        difference = between(found["value"], found["low"], found["high"], 4)
        rows.append((influence_title(metric), difference, number(found["p"], 4)))
    return pd.DataFrame(rows, columns=columns)


def modes_table(modes: Mapping[str, Mapping[tuple[str, str], Any]]) -> pd.DataFrame:
    """The same differences under every attention mode, one column a mode.

    Args:
        modes: of ``study.attention_modes()``.
    """
    each = {mode: difference_table(reports).set_index("similarity") for mode, reports in modes.items()}
    table = pd.DataFrame({mode: frame["difference"] for mode, frame in each.items()})
    return table.rename_axis("first pair − second pair").reset_index()


def probe_table(reports: Mapping[tuple[str, str], Any], estimator: str = "reference") -> pd.DataFrame:
    """Accuracy (%) of linear probes fitted on one model and read on the other, with floors."""
    rows = []
    for (a, b), report in reports.items():
        frame = report.frame("probe" if estimator == "reference" else "probe_paper")
        for _, row in frame.iterrows():
            rows.append(
                {"pair": pair_name((a, b)), "probe": direction(row["direction"], a, b)}
                | {"scaler": row["scaler"]}
                | {"accuracy %": percent(row["accuracy"], row["low"], row["high"])}
                | {f"{a} F1 %": percent(*(row[f"{a}_f1{end}"] for end in ("", "_low", "_high"))) for a in F1}
                | {"majority class %": number(100 * row["majority"], 1)}
            )
    return pd.DataFrame(rows)


def direction(code: str, a: str, b: str) -> str:
    """Write a probe's direction ('a->b') with the names of the two models."""
    source, target = code.split("->")
    names = {"a": a, "b": b}
    return f"{names[source]} → {names[target]}"


def pair_name(pair: tuple[str, str]) -> str:
    """Return how a pair of roles is written everywhere."""
    return f"{pair[0]} – {pair[1]}"


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


def headline(drift: pd.DataFrame) -> list[str]:
    """Choose one metric a level: global, local (the middle k), basis, readout; as far as measured."""
    known = list(dict.fromkeys(drift["metric"]))
    local = sorted((m for m in known if m.startswith("knn@") and m.endswith("_mean")), key=_neighbours)
    wanted = ["cka_mean", *local[len(local) // 2 :][:1], "correlation_last", "probe_transfer"]
    return [metric for metric in wanted if metric in known]


def _neighbours(metric: str) -> int:
    return int(metric.removeprefix("knn@").split("_")[0])


def middle_k(metrics: Iterable[str]) -> str:
    """Return the 'knn@K' of the middle K among metrics."""
    found = sorted({m for m in metrics if m.startswith("knn@")}, key=_neighbours)
    return found[len(found) // 2]


def influence_title(metric: str) -> str:
    """Write the name of a metric that a report has influences for in words."""
    titles = {
        "cka": "debiased CKA, all tokens",
        "cka_no_sinks": "debiased CKA, without sinks",
        "procrustes_r2": "Procrustes R², held out",
        "inverse_row_entropy": METRICS["inverse_row_entropy"],
        "diagonal_energy": METRICS["diagonal_energy"],
        "correlation": METRICS["correlation"],
    }
    return titles.get(metric, metric.replace("knn@", "corrected k-NN overlap, k = "))


def metric_title(metric: str) -> str:
    """Write a drift metric's name in words."""
    if metric == "probe_transfer":
        return "probe transfer ratio"
    name, _, where = metric.rpartition("_")
    name = {"cka": "CKA", "procrustes_r2": "Procrustes R²"}.get(
        name, name.replace("knn@", "k-NN overlap, k = ")
    )
    return f"{name}, {'mean over layers' if where == 'mean' else 'last layer'}"


def _accuracy(row: pd.Series, mode: str) -> str:
    name = f"accuracy_{mode}"
    return percent(*(float(row.get(c, math.nan)) for c in (name, f"{name}_low", f"{name}_high")))


# ---------------------------------------------------------------------------- provenance
def provenance(study: Any) -> pd.DataFrame:
    """What the cells above have read: one row an artifact, with how and when it was computed."""
    frame = study.provenance()
    if frame.empty:
        return frame
    return frame.assign(seconds=frame["seconds"].round(1)).sort_values(
        ["stage", "artifact"], ignore_index=True
    )
