"""Launchers run the same stages in an order that works, whoever runs them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from realign.errors import RealignError, UsageError
from realign.study import Graph, Node, launch
from realign.study.artifact import Request
from realign.study.store import Store


class FakeStudy:
    """Three nodes, c needs b needs a, on a real store."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.graph = Graph(self.store)
        self.ran: list[str] = []
        self.a = self.node("a")
        self.b = self.node("b", self.a)
        self.c = self.node("c", self.b)

    def node(self, name: str, *needs: Node) -> Node:
        def build(folder: Path) -> None:
            self.ran.append(name)
            (folder / "x.txt").write_text(name)

        return Node(Request("demo", 1, name, {"name": name}), build, needs)

    def configuration(self) -> dict[str, Any]:
        return {}


def test_needs_run_before_what_needs_them(tmp_path):
    study = FakeStudy(tmp_path)
    assert launch.run(study, [study.c, study.a]) == 3
    assert study.ran == ["a", "b", "c"]


def test_finished_stages_are_not_run_again(tmp_path):
    study = FakeStudy(tmp_path)
    study.graph.run(study.b)
    study.ran.clear()
    assert launch.run(FakeStudy(tmp_path), [study.c]) == 1


def test_a_found_result_does_not_ask_for_what_made_it(tmp_path):
    study = FakeStudy(tmp_path / "one")
    study.graph.run(study.c)
    study.store.publish(study.store.find(study.c.request), tmp_path / "published")
    reader = Graph(Store(tmp_path / "two", tmp_path / "published"))
    assert reader.missing([study.c]) == []


def test_slurm_jobs_wait_for_the_jobs_they_need(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    submitted = []

    class Executor:
        def __init__(self, folder: str) -> None:
            self.parameters: dict[str, Any] = {}

        def update_parameters(self, **parameters: Any) -> None:
            self.parameters = parameters

        def submit(self, function: Any, *arguments: Any) -> Any:
            json.dumps(arguments)  # what a job gets must travel
            submitted.append((self.parameters["job_name"], self.parameters["additional_parameters"]))
            return type("Job", (), {"job_id": str(100 + len(submitted))})

    monkeypatch.setattr(submitit, "SlurmExecutor", Executor)
    study = FakeStudy(tmp_path)
    launch.run(study, [study.c], "slurm")
    assert submitted == [
        ("demo a", {}),
        ("demo b", {"dependency": "afterok:101"}),
        ("demo c", {"dependency": "afterok:102"}),
    ]


def test_without_slurm_the_error_says_so(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    study = FakeStudy(tmp_path)
    with pytest.raises(RealignError, match="no SLURM here"):
        launch.run(study, [study.c], "slurm")


def test_unknown_launcher_is_named(tmp_path):
    study = FakeStudy(tmp_path)
    with pytest.raises(UsageError, match="unknown launcher 'cloud'"):
        launch.run(study, [study.a], "cloud")


def test_workers_run_a_chain_in_processes(tmp_path, monkeypatch):
    study = FakeStudy(tmp_path)
    order = []

    class Pool:
        """Runs at once, in this process: the order is what is tested."""

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def submit(self, function: Any, configuration: Any, published: Any, key: str, gpu: Any) -> Any:
            from concurrent.futures import Future

            order.append(key)
            future: Future[str] = Future()
            future.set_result(key)
            return future

        def shutdown(self, **_: Any) -> None: ...

    monkeypatch.setattr(launch, "ProcessPoolExecutor", Pool)
    started = time.monotonic()
    launch.run(study, [study.c], "workers", count=2)
    assert order == [n.request.key for n in (study.a, study.b, study.c)]
    assert time.monotonic() - started < 60
