"""Commands of realign as processes of their own, in a scratch project, to be killed and compared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import realign
from realign import paths

PROGRAM = "from realign.cli import main; main()"
MARK = "REALIGN_CAMPAIGN"


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """What realign itself said on stderr."""
        return [line for line in self.err.splitlines() if line.startswith("realign: ")]


@dataclass
class Project:
    """A scratch project with a store of its own: the data of this one, and notebooks and book to write to."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("data", "_config.yml", "requirements.lock"):
            (self.folder / name).symlink_to(paths.root() / name)
        made = shutil.ignore_patterns("_build", "_generated", "_extra", "chapters", "*.ipynb", ".*")
        for name in ("notebooks", "book"):
            shutil.copytree(paths.root() / name, self.folder / name, ignore=made)

    @property
    def store(self) -> Path:
        """Where its artifacts are."""
        return self.folder / "artifacts"

    def profile(self, name: str, text: str) -> str:
        """Write a small profile and return its place."""
        file = self.folder / f"{name}.toml"
        file.write_text(f'extends = "smoke"\n{text}')
        return str(file)

    def environment(self, **changes: str) -> dict[str, str]:
        """Variables of a process: one thread, no hub, nothing published, and a mark to find it again."""
        own = {
            "PYTHONPATH": str(Path(realign.__file__).parents[1]),
            "REALIGN_ROOT": str(self.folder),
            "REALIGN_STORE": str(self.store),
            "REALIGN_FRESH": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            MARK: self.mark,
        }
        return {**os.environ, **own, **changes}

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=self.folder,
            env=self.environment(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, seconds: float = 900, **changes: str) -> Done:
        """Run a command to its end."""
        return finish(self.start(*arguments, **changes), seconds)

    def survivors(self) -> list[int]:
        """Processes of this project that are still there."""
        wanted, pids = f"{MARK}={self.mark}".encode(), []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (place / "environ").read_bytes().split(b"\0"):
                    pids.append(int(place.name))
            except OSError:
                continue
        return pids


def finish(process: subprocess.Popen[str], seconds: float = 900) -> Done:
    """Wait for a command; one that takes longer is killed."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        out, err = process.communicate()
        err += f"\n(killed after {seconds} s)"
    return Done(process.returncode, out, err)


def kill(process: subprocess.Popen[str], how: int = signal.SIGKILL, *, group: bool = True) -> None:
    """Send a signal to a command, and to what it started if ``group``."""
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, how)


def wait_for(look: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until something is so; whether it became so."""
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
