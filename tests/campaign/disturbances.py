"""What is done to realign: kills, interrupts, damage, several at once, a full disk. A check returns what broke."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from process import Project, finish, kill, wait_for

from realign import paths
from realign.study.artifact import MANIFEST, Request, read_manifest
from realign.study.store import Store

INTERRUPTED = "interrupted; finished stages are kept, run the same command to go on"
# Columns that say how long something took.
TIMES = r"seconds|per_second|tokens/s|memory|time"


# -- contents ---------------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, object]:
    """What every artifact of a store holds, by stage and folder: tables without times, digests of weights."""
    held: dict[str, object] = {}
    for artifact in Store(root).listing():
        assert Store(root).damage(artifact.path, artifact.manifest["key"]) is None, artifact.path
        for name, facts in artifact.manifest["files"].items():
            value: object = facts["sha256"]
            if name.endswith((".csv", ".csv.gz")):
                frame = pd.read_csv(artifact.path / name)
                value = frame.loc[:, ~frame.columns.str.contains(TIMES)].round(6).to_csv(index=False)
            elif not name.endswith((".safetensors", ".npz", ".npy")):
                continue  # notes with dates and places
            held[f"{artifact.path.parent.name}/{artifact.path.name}/{name}"] = value
    return held


def difference(one: dict[str, object], other: dict[str, object]) -> str:
    """Say how the contents of two stores differ; empty if they do not."""
    if one.keys() != other.keys():
        return f"{len(one.keys() ^ other.keys())} files in one store only: {min(one.keys() ^ other.keys())}"
    changed = [name for name in one if one[name] != other[name]]
    return f"{len(changed)} files differ, the first is {changed[0]}" if changed else ""


# -- kills ------------------------------------------------------------------------------------------


def killed_until_done(
    project: Project,
    command: list[str],
    kills: int,
    chance: random.Random,
    began: Callable[[], bool],
    longest: float,
) -> str:
    """Kill a command at random moments after it began its work, then let it go on to the end."""
    done = 0
    for _ in range(kills):
        process = project.start(*command)
        wait_for(lambda process=process: began() or process.poll() is not None, 120)
        time.sleep(chance.uniform(0, longest))
        if process.poll() is not None:  # there was nothing left to kill
            ended = finish(process)
            if ended.code:
                return f"after {done} kills: exit code {ended.code}: {ended.err[-300:]}"
            break
        kill(process)
        finish(process)
        done += 1
    ended = project.run(*command)
    if ended.code:
        return f"after {done} kills: exit code {ended.code}: {ended.err[-300:]}"
    damaged = list(project.store.rglob("*.damaged-*")) if project.store.is_dir() else []
    return f"{len(damaged)} damaged artifacts after {done} kills" if damaged else ""


def training(folder: Path, kills: int, chance: random.Random) -> str:
    """A killed training that goes on ends as an undisturbed one, to the bit."""
    text = "[recipe]\nqueries = 48\nepochs = 2\ncheckpoint_steps = 1\n"
    stores = []
    for name in ("whole", "killed"):
        project = Project(folder / name)
        command = ["train", "base", "-P", project.profile("mine", text)]
        if name == "whole":
            ended = project.run(*command)
            if ended.code:
                return f"undisturbed: exit code {ended.code}: {ended.err[-300:]}"
        else:
            work = project.store / ".work"

            def began(work: Path = work) -> bool:
                return any(work.glob("train-*/*"))

            if broken := killed_until_done(project, command, kills, chance, began, 1.5):
                return broken
        stores.append(contents(project.store))
    return difference(*stores)


def tuning(folder: Path, kills: int, chance: random.Random) -> str:
    """A killed tuning that goes on ends as an undisturbed one, to the bit."""
    text = "[sft]\nsteps = 6\nbatch_size = 8\nsave_steps = [2]\ncheckpoint_every = 1\nvalidate_every = 0\n"
    held = []
    for name in ("whole", "killed"):
        project = Project(folder / name)
        command = ["tune", "sft", "-P", project.profile("mine", text), "-o", str(project.folder / "out")]
        if name == "whole":
            ended = project.run(*command)
            if ended.code:
                return f"undisturbed: exit code {ended.code}: {ended.err[-300:]}"
        else:
            work = project.folder / ".out.tmp"

            def began(work: Path = work) -> bool:
                return any(work.rglob("checkpoint-*"))

            if broken := killed_until_done(project, command, kills, chance, began, 1.5):
                return broken
        files = sorted((project.folder / "out").rglob("*.safetensors"))
        held.append({str(f.relative_to(project.folder)): f.read_bytes() for f in files})
    return difference(*held) if held[0] else "nothing was tuned"


def book(folder: Path, kills: int, chance: random.Random) -> str:
    """A killed smoke book that goes on has the keys and contents of an undisturbed one."""
    whole, killed = Project(folder / "whole"), Project(folder / "killed")
    ended = whole.run("book", "-P", "smoke")
    if ended.code:
        return f"undisturbed: exit code {ended.code}: {ended.err[-300:]}"
    broken = killed_until_done(killed, ["book", "-P", "smoke"], kills, chance, lambda: True, 30)
    left = [p.name for p in (killed.store / ".tmp").iterdir()] if (killed.store / ".tmp").is_dir() else []
    return (
        broken
        or difference(contents(whole.store), contents(killed.store))
        or (f"left behind: {left}" if left else "")
    )


def orphans(folder: Path, launcher: list[str], how: signal.Signals, chance: random.Random) -> str:
    """Nothing that a command started outlives it."""
    project = Project(folder)
    process = project.start(*launcher)
    started = wait_for(lambda: len(project.survivors()) > 1, 120)
    time.sleep(chance.uniform(2, 6))
    kill(process, how, group=False)
    # a process that is still importing modules sees it when it has
    gone = wait_for(lambda: project.survivors() in ([], [process.pid]), 60)
    process.stdout.close()  # type: ignore[union-attr]
    process.stderr.close()  # type: ignore[union-attr]
    process.wait(20)
    left = project.survivors()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return (
        ("" if gone and not left else f"{len(left)} processes live on") if started else "it started nothing"
    )


def interrupt(folder: Path, command: list[str], seconds: float) -> str:
    """Ctrl-C ends a command with the promised line and exit code 130."""
    project = Project(folder)
    process = project.start(*command)
    time.sleep(seconds)
    kill(process, signal.SIGINT)
    ended = finish(process, 60)
    if ended.code == 0:
        return ""  # it was faster
    said = ended.err.rstrip().endswith(INTERRUPTED)
    return (
        "" if ended.code == 130 and said else f"after {seconds:.1f} s: code {ended.code}: {ended.err[-300:]}"
    )


# -- damage and concurrency -------------------------------------------------------------------------


def damage(folder: Path, chance: random.Random) -> str:
    """Damage a real artifact at random: it is set aside (published: passed over), never accepted."""
    original = chance.choice(sorted((paths.data() / "results").glob(f"*/*/{MANIFEST}"))).parent
    manifest = read_manifest(original)
    request = Request(
        *(manifest[n] for n in ("stage", "stage_version", "slug", "config", "inputs", "outside"))
    )
    ways = ("cut", "bit", "missing", "more", "manifest field", "manifest cut")
    for layer in ("local", "published"):
        place = folder / layer / request.folder
        shutil.copytree(original, place)
        file = chance.choice(sorted(p for p in place.rglob("*") if p.is_file() and p.name != MANIFEST))
        way = chance.choice(ways)
        spoil(place, file, way, chance)
        before = sorted((p.name, p.read_bytes()) for p in place.rglob("*") if p.is_file())
        root = folder / layer if layer == "local" else folder / "empty"
        store = Store(root, None if layer == "local" else folder / layer)
        if store.find(request) is not None:
            return f"{layer} {original.name}: accepted after '{way}' of {file.name}"
        aside = place if layer == "published" else place.with_name(f"{place.name}.damaged-1")
        if sorted((p.name, p.read_bytes()) for p in aside.rglob("*") if p.is_file()) != before:
            return f"{layer} {original.name}: the damaged folder is not as it was"
    return ""


def spoil(place: Path, file: Path, way: str, chance: random.Random) -> None:
    """Damage one artifact."""
    data, text = file.read_bytes(), (place / MANIFEST).read_text()
    if way == "cut":
        file.write_bytes(data[: chance.randrange(len(data))])
    elif way == "bit":
        at = chance.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :])
    elif way == "missing":
        file.unlink()
    elif way == "more":
        (file.parent / "more.csv").write_text("x\n1\n")
    elif way == "manifest cut":
        (place / MANIFEST).write_text(text[: chance.randrange(len(text) - 1)])
    else:
        manifest = json.loads(text)
        name = chance.choice(sorted(manifest.keys() - {"digest"}))
        (place / MANIFEST).write_text(json.dumps({**manifest, name: "changed"}))


MEET = """
import sys, time
from pathlib import Path
from realign.study.artifact import Request
from realign.study.store import Store
def build(folder):
    with open(sys.argv[2], "a") as file:
        file.write("x")
    time.sleep(0.05)
    (folder / "value.txt").write_text("good")
