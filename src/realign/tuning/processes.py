"""The processes of a run: those that share its batches, and others that would write to the same place."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from realign.errors import UsageError


def rank() -> int:
    """Return which of the processes that ``accelerate launch`` started this is (0 without it)."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """Return how many processes ``accelerate launch`` started (1 without it)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share(count: int, what: str) -> int:
    """Return this process's part of a step's batch, so that the batch does not depend on the number of processes.

    Raises:
        UsageError: if the processes cannot share it evenly.
    """
    if count % processes():
        raise UsageError(f"{count} {what} a step cannot be shared evenly by {processes()} processes")
    return count // processes()


@contextmanager
def alone(place: Path) -> Iterator[bool]:
    """Hold the lock of a run's directory; yields whether another process had it first, which is waited for."""
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    waited = False
    if rank() > 0:  # part of the run of process 0, which has the lock
        yield False
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waited = True
        print(
            f"another process is tuning into {place}: waiting until it is done", file=sys.stderr, flush=True
        )
        lock.acquire()
    try:
        yield waited
    finally:
        lock.release()
