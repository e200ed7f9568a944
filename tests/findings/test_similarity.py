"""Similarity in numbers: what is read from reports, by the registry alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import book_frames
import numpy as np
import pandas as pd
import pytest

from realign.display import figures, tables
from realign.findings import similarity
from realign.findings.measures import MEASURES
from realign.hrsa import METRICS, Report
from realign.hrsa.report import CALIBRATED


def test_by_layer_reads_the_estimator_it_is_asked_for() -> None:
    report = book_frames.report(0.8)
    assert report.by_layer("knn", "reference", k=5)["value"].tolist() == pytest.approx([0.8] * 7)
    assert report.by_layer("knn", "paper", k=5)["value"].tolist() == pytest.approx([0.8 / 1.2] * 7)
    for metric in (m.name for m in METRICS.values() if m.level != "function"):
        frame = report.by_layer(metric)
        assert list(frame.columns) == ["layer", "value", "low", "high", "null", *CALIBRATED, "determined"], (
            metric
        )
        assert frame["layer"].tolist() == list(range(7)), metric


def test_headline_takes_one_metric_a_level_and_the_middle_k() -> None:
    ids = ["cka", "cka:no_sinks", "knn@5", "knn@50", "knn@10", "knn@10:text", "r2"]
    assert similarity.by_layer_ids(ids) == ["cka", "knn@10"]
    assert similarity.headline() == ["correlation", "cka", "knn"]


@pytest.fixture
def newcomer(monkeypatch: pytest.MonkeyPatch) -> str:
    """A metric that is registered and nothing else."""
    entry = replace(
        METRICS["cka"], name="newcomer", title="a new metric", estimate="", variant="", headline=""
    )
    monkeypatch.setitem(METRICS, "newcomer", entry)
    return "newcomer"


def test_a_registered_metric_appears_in_every_table_of_similarity(newcomer: str) -> None:
    def report(value: float) -> Report:
        made = book_frames.report(value)
        made.influence = {newcomer: np.full((book_frames.LAYERS, 4), 0.001, dtype=np.float32)}
        return made

    pairs = {("base", "reason"): report(0.9), ("base", "sft"): report(0.7)}
    shown = tables.similarities(pairs).frame.set_index(["pair", "metric"])
    assert shown.loc[("base – sft", "a new metric"), "mean over layers"] == "0.700 [0.693, 0.707]"
    assert (
        tables.differences(pairs).frame.set_index("similarity").loc["a new metric", "difference"]
        == "0.2000 [0.2000, 0.2000]"
    )


def test_what_was_not_computed_is_left_empty() -> None:
    report = book_frames.report(0.9)
    report.table = report.table[
        (report.table["metric"] != "probe_accuracy") | (report.table["estimator"] == "reference")
    ]
    rows = similarity.similarity({"x": report}).set_index(["metric", "estimator", "at"])["value"]
    assert rows["probe_accuracy", "reference", "last"] == pytest.approx(0.9)
    assert ("probe_accuracy", "paper", "last") not in rows.index
    shown = tables.similarities({("base", "x"): report}).frame.set_index("metric")
    assert pd.isna(shown.loc["probe accuracy", "paper estimator, mean"])


def without_probes() -> Report:
    report = book_frames.report(0.8)
    kept = {name: frame for name, frame in report.details.items() if not name.startswith("probe")}
    probes = report.table["metric"].str.startswith("probe")
    return replace(report, table=report.table[~probes], details=kept)


def test_classes_too_small_for_a_probe_are_said_and_cost_no_page() -> None:
    pair = {("base", "reason"): without_probes()}
    for estimator in ("reference", "paper"):
        assert similarity.probes(pair, estimator).empty
        assert str(tables.probes(pair, estimator)) == similarity.NO_PROBE
    drawn = figures.probes({"": pair}, ceilings={"": {"bfloat16": without_probes()}})
    assert [text.get_text() for text in drawn.texts] == [similarity.NO_PROBE]
    both = {**pair, ("base", "sft"): book_frames.report(0.7)}
    assert set(similarity.probes(both)["b"]) == {"sft"}
    assert len(figures.probes({"": both}).axes) == 1


def test_a_claim_about_probes_is_not_tested_where_there_are_none() -> None:
    study = SimpleNamespace(
        compare=SimpleNamespace(reports=lambda kind: {("base", "reason"): without_probes()})
    )
    assert MEASURES["backbone probe transfer to reason"](study) == []
