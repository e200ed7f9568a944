"""What the members of the BIG-bench archive share: JSON tasks with examples, in which right choices score 1."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from realign.texts.archives import BIGBENCH, BIGBENCH_TASKS, Archive

Reader = Callable[[Archive, str], bytes]
"""Reads a member of an archive, as :func:`realign.texts.archives.read` does."""
Example = Mapping[str, Any]  # of a JSON task: input, target or target_scores


def examples(task: str, read: Reader) -> list[Example]:
    """Return the examples of a JSON task such as ``strategyqa`` or ``goal_step_wikihow/goal_inference``."""
    return list(json.loads(read(BIGBENCH, f"{BIGBENCH_TASKS}/{task}/task.json"))["examples"])


def right(example: Example) -> tuple[str, ...]:
    """Return the choices that are right."""
    return tuple(choice for choice, score in example["target_scores"].items() if score)


def choices(example: Example) -> tuple[str, ...]:
    """Return all choices, right and wrong."""
    return tuple(example["target_scores"])
