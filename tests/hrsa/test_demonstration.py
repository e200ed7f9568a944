"""The methods page says what each metric sees; these are the claims that its picture rests on."""

from __future__ import annotations

import pandas as pd
import pytest

from realign.hrsa.demonstration import changes, demonstration


@pytest.fixture(scope="module")
def values() -> pd.Series:
    frame = demonstration()
    return frame.set_index(["change", "metric", "estimator"])["value"].sort_index()


def test_nothing_changed_is_one_everywhere(values: pd.Series) -> None:
    same = values["nothing"].drop("probe_accuracy", level="metric")
    assert (same > 0.98).all()
    assert (values["nothing", "probe_accuracy"] > 0.95).all()


def test_rotations_and_permutations_are_seen_by_axes_and_probes_only(values: pd.Series) -> None:
    for change in ("rotation", "axes permuted"):
        assert values[change, "correlation", "reference"] < 0.5
        assert values[change, "probe_accuracy", "reference"] < 0.7
        for metric in ("r2", "cka"):
            assert values[change, metric, "reference"] > 0.99
    assert values["axes permuted", "inverse_row_entropy", "reference"] > 0.99
    assert values["rotation", "inverse_row_entropy", "reference"] < 0.5


def test_local_noise_is_seen_by_neighbours_more_than_by_cka(values: pd.Series) -> None:
    noisy = values["local noise"]
    assert noisy["knn", "reference"] < 0.7 < noisy["cka", "reference"]


def test_rearranged_classes_keep_neighbours_and_lose_geometry(values: pd.Series) -> None:
    moved = values["classes rearranged"]
    assert moved["knn", "reference"] > moved["cka", "reference"]
    assert moved["cka", "reference"] < 0.7


def test_sink_tokens_fake_the_paper_estimator_of_unrelated_models_only(values: pd.Series) -> None:
    with_sinks, without = values["unrelated, with sink tokens"], values["unrelated"]
    assert with_sinks["cka", "paper"] > 0.9
    assert with_sinks["cka", "reference"] < 0.2
    assert with_sinks["r2", "reference"] > 0.5  # nothing but CKA leaves sinks out
    assert abs(without["cka", "reference"]) < without["cka", "paper"]
    assert max(without["r2", "reference"], without["r2", "paper"]) < 0
    assert abs(without["knn", "reference"]) < 0.05 < without["knn", "paper"]  # tokens of one text


def test_the_mean_is_weighed_by_the_papers_r2_only(values: pd.Series) -> None:
    tripled = values["scale and shift"]
    assert tripled["r2", "reference"] == pytest.approx(1 - (2 / 3) ** 2, abs=1e-3)  # |3x - x|^2 of |3x|^2
    assert tripled["r2", "paper"] < tripled["r2", "reference"] - 0.05


def test_every_change_is_compared_in_both_estimators_on_every_metric(values: pd.Series) -> None:
    assert len(values) == len(changes()) * 6 * 2
    assert values.notna().all()
