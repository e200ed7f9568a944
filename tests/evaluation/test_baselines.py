"""Baselines: BM25 by its formula, random vectors at chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from datasets import Dataset

from realign.evaluation import instructions, run, suites
from realign.evaluation.baselines import BM25, RandomVectors, tokens
from realign.evaluation.specs import BM25_TYPES


def test_bm25_is_the_lucene_formula():
    texts = ["red fox runs", "the red red car", "a slow turtle"]
    model = BM25()
    model.index(Dataset.from_dict({"id": ["a", "b", "c"], "text": texts}))
    ranking = model.search(Dataset.from_dict({"id": ["q"], "text": ["Red fox"]}), top_k=3)["q"]
    lengths = [len(t.split()) for t in texts]
    mean = sum(lengths) / 3

    def weight(word: str, i: int) -> float:
        frequency = texts[i].split().count(word)
        holders = sum(word in t.split() for t in texts)
        idf = math.log(1 + (3 - holders + 0.5) / (holders + 0.5))
        return idf * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * lengths[i] / mean))

    for i, name in enumerate("abc"):
        assert ranking[name] == pytest.approx(weight("red", i) + weight("fox", i), rel=1e-5)


def test_bm25_ranks_candidates_only_and_takes_queries_without_known_words():
    model = BM25()
    model.index(Dataset.from_dict({"id": ["a", "b", "c"], "text": ["x y", "y", "x"]}))
    queries = Dataset.from_dict({"id": ["q", "r"], "text": ["x", "unknown"]})
    ranking = model.search(queries, top_k=10, top_ranked={"q": ["b", "c"], "r": ["a"]})
    assert set(ranking["q"]) == {"b", "c"}
    assert ranking["q"]["c"] > ranking["q"]["b"] == 0
    assert ranking["r"] == {"a": 0.0}


def test_identifiers_are_split_into_words():
    assert tokens("getHTTPName(snake_case2)") == ["get", "httpname", "snake", "case2"]


def test_random_vectors_are_at_chance():
    from realign.evaluation.encoder import TaskEncoder

    task = next(t for t in suites.load("laptop-multilingual") if t.metadata.name == "CLDRCurrencyRetrieval")
    documents, queries = 148, 60
    scores = [
        run.evaluate_task(TaskEncoder(RandomVectors(seed=seed), instructions.load()), task)
        .scores["score"]
        .item()
        for seed in range(4)
    ]
    expected = 100 * sum(1 / math.log2(rank + 1) for rank in range(1, 11)) / documents
    # one relevant document: each query's nDCG@10 has a standard deviation of about 0.14
    assert abs(np.mean(scores) - expected) < 3 * 100 * 0.14 / math.sqrt(queries * len(scores))


def test_random_vectors_know_a_text_again_but_not_under_another_seed():
    one, other = RandomVectors(seed=1), RandomVectors(seed=2)
    np.testing.assert_array_equal(one.encode(["a", "b"])[0], one.encode(["a"])[0])
    assert abs(float(one.encode(["a"])[0] @ other.encode(["a"])[0])) < 0.3
    np.testing.assert_allclose(np.linalg.norm(one.encode(["a"])), 1, rtol=1e-6)


@pytest.mark.parametrize("suite", ["laptop-multilingual", "laptop-code", "laptop-bright"])
def test_word_overlap_does_not_solve_a_task(suite):
    for task in suites.load(suite):
        if task.metadata.type in BM25_TYPES:
            result = run.evaluate_task(BM25(), task)
            assert not result.failed, result.manifest["failed"]
            assert result.scores["score"].max() < 90, task.metadata.name
