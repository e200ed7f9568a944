"""Kills and interrupts of commands, which have to go on or end. A check returns what broke."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from process import Project, finish, kill, wait_for

from realign.errors import INTERRUPTED
from realign.study.store import Store

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
    ended_in: Path | None = None,
) -> str:
    """Kill a command at random moments after it began its work, then let it go on to the end.

    ``ended_in`` is what the command makes last, where it refuses to make it twice.
    """
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
        print(f"  killed {command[0]} {done} times", flush=True)
        if ended_in is not None and ended_in.exists():  # killed after its last act
            return ""
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
    text = "[sft]\nsteps = 40\nbatch_size = 8\nsave_steps = [2]\ncheckpoint_every = 1\nvalidate_every = 0\n"
    held = []
    for name in ("whole", "killed"):
        project = Project(folder / name)
        command = ["tune", "sft", "-P", project.profile("mine", text), "-o", str(project.folder / "out")]
        if name == "whole":
            ended = project.run(*command)
            if ended.code:
                return f"undisturbed: exit code {ended.code}: {ended.err[-300:]}"
        else:
            work, out = project.folder / ".out.tmp", project.folder / "out"

            def began(work: Path = work) -> bool:
                return any(work.rglob("checkpoint-*"))

            if broken := killed_until_done(project, command, kills, chance, began, 0.5, out):
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
    said = ended.err.endswith(f"realign: {INTERRUPTED}\n") and "Traceback" not in ended.err
    return (
        "" if ended.code == 130 and said else f"after {seconds:.1f} s: code {ended.code}: {ended.err[-300:]}"
    )
