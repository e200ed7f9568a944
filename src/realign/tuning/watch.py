"""What is watched while a run goes on: numbers that are none, rewards without a difference, a collapsed policy."""

from __future__ import annotations

import math
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from realign.errors import RealignError

STEPS = 20  # in a row that make a stop or a warning
NO_ENTROPY = 0.01  # nats a token


class Watch:
    """Reads every row of a run's log; stops what is broken or useless, and warns of what looks like it."""

    def __init__(self) -> None:
        self.rows: deque[dict[str, float]] = deque(maxlen=STEPS)

    def look_back(self, log: Path) -> None:
        """Take up the last rows of a log that is gone on with."""
        self.rows.clear()
        if log.is_file():
            self.rows.extend(pd.read_csv(log).tail(STEPS).to_dict("records"))  # type: ignore[arg-type]

    def see(self, row: dict[str, Any]) -> None:
        """Look at the row of a step.

        Raises:
            RealignError: loss or gradient are not numbers, or nothing was right for 20 steps.
        """
        step = row["step"]
        for name in ("loss", "grad_norm"):
            if (value := _number(row, name)) is not None and not math.isfinite(value):
                raise RealignError(
                    f"step {step}: {name} is {value}: the run is broken; lower its learning rate or tune in float32"
                )
        self.rows.append(row)
        if len(self.rows) == STEPS and all(_number(r, "reward_std") == 0 for r in self.rows):
            if all(_number(r, "reward") == 0 for r in self.rows):
                raise RealignError(
                    f"step {step}: no completion earned anything for {STEPS} steps, so nothing is learned: choose easier "
                    "problems, or begin with a warm start"
                )
            if step % STEPS == 0:
                _warn(f"step {step}: all completions of a prompt earned the same for {STEPS} steps")
        entropies = [e for r in self.rows if (e := _number(r, "entropy")) is not None and e < NO_ENTROPY]
        if len(entropies) == STEPS and step % STEPS == 0:
            _warn(
                f"step {step}: the policy has collapsed: its entropy was below {NO_ENTROPY} nats a token for {STEPS} steps"
            )


def _number(row: dict[str, Any], name: str) -> float | None:
    """Return a value of a row; None where the method does not log it."""
    value = row.get(name, "")
    return None if value == "" else float(value)


def _warn(sentence: str) -> None:
    """Write a line above the progress bar."""
    tqdm.write(f"warning: {sentence}", file=sys.stderr)
