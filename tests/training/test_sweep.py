"""Claims about the sweep: validation is kept apart, scores are exact, a table goes on where it ended."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from realign.config import Backbone, Recipe
from realign.errors import UsageError
from realign.texts import splits
from realign.texts.pairs import PairSet
from realign.training import sweep

WORDS = [f"{a}{b}" for a in "bcdfghjklm" for b in "aeiou"]


def make(name: str, n: int = 200) -> PairSet:
    texts = [f"{WORDS[i % 50]} {WORDS[(i * 7) % 50]} {i}" for i in range(n)]
    return PairSet(name, "Find", [f"{name} {t}?" for t in texts], texts, [[texts[i - 1]] for i in range(n)])


def test_no_validation_text_is_in_the_training_part_of_any_set() -> None:
    parts = sweep.split([make("a"), make("b")], 12)  # both sets have the same positives
    seen = {splits.normalise(t) for _, v in parts for t in (*v.queries, *v.positives)}
    for training, validation in parts:
        assert len(validation) == 12
        assert len(training) > 100
        assert not seen & {splits.normalise(t) for t in training.texts()}


def test_the_score_is_ndcg_at_ten_of_the_one_relevant_text() -> None:
    class Fixed:
        """Queries in the order in which each ranks the passages."""

        def encode(self, texts: list[str], instruction: str | None = None) -> np.ndarray:
            if instruction is None:
                return np.eye(12, dtype=np.float32)
            # query 0 ranks its own first, 1 its own third, 2 its own eleventh, the rest their own first
            scores = np.eye(12, dtype=np.float32)
            scores[1, [4, 5]] = 2.0
            scores[2, :] = np.arange(12, 0, -1) + 1
            scores[2, 2] = 2.5
            return scores

    one = PairSet("x", "Find", [f"q{i}" for i in range(12)], [f"p{i}" for i in range(12)], [[]] * 12)
    expected = 100 * (10 * 1.0 + 1 / math.log2(4) + 0.0) / 12
    assert sweep.score(Fixed(), one) == pytest.approx(expected)  # type: ignore[arg-type]


def test_rows_are_recorded_once_and_the_table_goes_on(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sweep.pairs, "load", lambda name, hard_negatives: make(name))
    recipe = Recipe(data=("a", "b"), queries=32, batch_size=8, hard_negatives=0, dtype="float32")
    table = tmp_path / "sweep.csv"
    table.write_text("# a remark\n")
    backbone = Backbone(source="random:0/llama")
    rows = {
        "slow": {"learning_rate": 1e-4},
        "fast, seed 1": {"learning_rate": 1e-2, "seed": 1, "data": ["b"]},
    }
    sweep.run(backbone, recipe, {"slow": rows["slow"]}, table, tmp_path / "work", device="cpu")
    before = table.read_text()
    found = sweep.run(backbone, recipe, rows, table, tmp_path / "work", device="cpu")
    assert table.read_text().startswith(before)
    assert before.startswith("# a remark\n")
    assert list(found["name"]) == ["untrained", "slow", "fast, seed 1"]
    assert found["seed"].tolist()[1:] == [0, 1]
    assert found["steps"].tolist()[1:] == [4, 4]
    assert np.allclose(found["mean"], found[["a", "b"]].mean(axis=1), atol=0.01)
    assert not list((tmp_path / "work").glob("*"))
    with pytest.raises(UsageError, match=r"row typo.*learning_rat"):
        sweep.run(backbone, recipe, {"typo": {"learning_rat": 1.0}}, table, tmp_path / "work")
