"""How the metrics of HRSA are named in tables and figures, and which of them stand for a level."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

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
