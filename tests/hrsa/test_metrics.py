"""The registry: what is declared of a metric holds, and what is computed is declared."""

from dataclasses import replace
from types import SimpleNamespace

import book_frames
import numpy as np
import pandas as pd
import pytest
from scipy.stats import ortho_group

from realign import hrsa
from realign.hrsa import metrics
from realign.hrsa.metrics import METRICS
from realign.hrsa.rows import metric_id, split_id

LAYERS, TEXTS, EACH, WIDTH = 2, 90, 5, 8
SETTINGS = SimpleNamespace(cka_tokens=TEXTS * EACH, knn_tokens=TEXTS * EACH, k=(5, 10), resamples=20, seed=0)
LABELS = np.arange(TEXTS) % 3


def model(states):
    """Activations whose text means are means of the states (layers, texts, tokens, width)."""
    values = np.asarray(states, dtype=np.float32)
    texts = np.repeat(np.arange(TEXTS), EACH)
    rows = np.arange(TEXTS * EACH)
    flat = values.reshape(LAYERS, -1, WIDTH)
    return hrsa.Activations(flat, texts, rows, rows % EACH, values.mean(2), np.arange(TEXTS, dtype=np.uint64))


def states():
    rng = np.random.default_rng(0)
    centres = 0.5 * rng.normal(size=(3, WIDTH))[LABELS][:, None]
    texts = rng.normal(size=(TEXTS, 1, WIDTH))
    a = (rng.normal(size=(LAYERS, TEXTS, EACH, WIDTH)) + texts + centres) * np.linspace(0.6, 2, WIDTH) + 0.5
    return a, a + 0.5 * rng.normal(size=a.shape)


def compared(a, b, **options):
    first, second = model(a), model(b)
    probe = hrsa.Probe(first.pooled[-1], second.pooled[-1], LABELS)
    return hrsa.compare_activations(first, second, SETTINGS, probes={"texts": probe}, **options)


@pytest.fixture(scope="module")
def report():
    return compared(*states())


RNG = np.random.default_rng(3)
ROTATION, ORDER = ortho_group.rvs(WIDTH, random_state=RNG), RNG.permutation(WIDTH)
SCALES, SHIFT = RNG.permutation(np.linspace(0.3, 3, WIDTH)), 0.8 * RNG.normal(size=WIDTH)
CHANGES = {
    "orthogonal": lambda x: x @ ROTATION,
    "axis permutation": lambda x: x[..., ORDER],
    "axis scaling": lambda x: x * SCALES,
    "isotropic scaling": lambda x: 4 * x,
    "translation": lambda x: x + SHIFT,
}


@pytest.fixture(scope="module")
def changed():
    a, b = states()
    return {name: (compared(change(a), b), compared(a, change(b))) for name, change in CHANGES.items()}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("change", CHANGES)
def test_declared_invariances_hold_and_what_is_not_declared_is_seen(report, changed, metric, change):
    plain = report.by_layer(metric)["value"].iloc[-1]
    moves = [abs(other.by_layer(metric)["value"].iloc[-1] - plain) for other in changed[change]]
    assert (max(moves) < 1e-4) == (change in METRICS[metric].invariances), moves


def test_every_metric_that_is_computed_is_registered_and_the_other_way_round(report):
    pairs = {tuple(row) for row in report.table[["metric", "estimator"]].to_numpy()}
    assert pairs == {(entry.name, e) for entry in METRICS.values() for e in entry.estimators}
    assert report.metrics == tuple(METRICS)
    assert all(name == entry.name for name, entry in METRICS.items())
    for entry in METRICS.values():
        assert entry.invariances <= set(CHANGES)
        assert set(entry.estimators) <= set(metrics.ESTIMATORS)
        assert bool(entry.sees) == bool(entry.misses)


def test_every_metric_is_one_for_a_model_with_itself_or_says_what_else():
    a, _ = states()
    report = compared(a, a)
    for metric in METRICS:
        value = report.by_layer(metric)["value"].iloc[-1]
        if metric == "probe_accuracy":  # as good as the own probe
            row = report.table.query("metric == 'probe_accuracy' and estimator == 'reference'").iloc[0]
            assert row["value"] == row["ceiling"] > row["null"]
        else:
            assert value == pytest.approx(0.0 if metric == "residual_variance" else 1.0, abs=1e-4), metric


@pytest.mark.parametrize("entry", METRICS.values(), ids=lambda entry: entry.name)
def test_a_metric_asked_for_alone_has_the_same_numbers(report, entry):
    alone = compared(*states(), metrics=[entry.name])
    assert entry.name in alone.metrics
    pd.testing.assert_frame_equal(alone.by_layer(entry.name), report.by_layer(entry.name))


def test_each_level_has_a_headline(report):
    assert {entry.level for entry in METRICS.values() if entry.headline} == set(metrics.Level.__args__)
    chosen = metrics.headlines(report.summary())
    assert chosen == [
        ("correlation", "last"),
        ("cka", "mean"),
        ("knn@10", "mean"),
        ("probe_transfer:texts", "mean"),
    ]
    assert metrics.headlines(compared(*states(), metrics=["r2"]).summary()) == []


@pytest.mark.parametrize("of", [{}, {"estimator": "paper"}])
def test_an_unknown_metric_is_an_error_and_so_is_one_that_was_not_measured(report, of):
    with pytest.raises(ValueError, match=r"unknown metric 'ckaa'; choose from correlation, r2"):
        report.by_layer("ckaa", **of)
    fewer = compared(*states(), metrics=["cka"])
    for metric in set(METRICS) - {"cka"}:
        with pytest.raises(ValueError, match=f"does not hold {metric} by the .* it holds cka"):
            fewer.by_layer(metric, **of)


