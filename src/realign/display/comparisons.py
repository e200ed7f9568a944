"""The tables of RQ2 and RQ3: similarity of pairs of models, differences between pairs, probes."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from realign.display.format import (
    Table,
    Text,
    ceiling_name,
    intervals,
    number,
    p_value,
    pair_name,
    percent,
    show,
)
from realign.findings import similarity
from realign.hrsa import METRICS, Report
from realign.hrsa.metrics import id_title
from realign.hrsa.report import CALIBRATED

F1 = ("macro", "weighted")


def similarities(reports: similarity.Reports, ceilings: Mapping[str, Report] | None = None) -> Table:
    """Similarity of each pair and noise ceiling by metric, with 95% intervals: calibrated first, then as measured.

    Calibrated is 0 where texts are unrelated and 1 for a replicate of the model. Layers where a rotation is not
    determined are left out of its mean, and counted.
    """
    named = {pair_name(pair): report for pair, report in reports.items()}
    named |= {ceiling_name(name): report for name, report in (ceilings or {}).items()}
    rows = similarity.similarity(named)
    shares = rows[list(CALIBRATED)].set_axis(["value", "low", "high"], axis=1)
    rows = rows.assign(text=intervals(rows), share=intervals(shares))
    rows["share"] = rows["share"].where(rows["flag"] == "", rows["flag"])
    keys = ["models", "metric", "variant"]
    table = rows.pivot(index=keys, columns=["estimator", "at"], values=["share", "text"])
    table = table.reindex(pd.MultiIndex.from_frame(rows[keys].drop_duplicates()))
    order = {
        "calibrated, mean over layers": ("share", "reference", "mean"),
        "calibrated, last layer": ("share", "reference", "last"),
        "mean over layers": ("text", "reference", "mean"),
        "last layer": ("text", "reference", "last"),
        "paper estimator, mean": ("text", "paper", "mean"),
    }
    shown = pd.DataFrame({title: table.get(column) for title, column in order.items()}, index=table.index)
    left_out = rows.groupby(keys, sort=False)["undetermined"].max().reindex(table.index)
    titles = [_title(metric, text_set, out) for (_, metric, text_set), out in left_out.items()]
    return show(
        pd.DataFrame({"pair": [key[0] for key in table.index], "metric": titles}).join(
            shown.reset_index(drop=True)
        )
    )


def _title(metric: str, text_set: str, left_out: int) -> str:
    words = [METRICS[metric].title, text_set, f"without {left_out} layers of low rank" if left_out else ""]
    return ", ".join(filter(None, words))


def differences(reports: similarity.Reports) -> Table:
    """Similarity of the first pair minus that of the second, mean over layers, texts paired."""
    return show(_differences(reports).rename_axis("similarity").reset_index())


def _differences(reports: similarity.Reports) -> pd.DataFrame:
    """Difference and p as text, by metric."""
    if len(reports) < 2:
        return pd.DataFrame(columns=["difference", "p"])
    first, second = list(reports.values())[:2]
    rows = similarity.differences(first, second)
    texts = {"difference": intervals(rows, 4), "p": [p_value(p) for p in rows["p"]]}
    return pd.DataFrame(texts, index=[id_title(metric) for metric in rows["metric"]])


def modes(each: Mapping[str, similarity.Reports]) -> Table:
    """The same differences under every attention mode, one column a mode.

    Args:
        each: of ``study.drift.modes()``.
    """
    table = pd.DataFrame({mode: _differences(reports)["difference"] for mode, reports in each.items()})
    return show(table.rename_axis("first pair − second pair").reset_index())


def probes(reports: similarity.Reports, estimator: str = "reference") -> Table | Text:
    """Accuracy (%) of linear probes fitted on one model and read on the other, with floors."""
    rows = similarity.probes(reports, estimator)
    if rows.empty:
        return Text(similarity.NO_PROBE)
    shown = {"pair": [pair_name(pair) for pair in zip(rows["a"], rows["b"], strict=True)]}
    shown["probe"] = rows["source"] + " → " + rows["target"]
    shown["text set"] = rows["text_set"] + rows["flag"].map(lambda flag: f" ({flag})" if flag else "")
    shown["scaler"] = rows["scaler"]
    columns = {"accuracy %": ("accuracy", "low", "high")}
    columns |= {f"{f1} F1 %": (f"{f1}_f1", f"{f1}_f1_low", f"{f1}_f1_high") for f1 in F1}
    for title, names in columns.items():
        shown[title] = [percent(*row) for row in rows[list(names)].to_numpy()]
    shown["majority class %"] = [number(100 * value, 1) for value in rows["majority"]]
    return show(pd.DataFrame(shown))
