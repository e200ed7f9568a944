"""Claims about what training achieved: paired with its own backbone, said from the numbers alone."""

from __future__ import annotations

import book_frames
import pytest
from scipy import stats

from realign.findings import gains


def test_the_gain_is_that_of_a_role_over_its_own_untrained_backbone() -> None:
    scores = book_frames.scores(reason=0.0, sft=-2.0, noise=0.0)
    scores.loc[(scores["model"] == "untrained") & (scores["role"] == "sft"), "score"] -= 5
    found = gains.learned(scores).set_index(["suite", "role"])
    # trained: 30 and 40, plus the seed (0, 1, 2); untrained: 21 on both tasks
    base = found.loc[("laptop-code", "base")]
    assert (base["untrained"], base["trained"]) == (21, pytest.approx(36))
    assert (base["low"], base["high"]) == pytest.approx(stats.t.interval(0.90, 2, loc=15, scale=1 / 3**0.5))
    assert (base["seeds"], base["better"]) == (3, 3)
    assert found.loc[("laptop-code", "sft"), "gain"] == pytest.approx(15 - 2 + 5)
    assert len(found) == 6
    shown = gains.display_learned(gains.learned(scores))
    assert set(shown["seeds above untrained"]) == {"3 of 3"}


def test_a_gain_that_a_seed_lacks_is_not_called_clear() -> None:
    scores = book_frames.scores(noise=0.0)
    bad = (scores["model"] == "emb") & (scores["role"] == "sft") & (scores["seed"] == 1)
    bad &= scores["suite"] == "laptop-code"
    scores.loc[bad, "score"] = 0.0
    row = gains.learned(scores).set_index(["suite", "role"]).loc[("laptop-code", "sft")]
    assert row["better"] == 2
    assert row["low"] < 0
    text = str(gains.learned_text(scores))
    assert "in 5 of them by more than the interval" in text
    assert "not so for sft on laptop-code" in text


def test_one_seed_has_a_gain_and_no_interval() -> None:
    found = gains.learned(book_frames.scores(seeds=1))
    assert found[["low", "high"]].isna().all().all()
    assert "no interval" in str(gains.learned_text(book_frames.scores(seeds=1)))


def test_tasks_with_the_least_word_overlap_come_first_and_wins_are_named() -> None:
    scores = book_frames.scores(noise=0.0)
    words = (scores["model"] == "bm25") & (scores["suite"] == "laptop-multilingual")
    scores.loc[words, "score"] = 3.0
    table = gains.against_words(scores)
    assert list(table.index) == ["laptop-multilingual-task0", "laptop-code-task0"]
    assert "all trained roles beat BM25 on 1: laptop-multilingual-task0 (3.0)." in str(
        gains.learned_text(scores)
    )
    scores.loc[words, "score"] = 99.0
    assert "beat BM25 on 0." in str(gains.learned_text(scores))
