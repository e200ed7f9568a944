"""The store: equal requests share one artifact; kills, damage and full disks lose nothing."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realign.errors import RealignError
from realign.study.store import MANIFEST, Request, Store, canonical


def request(**config: object) -> Request:
    return Request("demo", 1, "thing", config=dict(config))


def write(text: str = "x"):
    def build(folder: Path) -> dict[str, object]:
        (folder / "value.txt").write_text(text)
        return {"dtype": "float32"}

    return build


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_key_does_not_depend_on_the_order_of_settings(config):
    reverse = dict(reversed(list(config.items())))
    assert Request("s", 1, "a", config=config).key == Request("s", 1, "b", config=reverse).key
    assert json.loads(canonical(config)) == config


@pytest.mark.parametrize(
    "other",
    [
        Request("demo", 2, "thing", config={"a": 1}),
        Request("other", 1, "thing", config={"a": 1}),
        Request("demo", 1, "thing", config={"a": 2}),
        Request("demo", 1, "thing", config={"a": 1}, inputs={"m": "k"}),
        Request("demo", 1, "thing", config={"a": 1}, outside={"f": "d"}),
    ],
)
def test_anything_that_changes_a_result_changes_the_key(other):
    assert request(a=1).key != other.key


def test_second_get_does_not_build_again(tmp_path):
    store = Store(tmp_path)
    first = store.get(request(a=1), write())
    again = Store(tmp_path).get(request(a=1), lambda folder: pytest.fail("built twice"))
    assert again.path == first.path
    assert again.manifest["used"] == {"dtype": "float32"}
    assert again.manifest["files"]["value.txt"]["bytes"] == 1


def test_published_layer_answers_and_is_never_written(tmp_path):
    made = Store(tmp_path / "a")
    artifact = made.get(request(a=1), write())
    made.publish(artifact, tmp_path / "published")
    before = sorted(p for p in (tmp_path / "published").rglob("*"))
    reader = Store(tmp_path / "b", tmp_path / "published")
    assert reader.get(request(a=1), lambda f: pytest.fail("built")).layer == "published"
    assert reader.get(request(a=2), write()).layer == "local"
    assert sorted(p for p in (tmp_path / "published").rglob("*")) == before


@pytest.mark.parametrize("damage", ["change", "remove", "manifest"])
def test_damaged_artifact_is_set_aside_and_rebuilt(tmp_path, damage, capsys):
    artifact = Store(tmp_path).get(request(a=1), write("good"))
    if damage == "change":
        (artifact.path / "value.txt").write_text("evil")
    elif damage == "remove":
        (artifact.path / "value.txt").unlink()
    else:
        (artifact.path / MANIFEST).write_text("{")
    again = Store(tmp_path).get(request(a=1), write("good"))
    assert (again.path / "value.txt").read_text() == "good"
    assert len(list(artifact.path.parent.glob("*.damaged-1"))) == 1
    assert "damaged" in capsys.readouterr().err


def test_damaged_published_artifact_is_not_used(tmp_path):
    store = Store(tmp_path / "a")
    place = store.publish(store.get(request(a=1), write("good")), tmp_path / "published")
    (place / "value.txt").write_text("evil")
    again = Store(tmp_path / "b", tmp_path / "published").get(request(a=1), write("good"))
    assert again.layer == "local"


def test_failed_build_leaves_nothing(tmp_path):
    def broken(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Store(tmp_path).get(request(a=1), broken)
    assert not list(tmp_path.rglob("half.txt"))
    assert Store(tmp_path).find(request(a=1)) is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
    ids=["system", "torch"],
)
def test_full_disk_is_one_sentence(tmp_path, error):
    def full(folder: Path) -> None:
        raise error

    with pytest.raises(RealignError, match="is full"):
        Store(tmp_path).get(request(a=1), full)


def test_unwritable_store_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(RealignError, match="cannot be written"):
        Store(tmp_path / "file").get(request(a=1), write())


def _slow(root: str, marks: str) -> None:
    def build(folder: Path) -> None:
        with Path(marks).open("a") as handle:
            handle.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        (folder / "value.txt").write_text("x")

    Store(Path(root)).get(request(a=1), build)


def test_two_processes_compute_once(tmp_path):
    context = multiprocessing.get_context("fork")
    marks = tmp_path / "marks"
    both = [context.Process(target=_slow, args=(str(tmp_path / "s"), str(marks))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert len(marks.read_text().splitlines()) == 1


def _hang(root: str, marks: str) -> None:
    def build(folder: Path) -> None:
        (folder / "value.txt").write_text("half")
        (Store(Path(root)).work(request(a=1)) / "checkpoint").write_text("7")
        Path(marks).write_text("in")
        time.sleep(60)

    Store(Path(root)).get(request(a=1), build)


def test_kill_leaves_no_artifact_but_keeps_the_work_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    marks = tmp_path / "marks"
    process = context.Process(target=_hang, args=(str(tmp_path / "s"), str(marks)))
    process.start()
    while not marks.exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    store = Store(tmp_path / "s")
    assert store.find(request(a=1)) is None
    assert (store.work(request(a=1)) / "checkpoint").read_text() == "7"
    store.get(request(a=1), write("whole"))
    assert not (tmp_path / "s" / ".work" / f"demo-{request(a=1).key[:12]}").exists()
