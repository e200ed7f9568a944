"""Scores, paired differences and what training achieved, from the numbers alone."""

from __future__ import annotations

import math

import book_frames
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from realign.display import tables, verdicts
from realign.findings import scores as findings


def test_the_gain_is_that_of_a_role_over_its_own_untrained_backbone() -> None:
    scores = book_frames.scores(reason=0.0, sft=-2.0, noise=0.0)
    scores.loc[(scores["model"] == "untrained") & (scores["role"] == "sft"), "score"] -= 5
    gains = findings.gains(scores).set_index(["suite", "role"])
    # trained: 30 and 40, plus the seed (0, 1, 2); untrained: 21 on both tasks
    base = gains.loc[("laptop-code", "base")]
    assert (base["untrained"], base["trained"]) == (21, pytest.approx(36))
    assert (base["low"], base["high"]) == pytest.approx(stats.t.interval(0.90, 2, loc=15, scale=1 / 3**0.5))
    assert (base["seeds"], base["better"]) == (3, 3)
    assert gains.loc[("laptop-code", "sft"), "gain"] == pytest.approx(15 - 2 + 5)
    assert len(gains) == 6
    shown = tables.gains(scores).frame
    assert set(shown["seeds above untrained"]) == {"3 of 3"}


def test_a_gain_that_a_seed_lacks_is_not_called_clear() -> None:
    scores = book_frames.scores(noise=0.0)
    bad = (scores["model"] == "emb") & (scores["role"] == "sft") & (scores["seed"] == 1)
    bad &= scores["suite"] == "laptop-code"
    scores.loc[bad, "score"] = 0.0
    row = findings.gains(scores).set_index(["suite", "role"]).loc[("laptop-code", "sft")]
    assert row["better"] == 2
    assert row["low"] < 0
    text = str(verdicts.training_effect(scores))
    assert "in 5 of them by more than the interval" in text
    assert "not so for sft on laptop-code" in text


def test_one_seed_has_a_gain_and_no_interval() -> None:
    gains = findings.gains(book_frames.scores(seeds=1))
    assert gains[["low", "high"]].isna().all().all()
    assert "no interval" in str(verdicts.training_effect(book_frames.scores(seeds=1)))


@pytest.mark.parametrize(("model", "seed"), [("emb", 1), ("untrained", -1)])
def test_a_failed_task_leaves_no_gain_and_no_interval(model: str, seed: int) -> None:
    scores = book_frames.scores()
    bad = (scores["model"] == model) & (scores["role"] == "sft") & (scores["seed"] == seed)
    bad &= scores["task"] == "laptop-code-task0"
    assert bad.sum() == 1
    scores.loc[bad, "score"] = math.nan
    gains = findings.gains(scores).set_index(["suite", "role"])
    assert gains.loc[("laptop-code", "sft"), ["gain", "low", "high"]].isna().all()
    assert gains.drop(("laptop-code", "sft"))[["gain", "low", "high"]].notna().all(axis=None)
    assert "not so for sft on laptop-code" in str(verdicts.training_effect(scores))


def test_tasks_with_the_least_word_overlap_come_first_and_wins_are_named() -> None:
    scores = book_frames.scores(noise=0.0)
    words = (scores["model"] == "bm25") & (scores["suite"] == "laptop-multilingual")
    scores.loc[words, "score"] = 3.0
    table = findings.against_bm25(scores)
    assert list(table.index) == ["laptop-multilingual-task0", "laptop-code-task0"]
    assert "all trained roles beat BM25 on 1: laptop-multilingual-task0 (3.0)." in str(
        verdicts.training_effect(scores)
    )
    scores.loc[words, "score"] = 99.0
    assert "beat BM25 on 0." in str(verdicts.training_effect(scores))


