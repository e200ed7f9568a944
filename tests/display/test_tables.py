from __future__ import annotations

import math
from types import SimpleNamespace

import book_frames
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from realign import stats as realign_stats
from realign.config import Backbone, Family, RLVRSettings, SFTSettings
from realign.display import metrics, tables
from realign.display.format import markdown, show


def test_delta_is_paired_by_seed_so_that_what_seeds_share_cancels() -> None:
    # Seeds shift all roles by whole points, far more than the true difference of 0.1.
    frame = tables.deltas(book_frames.scores(reason=0.1, noise=0.0), by="suite")
    reason = frame[frame["role"] == "reason"]
    np.testing.assert_allclose(reason["delta"], 0.1, atol=1e-9)
    np.testing.assert_allclose(reason["sd"], 0.0, atol=1e-9)
    assert set(reason["seeds"]) == {3}
    assert set(reason["tasks"]) == {2}


def test_suite_delta_equals_the_mean_by_hand() -> None:
    scores = book_frames.scores(noise=0.5)
    frame = tables.deltas(scores, by="suite").set_index(["role", "suite"])
    emb = scores[(scores["model"] == "emb") & (scores["suite"] == "laptop-code")]
    by_hand = [
        emb[(emb["role"] == "sft") & (emb["seed"] == s)]["score"].mean()
        - emb[(emb["role"] == "base") & (emb["seed"] == s)]["score"].mean()
        for s in range(3)
    ]
    row = frame.loc[("sft", "laptop-code")]
    assert row["delta"] == pytest.approx(np.mean(by_hand))
    assert row["sd"] == pytest.approx(np.std(by_hand, ddof=1))


def test_interval_of_a_suite_is_for_new_tasks_and_new_seeds_and_of_a_task_for_new_seeds() -> None:
    scores = book_frames.scores(noise=0.5)
    arms = scores[(scores["model"] == "emb") & (scores["suite"] == "laptop-code")]
    expected = realign_stats.paired(arms, "base", "sft", margin=1.0)
    row = tables.deltas(scores, by="suite").set_index(["role", "suite"]).loc[("sft", "laptop-code")]
    assert (row["low"], row["high"]) == pytest.approx((expected.low90, expected.high90))
    one = arms[arms["task"] == "laptop-code-task0"].pivot(index="seed", columns="role", values="score")
    change = one["sft"] - one["base"]
    low, high = stats.t.interval(0.90, 2, loc=change.mean(), scale=stats.sem(change))
    row = tables.deltas(scores, by="task").set_index(["role", "task"]).loc[("sft", "laptop-code-task0")]
    assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_equivalence_is_shown_only_inside_the_margin_and_never_from_one_seed() -> None:
    near = tables.equivalence(book_frames.scores(reason=0.1, sft=-2.0), margin=1.0)
    answers = near.set_index(["suite", "sibling"])["equivalent"]
    assert (answers.xs("reason", level="sibling") == "within ±1").all()
    assert (answers.xs("sft", level="sibling") == "not shown").all()
    assert set(near["suite"]) == {"all", "laptop-code", "laptop-multilingual"}
    single = tables.equivalence(book_frames.scores(seeds=1), margin=1.0)
    assert set(single["equivalent"]) == {"open: one seed"}


def test_failed_task_takes_its_suite_out_of_the_tests_and_into_the_list_of_failures() -> None:
    scores = book_frames.scores().assign(error="")
    bad = (scores["role"] == "reason") & (scores["task"] == "laptop-code-task0") & (scores["seed"] == 1)
    scores.loc[bad, ["score", "error"]] = [math.nan, "OSError: gone"]
    assert set(tables.equivalence(scores, margin=1.0)["suite"]) == {"laptop-multilingual"}
    (row,) = tables.failures(scores).to_dict("records")
    assert (row["role"], row["seed"], row["task"], row["error"]) == (
        "reason",
        1,
        "laptop-code-task0",
        "OSError: gone",
    )


