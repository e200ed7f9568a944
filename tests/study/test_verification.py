"""Published results computed again: what is compared, what is refused, and that nothing is written there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from realign import paths
from realign.errors import RealignError, UsageError
from realign.study import Graph, Node, verify
from realign.study.artifact import Request
from realign.study.store import Store
from realign.study.verification import largest_difference


class FakeStudy:
    """One published result, and one that nobody has published."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root / "artifacts")
        self.graph = Graph(self.store)
        self.profile = type("Profile", (), {"name": "fake"})
        self.value = 1.0
        published = type("Published", (), {"name": "policy", "published": True})
        self.stages: list[Any] = [published, type("Other", (), {"name": "read", "published": False})]

    def node(self, name: str, stage: str = "policy") -> Node:
        def build(folder: Path) -> None:
            pd.DataFrame({"x": [self.value]}).to_csv(folder / "x.csv", index=False)

        return Node(Request(stage, 1, name, {"name": name}), build)

    def nodes(self) -> list[Node]:
        return [self.node("a"), self.node("b")]


@pytest.fixture
def study(tmp_path, monkeypatch) -> Any:
    study = FakeStudy(tmp_path)
    monkeypatch.setattr(paths, "data", lambda: tmp_path / "data")
    study.store.publish(study.graph.run(study.node("a")), tmp_path / "data" / "results")
    shutil.rmtree(tmp_path / "artifacts")
    return study


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_is_published_is_computed_again_and_compared(study):
    assert list(verify(study)) == [("policy a", 0.0)]
    study.value = 1.5
    assert list(verify(study, "policy", 1)) == [("policy a", 0.5)]


def test_nothing_to_verify_is_an_error_that_says_what_was_looked_for(study, tmp_path):
    shutil.rmtree(tmp_path / "data" / "results")
    with pytest.raises(
        RealignError, match="nothing to verify: none of the 2 results of profile fake of stage policy"
    ):
        list(verify(study, "policy"))
    with pytest.raises(RealignError, match="nothing to verify"):
        list(verify(study))


def test_a_stage_that_is_not_published_is_refused(study):
    for stage in ("read", "polciy"):
        with pytest.raises(UsageError, match=f"unknown published stage '{stage}'"):
            list(verify(study, stage))


def test_a_damaged_published_result_is_reported_and_left_where_it_is(study, tmp_path):
    results = tmp_path / "data" / "results"
    next(results.rglob("x.csv")).write_text("x\n2.0\n")
    before = files(results)
    [(label, difference)] = verify(study)
    assert difference == float("inf")
    assert "damaged: x.csv does not match its digest" in label
    assert files(results) == before


def test_a_limit_that_checks_nothing_is_refused(study):
    with pytest.raises(UsageError, match="limit -1"):
        list(verify(study, limit=-1))


def test_verifying_writes_nothing_into_the_published_results(study, tmp_path):
    before = files(tmp_path / "data")
    list(verify(study))
    assert files(tmp_path / "data") == before


def test_difference_of_tables_is_the_largest_of_all_numbers(tmp_path):
    frame = pd.DataFrame({"name": ["a", "b"], "value": [1.0, np.nan]})
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        frame.to_csv(tmp_path / name / "t.csv", index=False)
    assert largest_difference(tmp_path / "x", tmp_path / "y") == 0
    frame.assign(value=[1.5, np.nan]).to_csv(tmp_path / "y" / "t.csv", index=False)
    assert largest_difference(tmp_path / "x", tmp_path / "y") == pytest.approx(0.5)
    for broken in (frame.assign(value=[1.0, 2.0]), frame.assign(name=["a", "c"]), frame.head(1)):
        broken.to_csv(tmp_path / "y" / "t.csv", index=False)
        assert largest_difference(tmp_path / "x", tmp_path / "y") == float("inf")
