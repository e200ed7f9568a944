"""How a user names a model: one grammar for readers, evaluation, export and training.

``ROLE`` is a backbone of the family and ``ROLE@STEP`` its checkpoint at a tuning step; ``ROLE:SEED`` is a
trained embedding model and ``ROLE:SEED@STEP`` that model at a training step that the recipe keeps;
``path:DIR`` is a directory and ``hub:ORG/NAME[@REVISION]`` a model of the hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from realign.config.settings import MAX_SEED
from realign.errors import UsageError

GRAMMAR = "ROLE, ROLE@STEP, ROLE:SEED, ROLE:SEED@STEP, path:DIR or hub:ORG/NAME[@REVISION]"
_NAME = re.compile(r"(?P<role>[^:@]*)(?::(?P<seed>[^@]*))?(?:@(?P<step>.*))?", re.DOTALL)


def arm(role: str) -> str:
    """Return the arm that a role is a tuning run of: "reason" for "reason-2"; a role without a number is its own."""
    stem, _, run = role.rpartition("-")
    return stem if stem and run.isascii() and run.isdigit() else role


@dataclass(frozen=True)
class ModelName:
    """A parsed name: a role with a seed and a step, or a source outside the family.

    Attributes:
        role: of the family; empty for a source.
        seed: of training (0 to 4294967295); None for a backbone.
        step: of tuning for a backbone, of training for a trained model; None for the final model.
        source: ``path:DIR`` (absolute) or ``hub:ORG/NAME[@REVISION]``; empty for a role.
    """

    role: str = ""
    seed: int | None = None
    step: int | None = None
    source: str = ""

    def __str__(self) -> str:
        seed = "" if self.seed is None else f":{self.seed}"
        step = "" if self.step is None else f"@{self.step}"
        return self.source or f"{self.role}{seed}{step}"

    @property
    def directory(self) -> Path | None:
        """The directory of a ``path:`` source, else None."""
        return Path(self.source.removeprefix("path:")) if self.source.startswith("path:") else None


def parse(text: str, roles: Collection[str] = ()) -> ModelName:
    """Read a model's name.

    Args:
        text: the name; a directory that exists is read as ``path:`` unless it is a role.
        roles: of the family; whether an unknown one is an error is up to the caller.

    Raises:
        UsageError: it does not follow the grammar.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in ("path", "hub"):
        if not rest:
            raise UsageError(f"model '{text}': a {'directory' if kind == 'path' else 'name'} must follow ':'")
        return ModelName(source=text if kind == "hub" else _absolute(rest))
    if text and text not in roles and os.path.isdir(text):  # noqa: PTH112
        return ModelName(source=_absolute(text))
    match = _NAME.fullmatch(text)
    if match is None or not match["role"]:
        raise UsageError(f"model '{text}': use {GRAMMAR}")
    numbers: list[int | None] = []
    for field, mark in (("seed", ":"), ("step", "@")):
        digits = match[field]
        if digits is not None and not re.fullmatch("[0-9]+", digits):
            raise UsageError(f"model '{text}': a whole number must follow '{mark}'")
        if digits is not None and (len(digits.lstrip("0")) > 10 or int(digits) > MAX_SEED):
            raise UsageError(f"model '{text}': the number after '{mark}' must not be above {MAX_SEED}")
        numbers.append(None if digits is None else int(digits))
    seed, step = numbers
    return ModelName(match["role"], seed, step)


def _absolute(directory: str) -> str:
    # os.path takes any text; a Path raises for a name that is too long or holds a null byte
    return f"path:{os.path.abspath(os.path.expanduser(directory))}"  # noqa: PTH100, PTH111


def check_seed(seed: int) -> int:
    """Return a seed that is a whole number from 0 to 4294967295.

    Raises:
        UsageError: it is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed {seed}: a whole number from 0 to {MAX_SEED} is needed")
    return seed