def test_mean_over_types_counts_each_type_once() -> None:
    scores = book_frames.scores(noise=0.0).query("suite == 'laptop-code'")
    twin = scores[scores["type"] == "Retrieval"].assign(task="twin")
    more = pd.concat([scores, twin.assign(score=twin["score"] + 4)])
    table = tables.type_means(more)
    base = more[(more["model"] == "emb") & (more["role"] == "base")].groupby("type")["score"].mean()
    assert table.loc["laptop-code", "base"] == pytest.approx(base.mean())
    assert table.loc["laptop-code", "types"] == 2
    assert "types" in tables.display_scores(table)


def test_what_was_read_is_that_of_the_first_trained_base() -> None:
    shown = tables.reading(book_frames.reading())
    assert shown["task"].tolist() == ["A", "B"]
    assert shown["cut off %"].tolist() == ["25", "0"]
    assert shown["seconds"].tolist() == ["2.0", "2.0"]


def test_one_seed_has_a_delta_but_no_interval() -> None:
    frame = tables.deltas(book_frames.scores(seeds=1), by="suite")
    assert frame["delta"].notna().all()
    assert frame[["sd", "low", "high"]].isna().all().all()
    shown = tables.display_scores(tables.score_table(book_frames.scores(seeds=1)))
    assert "±" not in "".join(shown["Δ reason"])


def test_subsets_of_a_task_count_equally_and_not_as_tasks() -> None:
    scores = book_frames.scores(noise=0.0).query("suite == 'laptop-code'")
    split = pd.concat([scores.assign(score=scores["score"] + d, subset=str(d)) for d in (-1.0, 1.0)])
    pd.testing.assert_frame_equal(tables.score_table(scores), tables.score_table(split))


def test_failed_task_empties_the_means_that_contain_it_instead_of_being_skipped() -> None:
    scores = book_frames.scores()
    bad = (scores["role"] == "reason") & (scores["task"] == "laptop-code-task0") & (scores["seed"] == 1)
    scores.loc[bad, "score"] = math.nan
    table = tables.score_table(scores)
    assert math.isnan(table.loc["laptop-code", "reason"])
    assert math.isnan(table.loc["laptop-code", "reason delta"])
    assert table.loc["laptop-code", "sft"] == pytest.approx(34, abs=0.5)
    assert table.loc["laptop-multilingual", "reason"] == pytest.approx(56, abs=0.5)
    assert tables.display_scores(table)["reason"].tolist()[0] == "–"


def test_baseline_that_covers_only_some_tasks_has_no_mean() -> None:
    by_suite = tables.score_table(book_frames.scores())
    assert by_suite["BM25"].isna().all()
    by_type = tables.score_table(book_frames.scores(), by="type")
    assert by_type.loc[("laptop-code", "Retrieval"), "BM25"] == 30
    assert math.isnan(by_type.loc[("laptop-code", "Classification"), "BM25"])


def test_untrained_row_is_the_base_only() -> None:
    scores = book_frames.scores()
    scores.loc[(scores["model"] == "untrained") & (scores["role"] != "base"), "score"] = 99.0
    assert tables.score_table(scores).loc["laptop-code", "untrained base"] == 21


def test_profile_reads_the_estimator_it_is_asked_for() -> None:
    report = book_frames.FakeReport(0.8)
    assert tables.profile(report, "knn", "reference", 5)["value"].tolist() == pytest.approx([0.8] * 7)
    assert tables.profile(report, "knn", "paper", 5)["value"].tolist() == pytest.approx([0.8 / 1.2] * 7)
    for metric in metrics.METRICS:
        frame = tables.profile(report, metric)
        assert list(frame.columns) == ["layer", "value", "low", "high", "null"], metric
        assert frame["layer"].tolist() == list(range(7)), metric


def test_headline_takes_one_metric_a_level_and_the_middle_k() -> None:
    drift = pd.DataFrame({"metric": ["cka_mean", "knn@5_mean", "knn@50_mean", "knn@10_mean", "cka_last"]})
    assert metrics.headline(drift) == ["cka_mean", "knn@10_mean"]


def test_drift_table_keeps_every_checkpoint_in_order() -> None:
    frame = tables.drift_table(book_frames.study().drift())
    assert frame[["role", "step"]].values.tolist() == [
        ["reason", 4],
        ["reason", 16],
        ["reason", 36],
        ["sft", 36],
    ]
    assert "CKA, mean over layers" in frame


