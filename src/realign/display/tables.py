"""Everything a chapter shows as a table, and the numbers that figures and verdicts share.

Functions read the tidy frames of :mod:`realign.study` and :class:`realign.hrsa.Report`; nothing is
computed from a model here. The tables of scores are made in :mod:`realign.findings.scores`, those of RQ4 in
:mod:`realign.findings.mechanism`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from realign.display.format import between, number, percent
from realign.display.format import show as show  # what notebooks end a table with
from realign.display.metrics import METRICS, influence_title
from realign.findings.mechanism import drift_table as drift_table  # a chapter's tables are all found here
from realign.findings.mechanism import landscape_table as landscape_table
from realign.findings.mechanism import matched_table as matched_table
from realign.findings.mechanism import policy_table as policy_table
from realign.findings.mechanism import siblings_table as siblings_table
from realign.findings.mechanism import updates_table as updates_table
from realign.findings.scores import deltas as deltas
from realign.findings.scores import display_scores as display_scores
from realign.findings.scores import equivalence as equivalence
from realign.findings.scores import failures as failures
from realign.findings.scores import reading as reading
from realign.findings.scores import score_table as score_table
from realign.findings.scores import task_scores as task_scores
from realign.findings.scores import type_means as type_means

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


# ---------------------------------------------------------------------------- provenance
def provenance(study: Any) -> pd.DataFrame:
    """What the cells above have read: one row an artifact, with how and when it was computed."""
    frame = study.provenance()
    if frame.empty:
        return frame
    return frame.assign(seconds=frame["seconds"].round(1)).sort_values(
        ["stage", "artifact"], ignore_index=True
    )
