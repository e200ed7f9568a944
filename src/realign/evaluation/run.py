"""Evaluate one task with mteb's own code, and keep what is needed to compare and to doubt the score."""

from __future__ import annotations

import io
import json
import logging
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from realign.errors import RealignError, is_full_disk
from realign.evaluation.items import ITEM_COLUMNS, item_scores

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.models.models_protocols import MTEBModels

SCORE_COLUMNS = ["task", "type", "suite", "subset", "metric", "score", "error"]
LARGE_BATCH = 4096
"""Texts handed over at once: the encoder makes its own batches."""


@dataclass(frozen=True)
class TaskResult:
    """Scores of one model on one task.

    ``scores``: a row per subset (columns SCORE_COLUMNS; score 0 to 100, NaN with ``error`` filled if
    the task failed). ``items``: a row per query, pair or text where the task scores single items
    (columns ITEM_COLUMNS; value 0 to 1); empty otherwise. ``manifest``: instructions, counts of what was
    read, seconds, versions.
    """

    scores: pd.DataFrame
    items: pd.DataFrame
    manifest: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the task has no score."""
        return bool((self.scores["error"] != "").any())


def evaluate_task(encoder: MTEBModels, task: AbsTask, *, suite: str = "") -> TaskResult:
    """Evaluate an encoder on one task by ``mteb.evaluate``; nothing is cached by mteb.

    Args:
        encoder: :class:`~realign.evaluation.encoder.TaskEncoder`, a baseline, or any mteb model.
        task: an mteb task; its random state is reset first, so the result does not depend on what
            ran before, and its data are dropped afterwards if this call loaded them.
        suite: name written into the scores.

    Returns:
        Scores, items and manifest. A task that fails gives one row with its reason, never none.

    Raises:
        RealignError: the machine failed, not the task: no space, no memory, no network, a file that cannot
            be read or written. That is no result; the same call may succeed later.
    """
    stats = getattr(encoder, "stats", None)
    before = stats.as_dict() if stats is not None else {}
    if hasattr(encoder, "used"):
        encoder.used.clear()
    began = time.perf_counter()
    failure = trace = ""
    loaded_before = task.data_loaded
    try:
        scores, items = _run_mteb(encoder, task)
    except Exception as error:
        if is_of_the_machine(error):
            raise RealignError(
                f"task {task.metadata.name} could not be evaluated here ({_one_line(error)}): "
                "this is no result of the model; put it right and run the same command again"
            ) from error
        failure = without_absolute_paths(_one_line(error))
        trace = without_absolute_paths(traceback.format_exc())
        logging.getLogger(__name__).warning("task %s failed: %s", task.metadata.name, failure)
        scores, items = [("", float("nan"))], pd.DataFrame(columns=ITEM_COLUMNS)
    finally:
        if not loaded_before and task.data_loaded:
            task.unload_data()
    info = task.metadata
    frame = pd.DataFrame(scores, columns=["subset", "score"]).assign(
        task=info.name, type=info.type, suite=suite, metric=info.main_score, error=failure
    )
    after = stats.as_dict() if stats is not None else {}
    used = {k: sorted(map(str, v - {None})) for k, v in getattr(encoder, "used", {}).items()}
    manifest = {
        "task": info.name,
        "suite": suite,
        "dataset": {k: info.dataset.get(k) for k in ("path", "revision")},
        "instructions": used,
        "failed": failure,
        "traceback": trace,
        "seconds": time.perf_counter() - began,
        "mteb": metadata.version("mteb"),
        **{k: after[k] - before[k] for k in ("texts", "tokens", "truncated", "empty") if k in after},
        "encode_seconds": after.get("seconds", 0.0) - before.get("seconds", 0.0),
    }
    manifest["truncated_share"] = manifest.get("truncated", 0) / max(manifest.get("texts", 0), 1)
    return TaskResult(frame[SCORE_COLUMNS], items[ITEM_COLUMNS], manifest)


def _run_mteb(encoder: MTEBModels, task: AbsTask) -> tuple[list[tuple[str, float]], pd.DataFrame]:
    """Return (subset, score from 0 to 100) pairs and the scores of single items."""
    import mteb

    logger = logging.getLogger("mteb")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
        task.load_data()
        # mteb and datasets draw bars of their own for every column; they would break up ours
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
            result = mteb.evaluate(
                encoder,
                task,
                cache=None,
                co2_tracker=False,
                prediction_folder=folder,
                show_progress_bar=False,
                encode_kwargs={"batch_size": LARGE_BATCH, "show_progress_bar": False},
            ).task_results[0]
            path = Path(folder) / task.prediction_file_name
            predictions = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            items = item_scores(task, predictions)
    finally:
        logger.setLevel(level)
    several = len(result.scores) > 1
    scores = [
        (f"{split}/{row['hf_subset']}" if several else row["hf_subset"], 100 * float(row["main_score"]))
        for split, rows in result.scores.items()
        for row in rows
    ]
    bad = [subset for subset, score in scores if not np.isfinite(score)]
    if bad or not scores:
        raise RealignError(f"no finite score for subset {bad[0]}" if bad else "mteb returned no scores")
    return scores, items


# Libraries of the network and of GPUs have their own classes; importing them to compare would take seconds.
_MACHINE = {"MemoryError", "OutOfMemoryError", "ConnectionError", "TimeoutError", "Timeout", "TransportError"}


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error says something of the machine or its network, and nothing of a model or task.

    An OSError that has a number comes from the operating system; one without is a library's own (a data set
    that does not exist, say).
    """
    if is_full_disk(error) or (isinstance(error, OSError) and error.errno is not None):
        return True
    if any(base.__name__ in _MACHINE for base in type(error).__mro__):
        return True
    words = ("not enough memory", "Cannot allocate memory", "can't allocate memory")
    return any(w in str(error) for w in words) or (
        error.__cause__ is not None and is_of_the_machine(error.__cause__)
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].removeprefix("RealignError: ")[:500]