def test_delta_is_paired_by_seed_so_that_what_seeds_share_cancels() -> None:
    # Seeds shift all roles by whole points, far more than the true difference of 0.1.
    frame = findings.deltas(book_frames.scores(reason=0.1, noise=0.0), by="suite")
    reason = frame[frame["role"] == "reason"]
    np.testing.assert_allclose(reason["delta"], 0.1, atol=1e-9)
    np.testing.assert_allclose(reason["sd"], 0.0, atol=1e-9)
    assert set(reason["seeds"]) == {3}
    assert set(reason["tasks"]) == {2}


def test_suite_delta_equals_the_mean_by_hand() -> None:
    scores = book_frames.scores(noise=0.5)
    frame = findings.deltas(scores, by="suite").set_index(["role", "suite"])
    emb = scores[(scores["model"] == "emb") & (scores["suite"] == "laptop-code")]
    by_hand = [
        emb[(emb["role"] == "sft") & (emb["seed"] == s)]["score"].mean()
        - emb[(emb["role"] == "base") & (emb["seed"] == s)]["score"].mean()
        for s in range(3)
    ]
    row = frame.loc[("sft", "laptop-code")]
    assert row["delta"] == pytest.approx(np.mean(by_hand))
    assert row["sd"] == pytest.approx(np.std(by_hand, ddof=1))


def test_interval_of_a_delta_is_for_new_seeds() -> None:
    scores = book_frames.scores(noise=0.5)
    arms = scores[(scores["model"] == "emb") & (scores["suite"] == "laptop-code")]
    for by, rows in (("suite", arms), ("task", arms[arms["task"] == "laptop-code-task0"])):
        one = rows.pivot_table(index="seed", columns="role", values="score")
        change = one["sft"] - one["base"]
        low, high = stats.t.interval(0.90, 2, loc=change.mean(), scale=stats.sem(change))
        frame = findings.deltas(scores, by=by).query("role == 'sft' and suite == 'laptop-code'")
        row = frame.iloc[0] if by == "suite" else frame.set_index("task").loc["laptop-code-task0"]
        assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_equivalence_on_fixed_tasks_ignores_how_tasks_differ_and_new_tasks_do_not() -> None:
    scores = book_frames.scores(reason=0.0, noise=0.01, by_seed=0.0)
    apart = scores["task"].str.endswith("task0") & (scores["model"] == "emb") & (scores["role"] == "reason")
    scores.loc[apart, "score"] += 3.0
    rows = findings.equivalence(scores, book_frames.items(), margin=2.0).set_index(["suite", "arm"])
    row = rows.loc[("laptop-code", "reason")]
    assert row["delta"] == pytest.approx(1.5, abs=0.05)
    assert row["equivalent"]
    assert row["high"] - row["low"] < 0.1 < 2 < row["new_high"] - row["new_low"]
    assert "one tuning run of reason" in row["note"]


def test_queries_widen_the_interval_of_equivalence() -> None:
    scores = book_frames.scores(by_seed=0.0)
    few, many = (
        findings.equivalence(scores, book_frames.items(n, 0.3), 2.0).set_index(["suite", "arm"])
        for n in (20, 200)
    )
    without = findings.equivalence(scores, book_frames.items(), 2.0).set_index(["suite", "arm"])
    width = [(f["high"] - f["low"]).loc[("all", "sft")] for f in (few, many, without)]
    assert width[0] > 2 * width[1] > 4 * width[2]
    assert few.loc[("all", "sft"), "queries"] > 0.9


def test_runs_of_an_arm_are_one_arm() -> None:
    scores = book_frames.scores(by_seed=0.0)
    second = scores[scores["role"] == "reason"].assign(role="reason-2")
    both = pd.concat([scores, second.assign(score=second["score"] + 1.0)])
    both["role"] = both["role"].replace("reason", "reason-1")
    row = (
        findings.equivalence(both, book_frames.items(), 2.0)
        .set_index(["suite", "arm"])
        .loc[("all", "reason")]
    )
    assert row["delta"] == pytest.approx(0.6, abs=0.05)
    assert row["models"] == 6
    assert row["runs"] > 0.9
    assert "one tuning run of reason" not in row["note"]


