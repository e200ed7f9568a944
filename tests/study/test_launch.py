"""Launchers run the same stages in an order that works, whoever runs them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from realign.errors import RealignError, UsageError
from realign.study import Graph, Node, launch, workers
from realign.study.artifact import Request
from realign.study.store import Store

T = TypeVar("T")


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


class SpreadStudy(FakeStudy):
    """A study whose stages are computed in other processes, which note who and what they see."""

    def configuration(self) -> dict[str, Any]:
        return {"root": str(self.store.root)}


def compute(configuration: dict[str, Any], published: bool, key: str) -> None:
    assert not published
    root = Path(configuration["root"])
    study = FakeStudy(root)
    node = {n.request.key: n for n in (study.a, study.b, study.c)}[key]
    assert study.graph.missing([node]) == [node]  # what it needs is there
    with (root.parent / "order").open("a") as file:
        file.write(node.request.slug)
    study.graph.run(node)


def test_workers_run_a_chain_in_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "compute", compute)
    study = SpreadStudy(tmp_path / "store")
    assert launch.run(study, [study.c], "workers", count=2) == 3
    assert (tmp_path / "order").read_text() == "abc"
    assert study.graph.missing([study.c]) == []


def look(folder: str, seconds: float) -> None:
    """Note which process ran and which GPU it sees; a job of every worker is running for a while."""
    note = {"pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "started": time.time()}
    time.sleep(seconds)
    name = f"{time.monotonic_ns()}-{os.getpid()}.json"
    (Path(folder) / name).write_text(json.dumps({**note, "ended": time.time()}))


@pytest.mark.parametrize("visible", ["", "3,GPU-5f"])
def test_a_worker_keeps_a_gpu_of_its_own_for_life(tmp_path, monkeypatch, visible):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with workers.Workers(look) as pool:
        # jobs of different length: the worker that is free next is not the next in turn
        for seconds in (0.8, 0.1, 0.1, 0.1, 0.8, 0.1):
            while not pool.idle:
                pool.wait()
            pool.submit(seconds, "job", (str(tmp_path), seconds))
        while pool.running:
            pool.wait()
        with pytest.raises(UsageError, match="3 workers: use 1 to 2"):
            workers.Workers(look, 3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    notes = [json.loads(file.read_text()) for file in sorted(tmp_path.iterdir())]
    assert len(notes) == 6
    assert len({(note["pid"], note["gpu"]) for note in notes}) == 2
    assert {note["gpu"] for note in notes} == set((visible or "0,1").split(","))
    for one, other in itertools.combinations(notes, 2):
        apart = one["ended"] <= other["started"] or other["ended"] <= one["started"]
        assert apart or one["gpu"] != other["gpu"]


def fail(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"sentence": RealignError("no space"), "bug": KeyError("x")}[how]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("sentence", "stage a failed: no space"),
        ("bug", "stage a failed: KeyError: 'x'"),
        ("killed", "stage a failed: its process ended with exit code -9"),
    ],
)
def test_what_becomes_of_a_worker_is_said_with_the_stage(how, sentence):
    with workers.Workers(fail, 1) as pool:
        pool.submit("a", "stage a", (how,))
        with pytest.raises(RealignError, match=sentence):
            pool.wait()


def endless(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


PARENT = """
import sys
from test_launch import endless
from realign.study import workers
if __name__ == "__main__":
    with workers.Workers(endless, 2) as pool:
        for job in (1, 2):
            pool.submit(job, "job", (sys.argv[1],))
        pool.wait()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_in_the_middle_of_a_stage(tmp_path, how):
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "pids").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "pids")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as parent:
        pids = wait_for(
            lambda: pids if len(pids := [int(p.name) for p in (tmp_path / "pids").iterdir()]) == 2 else []
        )
        parent.send_signal(how)
        parent.wait(timeout=20)
    assert wait_for(lambda: not any(alive(pid) for pid in pids))


def test_a_process_ends_with_another_that_is_no_parent_of_it_or_is_gone(tmp_path, monkeypatch):
    program = (
        "import sys, time; from realign import hardware; hardware.end_with(int(sys.argv[1])); time.sleep(60)"
    )
    for without in ("", "import os; del os.pidfd_open; "):  # as on other systems
        with subprocess.Popen(["sleep", "60"]) as owner:
            other = subprocess.Popen([sys.executable, "-c", without + program, str(owner.pid)])
            time.sleep(1)
            assert other.poll() is None
            owner.kill()
        assert other.wait(timeout=10) == 1
        late = subprocess.Popen([sys.executable, "-c", without + program, str(owner.pid)])
        assert late.wait(timeout=10) == 1


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(look: Callable[[], T], seconds: float = 20) -> T:
    end = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return seen