def without_absolute_paths(text: str) -> str:
    """Shorten the absolute paths in a text: below a folder that Python imports from, else to the name."""
    roots = sorted({str(Path(p)) + "/" for p in sys.path if p.startswith("/")}, key=len, reverse=True)

    def short(match: re.Match[str]) -> str:
        path = next(filter(None, match.groups()))
        root = next((r for r in roots if path.startswith(r)), path.rpartition("/")[0] + "/")
        return match.group().replace(path, path.removeprefix(root))

    return re.sub(
        r"(?<=\")(/[^\"\n]+)(?=\")|(?<=')(/[^'\n]+)(?=')|(?<![\w.:/])(/[^\s\"'<>:,;)]+)", short, text
    )


def evaluate_tasks(encoder: MTEBModels, tasks: Iterable[AbsTask], *, suite: str = "") -> list[TaskResult]:
    """Evaluate several tasks in order."""
    return [evaluate_task(encoder, task, suite=suite) for task in tasks]


def task_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over a task's subsets, as mteb does: columns suite, task, type, metric, score, error.

    A failed task keeps its row with a NaN score.
    """
    keys = ["suite", "task", "type", "metric"]
    return scores.groupby(keys, sort=False, as_index=False).agg(
        score=("score", lambda s: s.mean(skipna=False)), error=("error", "max")
    )


def suite_means(means: pd.DataFrame, *, partial: bool = False) -> pd.DataFrame:
    """Mean over tasks and mean over types of each suite, as the leaderboard does.

    Args:
        means: the result of :func:`task_means`.
        partial: average over the tasks that have a score; otherwise one failed task makes both means NaN.

    Returns:
        Columns suite, mean_task, mean_type, tasks, failed.
    """
    rows = []
    for suite, part in means.groupby("suite", sort=False):
        kept = part[part["score"].notna()] if partial else part
        by_type = kept.groupby("type")["score"].agg(lambda s: s.mean(skipna=False))
        rows.append(
            {
                "suite": suite,
                "mean_task": kept["score"].mean(skipna=False) if len(kept) else float("nan"),
                "mean_type": by_type.mean(skipna=False) if len(kept) else float("nan"),
                "tasks": len(part),
                "failed": int(part["score"].isna().sum()),
            }
        )
    return pd.DataFrame(rows, columns=["suite", "mean_task", "mean_type", "tasks", "failed"])
