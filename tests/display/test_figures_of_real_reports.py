"""The pages read what the HRSA engine really writes: real reports of small synthetic activations."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import book_frames
import numpy as np
import pytest

from realign import hrsa
from realign.display import figures, tables, verdicts
from realign.findings import claims, similarity
from realign.hrsa import replicates
from realign.hrsa.metrics import ESTIMATORS
from realign.hrsa.rows import split_id

TEXTS, TOKENS, WIDTH, LAYERS = 40, 8, 12, 4
SETTINGS = SimpleNamespace(cka_tokens=320, knn_tokens=320, k=(5, 10), resamples=60, seed=0)


def activations(noise: float, seed: int) -> hrsa.Activations:
    """One shared model plus noise of the given size, so that more noise is less similar."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    rows = TEXTS * TOKENS
    text_ids = np.repeat(np.arange(TEXTS), TOKENS)
    labels = np.arange(TEXTS) % 2
    states = (
        shared.normal(size=(LAYERS, rows, WIDTH)) + 3 * labels[text_ids][None, :, None] * np.eye(WIDTH)[0]
    )
    states = (states + noise * own.normal(size=states.shape)).astype(np.float32)
    pooled = states.reshape(LAYERS, TEXTS, TOKENS, WIDTH).mean(axis=2)
    return hrsa.Activations(
        states,
        text_ids,
        np.arange(rows),
        np.tile(np.arange(TOKENS), TEXTS),
        pooled,
        np.arange(TEXTS, dtype=np.uint64),
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = activations(0.0, 1)

    def compared(noise: float, seed: int) -> hrsa.Report:
        other = activations(noise, seed)
        probe = hrsa.Probe(base.pooled[-1], other.pooled[-1], np.arange(TEXTS) % 2)
        report = hrsa.compare_activations(base, other, SETTINGS, probes={"docs": probe})
        folder: Path = tmp_path_factory.mktemp("report")
        report.save(folder)
        return hrsa.Report.load(folder)

    floor = hrsa.compare_activations(
        base,
        replicates.repaired(activations(0.05, 5), 0),
        SETTINGS,
        metrics=["cka", "knn", "r2", "correlation"],
    )
    before = {
        pair: replicates.calibrate(compared(noise, seed), floor, compared(0.05, 4))
        for pair, noise, seed in ((("base", "reason"), 0.1, 2), (("base", "sft"), 1.0, 3))
    }
    # One set of reports serves before, after and as the ceiling: this is about shapes, not about CL.
    ceilings = {"another seed": before["base", "reason"]}
    return book_frames.study(reports=lambda kind: before, ceilings=lambda kind: ceilings)


def test_every_similarity_figure_can_be_drawn(study: Any, tmp_path: Path) -> None:
    before = after = study.compare.reports("backbone")
    groups = {"backbones": before, "after CL": after}
    limits = {"bfloat16": before["base", "reason"], "another batch size": before["base", "sft"]}
    ceilings = dict.fromkeys(groups, limits)
    drawn = [
        figures.layer_heatmaps(groups, "cka", ceilings=ceilings),
        figures.layer_heatmaps({"": before}, "correlation"),
        *(figures.by_layer(groups, m, ceilings=ceilings) for m in ("cka", "r2", "correlation")),
        figures.neighbours(groups, ceilings=ceilings),
        figures.correlation_histograms(groups, ceilings=ceilings),
        figures.rotations(groups, ceilings=ceilings),
        figures.probes(groups, ceilings=ceilings),
        figures.sinks({"": before}),
        figures.before_after(before, after, [limits, limits]),
        figures.attention_modes({"bidirectional": before, "causal": after}),
    ]
    for number, figure in enumerate(drawn):
        figure.savefig(tmp_path / f"{number}.svg")


def test_every_metric_has_a_value_at_the_last_layer_with_an_interval(study: Any) -> None:
    for metric in ("cka", "knn", "correlation", "r2", "cosine", "inverse_row_entropy", "diagonal_energy"):
        last = study.compare.reports("backbone")["base", "reason"].by_layer(metric).iloc[-1]
        assert np.isfinite(last[["value", "low", "high"]].to_numpy(float)).all(), metric
        assert last["low"] <= last["value"] <= last["high"], metric


def test_tables_hold_no_missing_number(study: Any) -> None:
    similarity = tables.similarities(
        study.compare.reports("backbone"), study.compare.ceilings("embedding")
    ).frame
    assert len(similarity) == 3 * 8
    similarity = similarity.drop(columns=[c for c in similarity if c.startswith("calibrated")])
    assert not similarity.isin(["–", "nan"]).any().any()
    by_layer = similarity[~similarity["metric"].str.startswith("probe")]  # of the last layer alone
    assert by_layer.notna().all().all()
    for estimator in ESTIMATORS:
        probes = tables.probes(study.compare.reports("backbone"), estimator).frame
        assert not probes.isin(["–", "nan"]).any().any()


def test_differences_of_two_pairs_have_intervals_and_are_shown_for_every_mode(study: Any) -> None:
    pairs = study.compare.reports("backbone")
    table = tables.differences(pairs).frame.set_index("similarity")
    assert {
        "correlation",
        "cka",
        "knn",
        "r2",
        "inverse_row_entropy",
        "diagonal_energy",
        "probe_transfer",
    } == {split_id(name)[0] for name in similarity.differences(*pairs.values())["metric"]} - {
        "probe_accuracy"
    }
    value, low, high = map(
        float, re.findall(r"-?[\d.]+", table.loc["debiased CKA, without sinks", "difference"])
    )
    assert 0 < low < value < high  # reason was made with less noise than sft
    swapped = dict(reversed(list(pairs.items())))
    both = tables.modes({"bidirectional": pairs, "causal": swapped}).frame
    assert list(both.columns[1:]) == ["bidirectional", "causal"]
    assert (both["bidirectional"] != both["causal"]).all()


def test_verdicts_follow_the_similarities_that_were_put_in(study: Any) -> None:
    judged = claims.claims(study).set_index("claim")
    assert "wanted above 0.9: met" in verdicts.sentences(judged.loc["C2", "evidence"])[0]
    parts = verdicts.sentences(judged.loc["C5", "evidence"])
    assert ": met (" in parts[0]  # CKA of sft is lower, texts paired
    assert ": met (" in parts[1]  # and so is its k-NN overlap
    assert re.search(r"difference -0\.\d+ \[-0\.\d+, -0\.\d+\]", parts[0])
