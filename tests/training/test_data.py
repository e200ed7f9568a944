"""Claims about batches: one set each, nothing twice, the same plan everywhere."""

from __future__ import annotations

from collections import Counter

import pytest

from realign.config import Backbone
from realign.errors import RealignError
from realign.models import loading
from realign.models.batching import query_prefix
from realign.texts.pairs import PairSet
from realign.training.data import Tokenized, plan, queries_per_set


def make(name: str, n: int, repeats: int = 0) -> PairSet:
    positives = [f"{name} positive {i if i >= repeats else 0}" for i in range(n)]
    return PairSet(
        name, "Find it", [f"{name} query {i}" for i in range(n)], positives, [[] for _ in range(n)]
    )


def test_every_row_is_used_once_an_epoch_and_batches_never_mix_sets() -> None:
    sets = [make("a", 32), make("b", 16)]
    planned = plan(sets, 8, 2, seed=0)
    assert len(planned) == 12
    used = Counter((index, row) for index, rows in planned for row in rows)
    assert set(used.values()) == {2}
    assert sum(len(rows) for _, rows in planned) == 96
    assert len({index for index, _ in planned[:6]}) == 2  # mixed, not one set after the other


def test_no_batch_holds_a_positive_twice() -> None:
    one = make("a", 40, repeats=6)
    for _, rows in plan([one], 8, 1, seed=3):
        positives = [one.positives[row] for row in rows]
        assert len(set(positives)) == len(positives) == 8


def test_the_plan_depends_on_the_seed_alone() -> None:
    sets = [make("a", 32), make("b", 16)]
    assert plan(sets, 8, 1, seed=0) == plan(sets, 8, 1, seed=0)
    assert plan(sets, 8, 1, seed=0) != plan(sets, 8, 1, seed=1)


def test_a_part_of_an_epoch_and_a_set_smaller_than_a_batch() -> None:
    assert len(plan([make("a", 64)], 8, 0.5, seed=0)) == 4
    assert [len(rows) for _, rows in plan([make("a", 5)], 8, 1, seed=0)] == [5]
    with pytest.raises(RealignError, match="nothing to train on"):
        plan([make("a", 0)], 8, 1, seed=0)


def test_queries_are_shared_by_size_or_equally_or_between_the_two_by_temperature() -> None:
    assert queries_per_set([400, 100], 30, "temperature", 2.0) == [20, 10]  # square roots
    assert (
        queries_per_set([400, 100], 30, "temperature", 1.0)
        == queries_per_set([400, 100], 30, "size")
        == [24, 6]
    )
    assert (
        queries_per_set([400, 100], 30, "temperature", 1e9)
        == queries_per_set([400, 100], 30, "equal")
        == [15, 15]
    )
    assert queries_per_set([300, 100], 40, "size") == [30, 10]
    assert queries_per_set([300, 100], 40, "equal") == [20, 20]
    assert queries_per_set([300, 5], 40, "equal") == [20, 5]
    assert queries_per_set([300, 5], None, "equal") == [300, 5]


def test_a_text_that_occurs_twice_is_encoded_once_and_an_instruction_makes_it_another() -> None:
    tokenizer = loading.load_tokenizer(Backbone(source="random:0/llama"))
    one = PairSet("a", "Find it", ["q", "r"], ["p", "Q"], [["p2"], ["p", "p2"]])
    data = Tokenized([one], tokenizer, max_query_tokens=64, max_passage_tokens=64)
    batch = data.batch(0, [0, 1])
    assert len(batch.ids) == 5  # q, r, p, Q, p2
    assert [batch.ids[c] for c in batch.candidates] == [batch.ids[c] for c in (2, 3, 4, 2, 4)]
    skipped = len(tokenizer(query_prefix("Find it"))["input_ids"])
    assert [batch.skip[u] for u in batch.queries] == [skipped, skipped]
    assert {batch.skip[u] for u in batch.candidates} == {0}
    # the passage "Q" says what the query "q" says: one content for the false-negative mask
    assert batch.content[batch.queries[0]] == batch.content[batch.candidates[1]]
    assert data.prefixes() == {"a": "Instruct: Find it\nQuery:"}
    bare = Tokenized([one], tokenizer, max_query_tokens=64, max_passage_tokens=64, instructions=False)
    assert set(bare.batch(0, [0, 1]).skip) == {0}
    assert bare.prefixes() == {"a": ""}


def test_lengths_are_cut_separately_for_queries_and_passages() -> None:
    tokenizer = loading.load_tokenizer(Backbone(source="random:0/llama"))
    one = PairSet("a", "", ["q" * 100, "s" * 100], ["p" * 100, "t" * 100], [[], []])
    batch = Tokenized([one], tokenizer, max_query_tokens=20, max_passage_tokens=30).batch(0, [0, 1])
    assert [len(batch.ids[u]) for u in (*batch.queries, *batch.candidates)] == [20, 20, 30, 30]


def test_rows_that_cannot_be_told_apart_are_not_called_an_empty_set() -> None:
    same = make("same", 8, repeats=8)
    with pytest.raises(RealignError, match="no two of the 8 training rows differ"):
        plan([same], batch_size=4, epochs=1, seed=0)
    with pytest.raises(RealignError, match="the training sets have 0 rows"):
        plan([], batch_size=4, epochs=1, seed=0)
