"""Task instructions: the table in data/instructions.toml. Imports no mteb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from realign import paths
from realign.config import read_toml
from realign.errors import RealignError


@dataclass(frozen=True)
class Instructions:
    """Instructions by task name, and by task type for tasks without their own.

    ``strict`` makes a task without its own instruction an error instead of using its type's.
    """

    tasks: Mapping[str, str]
    types: Mapping[str, str]
    strict: bool = False

    def __call__(self, name: str, kind: str) -> str:
        """Return the instruction of a task.

        Raises:
            RealignError: no instruction for the task (strict), or none for its type either.
        """
        instruction = self.tasks.get(name) or (None if self.strict else self.types.get(kind))
        if not instruction:
            raise RealignError(
                f"task {name} ({kind}) has no instruction: add it under [tasks] in data/instructions.toml"
            )
        return instruction


def load(path: Path | None = None, *, strict: bool = False) -> Instructions:
    """Read the table (data/instructions.toml of the project unless a path is given)."""
    where = path or paths.data() / "instructions.toml"
    tasks, types = _read(where, where.stat().st_mtime_ns if where.exists() else 0)
    return Instructions(tasks, types, strict)


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> tuple[dict[str, str], dict[str, str]]:
    table = read_toml(path)
    unknown = set(table) - {"tasks", "types"}
    if unknown:
        raise RealignError(f"{path}: unknown table [{sorted(unknown)[0]}] (known: tasks, types)")
    for section in ("tasks", "types"):
        for name, text in table.get(section, {}).items():
            if not isinstance(text, str) or not text.strip() or text != text.strip():
                raise RealignError(
                    f"{path}: [{section}] {name} must be a non-empty text without outer spaces"
                )
    return table.get("tasks", {}), table.get("types", {})
