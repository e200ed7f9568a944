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

from realign import paths
from realign.errors import RealignError, UsageError
from realign.study.artifact import MANIFEST, Artifact, Request, canonical, read_manifest, sealed
from realign.study.store import Store


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


def edit(path: Path, **changes: object) -> None:
    manifest = json.loads((path / MANIFEST).read_text()) | changes
    (path / MANIFEST).write_text(json.dumps(manifest))


def hide_table(path: Path) -> None:
    (path / "value.txt").write_text("evil")
    edit(path, files={})


DAMAGE = {
    "no file listed, table changed": hide_table,
    "what was used": lambda path: edit(path, used={"dtype": "bfloat16"}),
    "settings": lambda path: edit(path, config={"a": 2}),
    "inputs": lambda path: edit(path, inputs={"m": "k"}),
    "date": lambda path: edit(path, started="2020-01-01T00:00:00Z"),
    "versions": lambda path: edit(path, versions={}),
    "stage": lambda path: edit(path, stage="other"),
    "digest": lambda path: edit(path, digest="0" * 64),
    "a table more": lambda path: (path / "more.csv").write_text("x\n1\n"),
    "a table less": lambda path: (path / "value.txt").unlink(),
    "a byte": lambda path: (path / "value.txt").write_text("gooe"),
    "a table that is a folder": lambda path: ((path / "value.txt").unlink(), (path / "value.txt").mkdir()),
    "no manifest": lambda path: (path / MANIFEST).unlink(),
    "manifest of brackets": lambda path: (path / MANIFEST).write_text("[" * 100_000),
    "manifest that is a list": lambda path: (path / MANIFEST).write_text("[]"),
    "manifest in another encoding": lambda path: (path / MANIFEST).write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_is_changed_in_an_artifact_it_is_not_accepted(tmp_path, damage, capsys):
    artifact = Store(tmp_path).get(request(a=1), write("good"))
    DAMAGE[damage](artifact.path)
    list(Store(tmp_path).listing())  # no matter how broken, it can be listed
    again = Store(tmp_path).get(request(a=1), write("good"))
    assert (again.path / "value.txt").read_text() == "good"
    assert again.manifest == read_manifest(again.path)
    assert again.manifest["used"] == {"dtype": "float32"}
    assert len(list(artifact.path.parent.glob("*.damaged-1"))) == 1
    assert "damaged" in capsys.readouterr().err


@given(st.binary(min_size=1, max_size=40), st.integers(0, 10**6), st.sampled_from(["value.txt", MANIFEST]))
def test_no_write_into_an_artifact_is_accepted(tmp_path_factory, data, place, name):
    store = tmp_path_factory.mktemp("store")
    file = Store(store).get(request(a=1), write("good")).path / name
    before, text = read_manifest(file.parent), file.read_bytes()
    at = place % (len(text) + 1)
    file.write_bytes(text[:at] + data + text[at + len(data) :])
    found = Store(store).find(request(a=1))
    assert found is None or (found.manifest == before and (file.parent / "value.txt").read_text() == "good")


def test_an_artifact_from_before_manifests_had_a_digest_is_accepted(tmp_path):
    artifact = Store(tmp_path).get(request(a=1), write())
    manifest = {name: value for name, value in artifact.manifest.items() if name != "digest"}
    (artifact.path / MANIFEST).write_text(json.dumps({**manifest, "converted_from": "0" * 64}))
    (artifact.path / ".DS_Store").write_text("what a desktop leaves")
    assert Store(tmp_path).find(request(a=1)) is not None


def test_every_published_artifact_is_whole_and_sealed():
    results = paths.data() / "results"
    store, listed = Store(Path("/nowhere"), results), 0
    for artifact in store.listing():
        listed += 1
        assert store.damage(artifact.path, artifact.manifest["key"]) is None, artifact.path
        assert sealed(artifact.manifest) == artifact.manifest, artifact.path
    assert listed == len(list(results.glob(f"*/*/{MANIFEST}"))) > 300


@pytest.mark.parametrize("kind", ["file", "loop", "dangling"])
def test_what_stands_in_the_place_of_an_artifact_is_moved_before_anything_is_computed(tmp_path, kind):
    place = tmp_path / request(a=1).folder
    place.parent.mkdir(parents=True)
    if kind == "file":
        place.write_text("not a directory")
    else:
        place.symlink_to(place if kind == "loop" else tmp_path / "nowhere")
    artifact = Store(tmp_path).get(request(a=1), write())
    assert (artifact.path / "value.txt").read_text() == "x"


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_a_stage_that_cannot_have_a_folder_is_said_before_anything_is_computed(tmp_path, kind):
    if kind == "file":
        (tmp_path / "demo").write_text("not a directory")
    else:
        (tmp_path / "demo").symlink_to(tmp_path / "demo")
    with pytest.raises(RealignError, match="cannot be written"):
        Store(tmp_path).get(request(a=1), lambda _: pytest.fail("computed"))


def test_no_slug_leads_out_of_its_stage(tmp_path):
    for n, slug in enumerate(("../../../x", "a/b", "/etc", "a\0b", "..", "é" * 300, "x" * 300)):
        artifact = Store(tmp_path).get(Request("demo", 1, slug, {"n": n}), write())
        assert artifact.path.parent == tmp_path / "demo"
        assert artifact.manifest["slug"] == slug


def test_a_store_in_the_published_results_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for root in (tmp_path, tmp_path / "x", tmp_path / "link"):
        with pytest.raises(UsageError, match="lies in the published results"):
            Store(root, tmp_path)


def _meet(root: str, barrier, built, errors) -> None:
    def build(folder: Path) -> None:
        with built.get_lock():
            built.value += 1
        time.sleep(0.02)
        (folder / "value.txt").write_text("good")

    store = Store(Path(root))
    barrier.wait()
    try:
        assert (store.get(request(a=1), build).path / "value.txt").read_text() == "good"
    except BaseException as error:
        errors.put(repr(error))
        raise


def meet(root: Path, processes: int = 4) -> tuple[int, list[str]]:
    """Ask for one artifact in several processes at once; how often it was built, and errors."""
    context = multiprocessing.get_context("fork")
    barrier, built, errors = context.Barrier(processes), context.Value("i", 0), context.Queue()
    all_of_them = [
        context.Process(target=_meet, args=(str(root), barrier, built, errors)) for _ in range(processes)
    ]
    for process in all_of_them:
        process.start()
    for process in all_of_them:
        process.join()
    return built.value, [errors.get(timeout=1) for p in all_of_them if p.exitcode]


def test_damage_met_by_several_processes_is_set_aside_once_and_no_good_artifact_is(tmp_path):
    for trial in range(15):
        root = tmp_path / str(trial)
        path = Store(root).get(request(a=1), write("good")).path
        (path / "value.txt").write_text("evil")
        assert meet(root) == (1, [])
        aside = sorted(path.parent.glob("*.damaged-*"))
        assert [(each / "value.txt").read_text() for each in aside] == ["evil"]


def test_a_stored_failure_is_tried_again_by_one_of_several_processes(tmp_path):
    def failed(artifact: Artifact) -> bool:
        return (artifact.path / "value.txt").read_text() == "failed"

    path = Store(tmp_path).get(request(a=1), write("failed")).path
    first, second = Store(tmp_path), Store(tmp_path)
    assert second.find(request(a=1)) is not None  # as seen before the first one acted
    first.retry(request(a=1), failed)
    first.get(request(a=1), write("good"))
    second.retry(request(a=1), failed)
    assert (path / "value.txt").read_text() == "good"
    assert len(list(path.parent.iterdir())) == 2


def test_publishing_replaces_a_damaged_artifact_whole(tmp_path, monkeypatch):
    store, published = Store(tmp_path / "a"), tmp_path / "published"
    artifact = store.get(request(a=1), write("good"))
    place = store.publish(artifact, published)
    for damage in DAMAGE.values():
        damage(place)
        assert store.publish(artifact, published) == place
        assert Store(tmp_path / "b", published).find(request(a=1)).layer == "published"
        assert sorted(p.name for p in place.parent.iterdir()) == [place.name]
        assert [p.name for p in published.iterdir()] == ["demo"]
    (place / "value.txt").write_text("evil")
    (artifact.path / "value.txt").write_text("evil too")
    with pytest.raises(RealignError, match="is damaged"):
        store.publish(artifact, published)
    assert (place / "value.txt").read_text() == "evil"  # nothing is replaced by damage
