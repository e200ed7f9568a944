"""Damaged artifacts, several processes at once, a full disk. A check returns what broke."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from process import Project, finish

from realign import paths
from realign.study.artifact import MANIFEST, Request, read_manifest
from realign.study.store import Store


def random_damage(folder: Path, chance: random.Random) -> str:
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
        with redirect_stderr(StringIO()):
            accepted = store.find(request) is not None
        if accepted:
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