store, trials = Path(sys.argv[1]), int(sys.argv[3])
for trial in range(trials):
    start = float(sys.argv[4]) + 0.4 * trial
    time.sleep(max(0, start - time.time()))
    path = Store(store).get(Request("demo", 1, "thing", {"n": trial}), build).path
    assert (path / "value.txt").read_text() == "good"
"""


def several_at_once(folder: Path, trials: int, processes: int = 4) -> str:
    """Several processes ask for one artifact, every other time damaged: it is made once and none of them fails."""
    store, built = folder / "store", folder / "built"
    folder.mkdir(parents=True)
    for trial in range(0, trials, 2):
        request = Request("demo", 1, "thing", {"n": trial})
        path = Store(store).get(request, lambda place: (place / "value.txt").write_text("x") and None).path
        (path / "value.txt").write_text("bad")
    start = time.time() + 15
    arguments = [str(store), str(built), str(trials), str(start)]
    together = [
        subprocess.Popen([sys.executable, "-c", MEET, *arguments], stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    errors = [each.communicate()[1] for each in together]
    died = [error for each, error in zip(together, errors, strict=True) if each.returncode]
    if died:
        return f"{len(died)} of {processes} died: {died[0][-300:]}"
    aside = [p for p in store.rglob("*.damaged-*") if (p / "value.txt").read_text() != "bad"]
    count = len(built.read_text())
    return (f"{len(aside)} good ones set aside" if aside else "") or (
        f"built {count} times instead of {trials}" if count != trials else ""
    )


def same_command_at_once(folder: Path, processes: int = 4) -> str:
    """The same training started several times at once is done once."""
    project = Project(folder)
    together = [project.start("train", "base", "-P", "smoke") for _ in range(processes)]
    ended = [finish(each) for each in together]
    if any(each.code for each in ended):
        return next(f"exit code {each.code}: {each.err[-300:]}" for each in ended if each.code)
    made = len(list((project.store / "train").iterdir()))
    return "" if made == 1 else f"{made} models were made"


# -- a full disk ------------------------------------------------------------------------------------


def full_disk(folder: Path, megabytes: float, command: list[str]) -> str | None:
    """A command on a small disk is one sentence, and goes on when there is room; None without the right to mount."""
    project = Project(folder)
    project.store.mkdir()

    def mount(size: str, *options: str) -> bool:
        words = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            ",".join([*options, f"size={size}"]),
            "none",
            str(project.store),
        ]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    if os.geteuid() != 0 or not mount(f"{int(megabytes * 1024)}k"):
        return None
    try:
        ended = project.run(*command)
        if ended.code != 1 or "Traceback" in ended.err or "full" not in ended.err:
            return f"{megabytes:.1f} MB: exit code {ended.code}: {ended.err[-300:]}"
        mount("900m", "remount")
        ended = project.run(*command)
        return "" if ended.code == 0 else f"{megabytes:.1f} MB, then room: {ended.err[-300:]}"
    finally:
        subprocess.run(["umount", "-l", str(project.store)], check=False)
