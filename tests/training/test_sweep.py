"""Claims about the sweep: validation is kept apart, scores are exact, a table goes on where it ended."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realign import config, paths
from realign.config import Backbone, Recipe
from realign.errors import RealignError, UsageError
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
    recorded = sweep.run(backbone, recipe, rows, table, tmp_path / "work", device="cpu")
    assert table.read_text().startswith(before)
    assert before.startswith("# a remark\n")
    assert list(recorded["name"]) == ["untrained", "slow", "fast, seed 1"]
    assert recorded["seed"].tolist()[1:] == [0, 1]
    assert recorded["steps"].tolist()[1:] == [4, 4]
    assert np.allclose(recorded["mean"], recorded[["a", "b"]].mean(axis=1), atol=0.01)
    assert not list((tmp_path / "work").glob("*"))
    with pytest.raises(UsageError, match=r"row typo.*learning_rat"):
        sweep.run(backbone, recipe, {"typo": {"learning_rat": 1.0}}, table, tmp_path / "work")


RECIPE = Recipe(data=("a",), batch_size=8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "the grid has no row"),
        ({"learning_rate": 1e-4}, "row 'learning_rate' must be a table of recipe settings, not 0.0001"),
        ({"a": [1, 2]}, "must be a table"),
        ({"a": {"learning_rat": 1.0}}, "row a.*learning_rat"),
        ({"a": {"learning_rate": "fast"}}, "row a: learning_rate"),
        ({"a": {"batch_size": float("inf")}}, "row a: batch_size"),
        ({"a": {"seed": -3}}, "training seed -3 must be a whole number from 0"),
        ({"a": {"seed": 2**64}}, "training seed 18446744073709551616 must be"),
        ({"a": {"seed": 1.5}}, "training seed 1.5 must be"),
        ({"a": {"seed": "0"}}, "training seed '0' must be"),
        ({"a": {"seed": True}}, "training seed True must be"),
        *(
            ({name: {"seed": 0}}, "a name starts with a letter or digit")
            for name in ("", "..", "../../x", "a/b", "/abs", "#remark", "untrained", "a\nb", "~", '"', "-x")
        ),
    ],
)
def test_a_bad_grid_is_one_sentence_before_anything_is_loaded(rows, message, tmp_path) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        sweep.run(Backbone(source="random:0/llama"), RECIPE, rows, tmp_path / "t.csv", tmp_path / "work")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "has no column 'name'"),
        ("name,x\n1,2,3,4\n1\n1,2,3,4,5\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_refused(content, message, tmp_path) -> None:
    table = tmp_path / "t.csv"
    if content is None:
        table.mkdir()
    else:
        table.write_text(content)
    with pytest.raises(RealignError, match=message):
        sweep.run(Backbone(source="random:0/llama"), RECIPE, {"a": {"seed": 0}}, table, tmp_path / "work")


@given(name=st.text(max_size=8))
def test_every_name_that_is_taken_is_a_plain_folder_and_is_read_back_from_the_table(name) -> None:
    try:
        (row,) = sweep.read_rows(RECIPE, {name: {}})
    except UsageError:
        return
    with tempfile.TemporaryDirectory() as folder:
        assert (Path(folder) / row).resolve().parent == Path(folder).resolve()
        table = Path(folder) / "t.csv"
        sweep.add(table, {"name": row}, ["a"])
        assert sweep.read(table)["name"].tolist() == [row]


def test_names_that_pandas_reads_as_missing_are_names(tmp_path) -> None:
    for name in ("NA", "nan", "null", "1", "None"):
        sweep.add(tmp_path / "t.csv", {"name": name}, ["a"])
    assert sweep.read(tmp_path / "t.csv")["name"].tolist() == ["NA", "nan", "null", "1", "None"]


def test_the_grid_of_the_laptop_recipe_is_a_grid() -> None:
    rows = config.read_toml(paths.root() / "data" / "sweeps" / "laptop-recipe.toml")
    assert list(sweep.read_rows(RECIPE, rows)) == list(rows)
