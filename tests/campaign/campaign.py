"""Kills, damage, concurrency, a full disk and bad input, on the smoke profile in scratch stores.

``make campaign`` runs it whole, in about twenty minutes of an idle machine; CI runs a few of each. The seed is
printed, and ``--seed`` gives the same random moments and damages again.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bad_input
import damage
import kills
from process import Done, Project

Check = Callable[[], str | None]
WORKERS = ["book", "-P", "smoke", "--launcher", "workers"]
TRAIN = ["train", "base", "-P", "smoke"]


def checks(folder: Path, chance: random.Random, small: bool) -> Iterator[tuple[str, list[Check]]]:
    """Yield every part of the campaign: its name, and its trials; a trial says what broke, None if it was skipped."""

    def place(name: str, n: int = 0) -> Path:
        return folder / f"{name}-{n}"

    def draw() -> random.Random:
        return random.Random(chance.random())

    count = 20 if small else 300
    yield (
        "damaged artifact",
        [partial(damage.random_damage, place("damage", n), draw()) for n in range(count)],
    )
    yield "four processes, one artifact", [partial(damage.several_at_once, place("meet"), 6 if small else 60)]
    cases = bad_input.cases(Project(place("input")))
    if small:
        cases = chance.sample(cases, 3)
    yield "bad input", [partial(refused, name, call) for name, call in cases]
    if small:
        yield "interrupt", [partial(kills.interrupt, place("interrupt"), ["plan", "-P", "smoke"], 0.7)]
        return
    commands = [TRAIN, ["plan", "-P", "smoke"], ["chapter", "rq1", "-P", "smoke"], WORKERS]
    commands += [["tune", "sft", "-P", "smoke", "-o", "out"], ["compare", "base", "reason", "-P", "smoke"]]
    yield (
        "interrupt",
        [
            partial(kills.interrupt, place("interrupt", n), words, chance.uniform(0.3, 12))
            for n, words in enumerate(commands * 2)
        ],
    )
    ends = [(WORKERS, signal.SIGKILL), (WORKERS, signal.SIGTERM), (WORKERS, signal.SIGINT)]
    ends += [([*TRAIN, "--parallel", "ddp:2"], signal.SIGKILL)]
    yield (
        "nothing lives on",
        [
            partial(kills.orphans, place("orphans", n), words, how, draw())
            for n, (words, how) in enumerate(ends)
        ],
    )
    yield "training four times at once", [partial(damage.same_command_at_once, place("together"))]
    yield (
        "full disk in training",
        [partial(damage.full_disk, place("disk", n), chance.uniform(0.02, 0.8), TRAIN) for n in range(3)],
    )
    yield "kills of training", [partial(kills.training, place("train"), 5, draw())]
    yield "kills of tuning", [partial(kills.tuning, place("tune"), 5, draw())]
    yield "kills of the book", [partial(kills.book, place("book"), 12, draw())]


def refused(name: str, call: Callable[[], Done]) -> str:
    """Run a command with bad input; what is wrong with how it was refused."""
    problem = bad_input.problem(call())
    return f"{name}: {problem}" if problem else ""


def run(seed: int, *, small: bool = False, only: str = "") -> int:
    """Run the campaign and print its table; return how many trials failed."""
    rows, problems = [], []
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="realign-campaign-") as folder:
        for name, trials in checks(Path(folder), random.Random(seed), small):
            if only not in name:
                continue
            start = time.monotonic()
            with ThreadPoolExecutor(2 if name == "bad input" else 1) as threads:
                results = list(threads.map(attempt, trials))
            broken = [result for result in results if result]
            skipped = sum(result is None for result in results)
            held = len(results) - len(broken) - skipped
            rows.append((name, len(results), held, len(broken), skipped, f"{time.monotonic() - start:.0f}"))
            print(f"{name}: {held} of {len(results)} held", flush=True)
            problems += [f"{name}: {each}" for each in broken]
    head = ("what", "trials", "held", "failed", "skipped", "seconds")
    for row in (head, *rows):
        print(f"{row[0]:<32}" + "".join(f"{cell!s:>9}" for cell in row[1:]))
    for each in problems:
        print(f"\n{each}")
    return len(problems)


def attempt(check: Check) -> str | None:
    """Run a trial; an error of the campaign itself is a failure too."""
    try:
        return check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--small", action="store_true", help="a few trials of each part, under a minute")
    parser.add_argument("--only", default="", help="parts whose name has this in it")
    asked = parser.parse_args()
    sys.exit(min(run(asked.seed, small=asked.small, only=asked.only), 1))
