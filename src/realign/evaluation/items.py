"""Scores of single queries, pairs and texts, from the predictions that mteb writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

ITEM_COLUMNS = ["task", "subset", "item", "measure", "value"]
Item = tuple[str, str, float]  # item, measure, value


def item_scores(task: AbsTask, predictions: Mapping[str, Any]) -> pd.DataFrame:
    """Scores of single items from mteb's predictions, so that statistics can pair them.

    Retrieval and reranking: the main measure of each query. Bitext: 1 where the nearest text is the
    translation. Classification: share of experiments that are right (exactly right for several
    labels). Pair classification: 1 where the cosine is on the right side of the threshold that mteb chose
    for its accuracy; the average precision that such a task reports has no share for each pair. Other
    types: none.
    """
    score = _ITEMS.get(task.metadata.type)
    rows = [
        (task.metadata.name, subset, *item)
        for subset, splits in predictions.items()
        if score is not None and subset != "mteb_model_meta"
        for split, predicted in splits.items()
        for item in score(task, subset, split, predicted)
    ]
    return pd.DataFrame(rows, columns=ITEM_COLUMNS)


def _data(task: Any, subset: str, split: str) -> Any:
    data = task.dataset if subset == "default" and split in task.dataset else task.dataset[subset]
    return data[split]


def _ranking(task: Any, subset: str, split: str, predicted: Any) -> list[Item]:
    import pytrec_eval

    name, _, cut = task.metadata.main_score.partition("_at_")
    measure = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall"}.get(name)
    if measure is None or not cut.isdigit():
        return []
    relevant = {
        q: dict(grades) for q, grades in _data(task, subset, split)["relevant_docs"].items() if q in predicted
    }
    if task.ignore_identical_ids:
        predicted = {q: {d: s for d, s in ranked.items() if d != q} for q, ranked in predicted.items()}
    scored = pytrec_eval.RelevanceEvaluator(relevant, {f"{measure}.{cut}"}).evaluate(predicted)
    return [(q, task.metadata.main_score, float(v[f"{measure}_{cut}"])) for q, v in sorted(scored.items())]


def _bitext(task: Any, subset: str, split: str, predicted: Any) -> list[Item]:
    pairs = predicted.get("sentence1-sentence2") if isinstance(predicted, dict) else None
    if pairs is None:
        return []
    data = _data(task, subset, split)
    gold = [g[1] for g in data["gold"]] if "gold" in getattr(data, "column_names", ()) else range(len(pairs))
    return [
        (str(i), "accuracy", float(p["corpus_id"] == g))
        for i, (p, g) in enumerate(zip(pairs, gold, strict=True))
    ]


def _classes(task: Any, subset: str, split: str, predicted: Any) -> list[Item]:
    gold = list(_data(task, subset, split)[task.label_column_name])
    if any(len(run) != len(gold) for run in predicted):
        return []  # mteb scored a subsample whose rows it does not name
    if task.metadata.type == "MultilabelClassification":
        labels = sorted({label for row in gold for label in row})
        gold = [[int(label in row) for label in labels] for row in gold]
    right = np.array([[p == g for p, g in zip(run, gold, strict=True)] for run in predicted], dtype=float)
    return [(str(i), "accuracy", float(v)) for i, v in enumerate(right.mean(axis=0))]


def _pairs(task: Any, subset: str, split: str, predicted: Any) -> list[Item]:
    data = _data(task, subset, split)
    data = data[0] if len(data) == 1 else data  # old data sets keep all pairs in one row, as mteb allows
    labels = np.asarray(data[task.label_column_name])
    cosines = np.asarray(predicted["cosine_scores"])
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
