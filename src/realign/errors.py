"""The two ways a call can fail because of its user or surroundings, each one clear sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

INTERRUPTED = "interrupted; finished stages are kept, run the same command to go on"


class RealignError(Exception):
    """Something could not be done: says what is wrong, where, and what to do. CLI exit code 1."""

    exit_code = 1


class UsageError(RealignError):
    """The request itself is wrong (unknown name, wrong type). CLI exit code 2."""

    exit_code = 2


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for a name that does not exist, with the nearest match and all known names."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    listed = ", ".join(names) if names else "none"
    return UsageError(f"unknown {kind} '{name}'{hint} (known: {listed})")


def check_name(kind: str, name: str) -> str:
    """Return a name that may become part of a path, such as that of a role, family, task or profile.

    Raises:
        UsageError: for anything but 1 to 100 letters, digits and ``. _ + -`` that begin with a letter or digit.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", name):
        raise UsageError(
            f"{name!r} cannot be the name of a {kind}: use letters, digits and . _ + - (at most 100, a letter or "
            "digit first)"
        )
    return name


# What torch, safetensors and tokenizers say of a full disk instead of an OSError.
_FULL_DISK = (
    "No space left on device",
    "StorageFull",
    "PytorchStreamWriter failed writing",
    ". unexpected pos ",
    "iostream error",
)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an exception, or one that it comes from, says that a disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in _FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def full_disk_as_sentence(
    place: Path, advice: str = "free some space and run the same command again"
) -> Iterator[None]:
    """Turn a full disk, however a library reports it, into one sentence: where it was written, and what to do."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RealignError) or not is_full_disk(error):
            raise
        raise RealignError(f"the disk that holds {place} is full: {advice}") from error