def test_what_else_a_report_does_not_hold_is_an_error(report):
    with pytest.raises(ValueError, match="does not hold knn@7"):
        report.by_layer("knn", k=7)
    with pytest.raises(ValueError, match="does not hold r2:no_sinks"):
        report.by_layer("r2", variant="no_sinks")
    with pytest.raises(ValueError, match="unknown estimator 'best'"):
        report.by_layer("cka", "best")
    with pytest.raises(ValueError, match="no grid of knn; it has"):
        report.grid("knn")
    with pytest.raises(ValueError, match="'permutation_energy' has no influences"):
        hrsa.difference(report, report, "permutation_energy")
    with pytest.raises(ValueError, match="unknown metric 'toy'"):
        report.curve("toy@5")


def test_an_estimator_that_a_metric_does_not_have_is_read_by_the_one_that_it_has(report):
    for metric, other in (("correlation", "paper"), ("permutation_energy", "reference")):
        has = METRICS[metric].estimators[0]
        pd.testing.assert_frame_equal(report.by_layer(metric, other), report.by_layer(metric, has))


def test_the_reference_reading_takes_the_metrics_own_variant_and_the_middle_k(report):
    rows = report.table.query("metric == 'cka' and estimator == 'reference' and variant == 'no_sinks'")
    np.testing.assert_array_equal(report.by_layer("cka")["value"], rows["value"])
    rows = report.table.query("metric == 'cka' and estimator == 'paper' and variant == ''")
    np.testing.assert_array_equal(report.by_layer("cka", "paper")["value"], rows["value"])
    rows = report.table.query("metric == 'knn' and estimator == 'reference' and variant == '' and k == 10")
    np.testing.assert_array_equal(report.by_layer("knn")["value"], rows["value"])


def toy(pair):
    rows = hrsa.Rows()
    values = np.arange(len(pair.picked), dtype=float) / 10
    influence = np.tile(np.linspace(-1, 1, pair.texts) / 100, (len(pair.picked), 1))
    ends = pair.interval("toy", "reference", values, influence)
    rows.add("toy", "reference", pair.picked, values, ends, null=0.5, influence=influence)
    rows.add("toy", "paper", pair.picked, -values, pair.interval("toy", "paper", -values, influence))
    return rows


def test_a_new_metric_is_one_entry_and_appears_in_table_summary_difference_and_titles(monkeypatch, tmp_path):
    entry = metrics.Metric(
        "toy", "function", "toy number", toy, sees="toys", misses="the rest", headline="mean"
    )
    monkeypatch.setitem(METRICS, "toy", entry)
    first, second = compared(*states()), compared(*states(), metrics=["toy", "cka"])
    for report in (first, second):
        assert "toy" in report.metrics
        np.testing.assert_allclose(report.by_layer("toy")["value"], [0, 0.1])
        np.testing.assert_allclose(report.by_layer("toy", "paper")["value"], [0, -0.1])
        lines = report.summary().query("metric == 'toy'").set_index("at")
        assert lines.loc["mean", "value"] == pytest.approx(0.05)
        assert lines.loc["last", "value"] == pytest.approx(0.1)
        assert (lines["low"] < lines["value"]).all()
        assert ("toy", "mean") in metrics.headlines(report.summary())
    assert set(hrsa.by_layer(second)["metric"]) == {"toy", "cka", "cka:no_sinks", "cka:standardised"}
    gap = hrsa.difference(first, second, "toy", layer=1)
    assert gap.value == gap.low == gap.high == 0
    other = replace(second, table=second.table.assign(value=second.table["value"] + 1))
    assert hrsa.difference(other, first, "toy").value == pytest.approx(1)
    first.save(tmp_path)
    pd.testing.assert_frame_equal(hrsa.Report.load(tmp_path).by_layer("toy"), first.by_layer("toy"))
    assert metrics.id_title("toy", "last") == "toy number, last layer"


def test_ids_are_read_as_they_are_written():
    for name, parts in {
        "cka": ("cka", "", 0),
        "cka:no_sinks": ("cka", "no_sinks", 0),
        "knn@10": ("knn", "", 10),
        "knn@10:text": ("knn", "text", 10),
    }.items():
        assert split_id(name) == parts
        assert metric_id(*parts) == name


def test_ids_are_written_in_words():
    titles = {
        "cka": "debiased CKA, all tokens",
        "cka:no_sinks": "debiased CKA, without sinks",
        "knn@10": "corrected k-NN overlap, k = 10",
        "r2": "Procrustes R², held out",
        "correlation": "dimension-wise correlation (r)",
    }
    assert {name: metrics.id_title(name) for name in titles} == titles
    assert metrics.id_title("knn@5", "mean") == "k-NN overlap, k = 5, mean over layers"
    assert metrics.id_title("probe_transfer", "mean") == "probe transfer ratio"


def test_the_id_of_a_metric_is_that_of_its_reference_reading() -> None:
    report = book_frames.report(0.9)
    report.influence = dict.fromkeys(
        ["cka", "cka:no_sinks", "knn@50", "knn@5", "knn@10", "knn@10:text", "r2"], np.zeros((7, 4))
    )
    assert report.reference_id("cka") == "cka:no_sinks"
    assert report.reference_id("knn") == "knn@10"
    assert report.reference_id("r2") == "r2"
    del report.influence["cka:no_sinks"]
    assert report.reference_id("cka") == "cka"