def test_excess_shift_is_the_variance_over_tasks_that_was_put_in() -> None:
    scores = book_frames.scores(reason=0.0, sft=0.0, noise=0.0, by_seed=0.0)
    sign = np.where(scores["task"].str.endswith("0"), 1.0, -1.0)
    scores["score"] += 2.0 * sign * ((scores["model"] == "emb") & (scores["role"] == "sft"))
    excess = findings.excess_shift(scores, book_frames.items(), "reason", "sft")
    assert excess is not None
    assert excess.value == pytest.approx(np.var([2, -2, 2, -2], ddof=1))
    one = findings.excess_shift(book_frames.scores(seeds=1), book_frames.items(), "reason", "sft")
    assert one is None


def test_failed_task_takes_its_suite_out_of_the_tests_and_into_the_list_of_failures() -> None:
    scores = book_frames.scores().assign(error="")
    bad = (scores["role"] == "reason") & (scores["task"] == "laptop-code-task0") & (scores["seed"] == 1)
    scores.loc[bad, ["score", "error"]] = [math.nan, "OSError: gone"]
    assert set(findings.equivalence(scores, book_frames.items(), margin=1.0)["suite"]) == {
        "laptop-multilingual"
    }
    (row,) = findings.failures(scores).to_dict("records")
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
    table = findings.type_means(more)
    base = more[(more["model"] == "emb") & (more["role"] == "base")].groupby("type")["score"].mean()
    assert table.loc["laptop-code", "base"] == pytest.approx(base.mean())
    assert table.loc["laptop-code", "types"] == 2
    assert "types" in tables.type_means(more).frame


def test_one_seed_has_a_delta_but_no_interval() -> None:
    frame = findings.deltas(book_frames.scores(seeds=1), by="suite")
    assert frame["delta"].notna().all()
    assert frame[["sd", "low", "high"]].isna().all().all()
    shown = tables.scores(book_frames.scores(seeds=1)).frame
    assert "±" not in "".join(shown["Δ reason"])


def test_subsets_of_a_task_count_equally_and_not_as_tasks() -> None:
    scores = book_frames.scores(noise=0.0).query("suite == 'laptop-code'")
    split = pd.concat([scores.assign(score=scores["score"] + d, subset=str(d)) for d in (-1.0, 1.0)])
    pd.testing.assert_frame_equal(findings.score_table(scores), findings.score_table(split))


def test_failed_task_empties_the_means_that_contain_it_instead_of_being_skipped() -> None:
    scores = book_frames.scores()
    bad = (scores["role"] == "reason") & (scores["task"] == "laptop-code-task0") & (scores["seed"] == 1)
    scores.loc[bad, "score"] = math.nan
    table = findings.score_table(scores)
    assert math.isnan(table.loc["laptop-code", "reason"])
    assert math.isnan(table.loc["laptop-code", "reason delta"])
    assert table.loc["laptop-code", "sft"] == pytest.approx(34, abs=0.5)
    assert table.loc["laptop-multilingual", "reason"] == pytest.approx(56, abs=0.5)
    assert tables.scores(scores).frame["reason"].tolist()[0] == "–"


def test_baseline_that_covers_only_some_tasks_has_no_mean() -> None:
    by_suite = findings.score_table(book_frames.scores())
    assert by_suite["BM25"].isna().all()
    by_type = findings.score_table(book_frames.scores(), by="type")
    assert by_type.loc[("laptop-code", "Retrieval"), "BM25"] == 30
    assert math.isnan(by_type.loc[("laptop-code", "Classification"), "BM25"])


def test_untrained_row_is_the_base_only() -> None:
    scores = book_frames.scores()
    scores.loc[(scores["model"] == "untrained") & (scores["role"] != "base"), "score"] = 99.0
    assert findings.score_table(scores).loc["laptop-code", "untrained base"] == 21