def test_probe_table_names_both_models() -> None:
    table = tables.probe_table(book_frames.study().comparisons("backbone"))
    assert {"base → reason", "reason → base", "base → sft", "sft → sft"} <= set(table["probe"])
    row = table[(table["probe"] == "base → reason") & (table["scaler"] == "source")].iloc[0]
    assert row["accuracy %"] == "87.3 [86.8, 87.8]"


def test_markdown_table_survives_pipes_and_shown_frames_have_no_row_numbers() -> None:
    frame = pd.DataFrame({"a|b": ["x|y"], "c": [math.nan]})
    assert markdown(frame).splitlines()[0] == "| a|b | c |".replace("a|b", "a\\|b")
    assert "x\\|y" in markdown(frame)
    html = show(frame)._repr_html_()
    assert "<th></th>" not in html
    assert "NaN" not in html


def test_matched_table_compares_at_the_end_at_a_step_that_all_reach_and_at_equal_accuracy() -> None:
    policy = pd.DataFrame(
        {"role": role, "step": step, "accuracy_greedy": accuracy, "kl": 0.5}
        for role, step, accuracy in [
            ("base", 0, 0.1), ("reason", 10, 0.3), ("reason", 50, 0.6), ("sft", 8, 0.55), ("sft", 48, 0.9),
            ("coin", 9, 0.2),
        ]
    )  # fmt: skip
    drift = pd.DataFrame(
        {"role": row.role, "step": row.step, "metric": "cka_mean", "value": 0.9, "low": 0.8, "high": 1.0}
        for row in policy.itertuples()
    )
    table = tables.matched_table(policy, drift)
    found = {(r["matched on"], r["role"]): r["step"] for _, r in table.iterrows()}
    assert found == {
        ("the end", "reason"): 50,
        ("the end", "sft"): 48,
        ("the end", "coin"): 9,
        ("steps", "reason"): 10,
        ("steps", "sft"): 8,
        ("steps", "coin"): 9,
        ("accuracy", "reason"): 50,
        ("accuracy", "sft"): 8,
        ("accuracy", "coin"): 9,
    }
    assert list(dict.fromkeys(table["matched on"])) == ["the end", "steps", "accuracy"]
    assert set(table["(1 − CKA) / KL"]) == {"0.2000"}


def test_tables_of_the_mechanism_hold_the_numbers_they_are_given() -> None:
    study = book_frames.study()
    updates = tables.updates_table(study.updates())
    assert updates["update / weight"].tolist() == ["0.1000 [0.1000, 0.1000]", "0.2000 [0.2000, 0.2000]"]
    landscape = tables.landscape_table(study.landscape())
    assert len(landscape) == 10
    assert set(landscape["sft"]) == {"0.200 [0.150, 0.250]"}
    assert set(landscape["base against itself"]) == {"0.000"}


def test_the_table_of_siblings_tells_tuned_here_from_tuned_by_others() -> None:
    family = Family(
        name="f",
        roles={"base": Backbone(source="random:0/llama"), "reason": Backbone(source="hub:some/reasoner")},
        tuning={"coin": RLVRSettings(reward="random", steps=7, seed=3, style="working")},
    )
    models = SimpleNamespace(
        family=family,
        followed=["reason", "sft", "coin"],
        tuned_by_others=lambda role: role == "reason",
        tuning=lambda role: {"sft": SFTSettings(steps=5, batch_size=4), **family.tuning}[role],
    )
    table = tables.siblings_table(SimpleNamespace(models=models)).set_index("role")
    assert table.loc["reason", "method"] == "tuned by others: hub:some/reasoner"
    assert table.loc["reason", "steps"] == "–"
    assert table.loc["sft", ["method", "reward", "steps", "problems a step"]].tolist() == ["SFT", "–", 5, 4]
    assert table.loc["coin", ["reward", "steps", "seed"]].tolist() == ["a coin", 7, 3]
    assert table.loc["coin", "a completion is"] == "working, then answer"
