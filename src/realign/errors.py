"""The two ways a call can fail because of its user or surroundings, each one clear sentence."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
