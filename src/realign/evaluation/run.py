"""Evaluate one task with mteb's own code, and keep what is needed to compare and to doubt the score."""

from __future__ import annotations

import io
import json
import logging
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

SCORE_COLUMNS = ["task", "type", "suite", "subset", "metric", "score", "error"]
ITEM_COLUMNS = ["task", "subset", "item", "measure", "value"]
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


def evaluate_task(encoder: Any, task: AbsTask, *, suite: str = "") -> TaskResult:
    """Evaluate an encoder on one task by ``mteb.evaluate``; nothing is cached by mteb.

    Args:
        encoder: :class:`~realign.evaluation.encoder.TaskEncoder`, a baseline, or any mteb model.
        task: an mteb task; its random state is reset first, so the result does not depend on what
            ran before, and its data are dropped afterwards if this call loaded them.
        suite: name written into the scores.

    Returns:
        Scores, items and manifest. A task that fails gives one row with its reason, never none.
    """
    import mteb

    stats = getattr(encoder, "stats", None)
    before = stats.as_dict() if stats is not None else {}
    if hasattr(encoder, "used"):
        encoder.used.clear()
    began = time.perf_counter()
    failure = ""
    items = pd.DataFrame(columns=ITEM_COLUMNS)
    loaded_before = task.data_loaded
    info = task.metadata
    rows: list[dict[str, Any]] = []
    base = {"task": info.name, "type": info.type, "suite": suite, "metric": info.main_score}
    quiet = logging.getLogger("mteb")
    level = quiet.level
    try:
        quiet.setLevel(logging.ERROR)
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
            for split, scores in result.scores.items():
                rows += [
                    {
                        **base,
                        "subset": score["hf_subset"]
                        if len(result.scores) == 1
                        else f"{split}/{score['hf_subset']}",
                        "score": 100 * float(score["main_score"]),
                        "error": "",
                    }
                    for score in scores
                ]
            path = Path(folder) / task.prediction_file_name
            if path.is_file():
                items = item_scores(task, json.loads(path.read_text(encoding="utf-8")))
        bad = [row["subset"] for row in rows if not np.isfinite(row["score"])]
        if bad or not rows:
            failure = f"no finite score for subset {bad[0]}" if bad else "mteb returned no scores"
    except Exception as error:
        failure = f"{type(error).__name__}: {error}".splitlines()[0][:500]
        logging.getLogger(__name__).warning("task %s failed: %s", info.name, failure)
        trace = traceback.format_exc()
    else:
        trace = ""
    finally:
        quiet.setLevel(level)
        if not loaded_before and task.data_loaded:
            task.unload_data()
    if failure:
        rows = [{**base, "subset": "", "score": float("nan"), "error": failure}]
        items = pd.DataFrame(columns=ITEM_COLUMNS)
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
    return TaskResult(pd.DataFrame(rows, columns=SCORE_COLUMNS), items[ITEM_COLUMNS], manifest)


def evaluate_tasks(
    encoder: Any,
    tasks: Iterable[AbsTask],
    *,
    suite: str = "",
    done: Callable[[TaskResult], None] | None = None,
) -> list[TaskResult]:
    """Evaluate several tasks in order; ``done`` is called after each (to store it, to show progress)."""
    results = []
    for task in tasks:
        results.append(evaluate_task(encoder, task, suite=suite))
        if done is not None:
            done(results[-1])
    return results


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


def item_scores(task: AbsTask, predictions: Mapping[str, Any]) -> pd.DataFrame:
    """Scores of single items from mteb's predictions, so that statistics can pair them.

    Retrieval and reranking: the main measure of each query. Bitext: 1 where the nearest text is the
    translation. Classification: share of experiments that are right (exactly right for several
    labels). Pair classification: 1 where the cosine is on the right side of the threshold that mteb chose
    for its accuracy; the average precision that such a task reports has no share for each pair. Other
    types: none.
    """
    rows: list[dict[str, Any]] = []
    kind = task.metadata.type
    for subset, splits in predictions.items():
        if subset == "mteb_model_meta":
            continue
        for split, found in splits.items():
            for item, measure, value in _ITEMS.get(kind, _no_items)(task, subset, split, found):
                rows.append({"task": task.metadata.name, "subset": subset, "item": item, "measure": measure,
                             "value": value})  # fmt: skip
    return pd.DataFrame(rows, columns=ITEM_COLUMNS)


Item = tuple[str, str, float]


def _no_items(task: Any, subset: str, split: str, found: Any) -> list[Item]:
    return []


def _data(task: Any, subset: str, split: str) -> Any:
    data = task.dataset if subset == "default" and split in task.dataset else task.dataset[subset]
    return data[split]


def _ranking(task: Any, subset: str, split: str, found: Any) -> list[Item]:
    import pytrec_eval

    name, _, cut = task.metadata.main_score.partition("_at_")
    measure = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall"}.get(name)
    if measure is None or not cut.isdigit():
        return []
    relevant = {
        q: dict(grades) for q, grades in _data(task, subset, split)["relevant_docs"].items() if q in found
    }
    if task.ignore_identical_ids:
        found = {q: {d: s for d, s in ranked.items() if d != q} for q, ranked in found.items()}
    scored = pytrec_eval.RelevanceEvaluator(relevant, {f"{measure}.{cut}"}).evaluate(found)
    return [(q, task.metadata.main_score, float(v[f"{measure}_{cut}"])) for q, v in sorted(scored.items())]


def _bitext(task: Any, subset: str, split: str, found: Any) -> list[Item]:
    pairs = found.get("sentence1-sentence2") if isinstance(found, dict) else None
    if pairs is None:
        return []
    data = _data(task, subset, split)
    gold = [g[1] for g in data["gold"]] if "gold" in getattr(data, "column_names", ()) else range(len(pairs))
    return [
        (str(i), "accuracy", float(p["corpus_id"] == g))
        for i, (p, g) in enumerate(zip(pairs, gold, strict=True))
    ]


def _classes(task: Any, subset: str, split: str, found: Any) -> list[Item]:
    gold = list(_data(task, subset, split)[task.label_column_name])
    if any(len(run) != len(gold) for run in found):
        return []  # mteb scored a subsample whose rows it does not name
    if task.metadata.type == "MultilabelClassification":
        labels = sorted({label for row in gold for label in row})
        gold = [[int(label in row) for label in labels] for row in gold]
    right = np.array([[p == g for p, g in zip(run, gold, strict=True)] for run in found], dtype=float)
    return [(str(i), "accuracy", float(v)) for i, v in enumerate(right.mean(axis=0))]


def _pairs(task: Any, subset: str, split: str, found: Any) -> list[Item]:
    data = _data(task, subset, split)
    data = data[0] if len(data) == 1 else data  # old data sets keep all pairs in one row, as mteb allows
    labels = np.asarray(data[task.label_column_name])
    cosines = np.asarray(found["cosine_scores"])
    _, threshold = task._find_best_acc_and_threshold(cosines.tolist(), labels, True)
    right = (cosines > threshold) == (labels == 1)
    return [(str(i), "accuracy", float(v)) for i, v in enumerate(right)]


_ITEMS: dict[str, Callable[[Any, str, str, Any], list[Item]]] = {
    "Retrieval": _ranking,
    "Reranking": _ranking,
    "InstructionRetrieval": _ranking,
    "BitextMining": _bitext,
    "Classification": _classes,
    "MultilabelClassification": _classes,
    "PairClassification": _pairs,
}
