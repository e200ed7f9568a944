"""Claims about mined negatives: near, below the margin, never an answer."""

from __future__ import annotations

import numpy as np
import pytest

from realign.texts.pairs import PairSet
from realign.training.mining import mine

# cosine to the query's direction, by text
SCORES = {"q": 1.0, "answer": 0.8, "ANSWER": 0.79, "close": 0.78, "hard": 0.7, "middle": 0.5, "far": 0.1}


def encode(texts: list[str], instruction: str | None) -> np.ndarray:
    cosine = np.array([SCORES[t] for t in texts])
    return np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)


def pair_set() -> PairSet:
    positives = ["answer", "ANSWER", "close", "hard", "middle", "far"]
    return PairSet("s", "Find", ["q"] + ["far"] * 5, positives, [[] for _ in positives])


def test_negatives_are_the_nearest_below_the_margin_and_never_the_answer() -> None:
    found, report = mine(pair_set(), encode, n=2)
    assert found.negatives[0] == ["hard", "middle"]  # 'close' is above 0.95 * 0.8; 'ANSWER' is the answer
    assert report.queries == 6
    assert report.smallest_margin > 0
    assert mine(pair_set(), encode, n=2, relative_margin=0.0)[0].negatives[0] == ["close", "hard"]


def test_only_the_first_neighbours_are_looked_at_and_the_report_counts_what_is_missing() -> None:
    found, report = mine(pair_set(), encode, n=3, first=4)
    assert found.negatives[0] == ["hard"]
    assert report.full + report.short + report.none == 6
    assert report.short >= 1


def test_the_block_size_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    table = {f"{kind}{i}": rng.normal(size=8) for kind in "qp" for i in range(30)}

    def rows(texts: list[str], instruction: str | None) -> np.ndarray:
        found = np.stack([table[t] for t in texts])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    one = PairSet(
        "s", "", [f"q{i}" for i in range(30)], [f"p{i}" for i in range(30)], [[] for _ in range(30)]
    )
    whole, report = mine(one, rows)
    assert mine(one, rows, block=7)[0] == whole
    # brute force
    for i, negatives in enumerate(whole.negatives):
        q = rows([f"q{i}"], None)[0]
        scores = {f"p{j}": float(q @ rows([f"p{j}"], None)[0]) for j in range(30)}
        own = scores.pop(f"p{i}")
        ranked = sorted((s, p) for p, s in scores.items() if s <= own - 0.05 * abs(own))[::-1]
        assert negatives == [p for _, p in ranked[:3]]
    assert report.mean_margin == pytest.approx(
        np.mean([table_margin(rows, i, n) for i, row in enumerate(whole.negatives) for n in row])
    )


def table_margin(rows, i: int, negative: str) -> float:
    q = rows([f"q{i}"], None)[0]
    return float(q @ rows([f"p{i}"], None)[0] - q @ rows([negative], None)[0])
