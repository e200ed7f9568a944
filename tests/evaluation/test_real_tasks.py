"""Tasks of the real benchmarks through mteb's own classes, on local data in their exact schema."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict

from realign.evaluation import instructions, run, suites
from realign.evaluation.baselines import RandomVectors
from realign.evaluation.encoder import TaskEncoder

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


class Oracle(RandomVectors):
    """Texts that begin with the same word are the same to it; anything else is random."""

    def encode(self, texts, instruction=None):  # type: ignore[no-untyped-def]
        return super().encode([text.split()[0] for text in texts])


def serve(monkeypatch: pytest.MonkeyPatch, answers: dict[tuple[Any, ...], Any]) -> list[dict[str, Any]]:
    """Let ``datasets.load_dataset`` answer from a dictionary by (path, configuration, split)."""
    asked: list[dict[str, Any]] = []

    def load_dataset(path: str, name: str | None = None, split: str | None = None, **kwargs: Any) -> Any:
        asked.append({"path": path, "name": name, "split": split, **kwargs})
        return answers[path, name, split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for module in ("mteb.abstasks.abstask", "mteb.abstasks.retrieval_dataset_loaders"):
        monkeypatch.setattr(f"{module}.load_dataset", load_dataset)
    return asked


def oracle() -> TaskEncoder:
    return TaskEncoder(Oracle(), instructions.load(strict=True))


def only(name: str) -> Any:
    (task,) = suites.load(f"tasks:{name}").tasks
    return task


def test_bright_honours_excluded_ids_and_uses_the_domains_instruction(monkeypatch):
    documents = [{"id": f"d{i}", "content": f"{word} document"} for i, word in enumerate(WORDS)]
    documents.append({"id": "zcopy", "content": "alpha copy of the question"})
    examples = [
        {"id": "0", "query": "alpha why", "gold_ids": ["d0"], "gold_ids_long": [], "excluded_ids": ["zcopy"]},
        {"id": "1", "query": "beta how", "gold_ids": ["d1"], "gold_ids_long": [], "excluded_ids": ["N/A"]},
    ]
    serve(
        monkeypatch,
        {
            ("mteb/BRIGHT", "documents", "biology"): Dataset.from_list(documents),
            ("mteb/BRIGHT", "examples", "biology"): Dataset.from_list(examples),
        },
    )
    encoder = oracle()
    result = run.evaluate_task(encoder, only("BrightBiologyRetrieval"), suite="BRIGHT(v1.1)")
    assert not result.failed, result.manifest["traceback"]
    # were "zcopy" not excluded it would tie with d0 and, by its id, come first
    assert result.scores["score"].item() == pytest.approx(100)
    assert result.items.set_index("item")["value"].to_dict() == {"0": 1.0, "1": 1.0}
    assert result.manifest["instructions"]["query"] == [
        "Given a Biology post, retrieve relevant passages that help answer it"
    ]
    assert result.manifest["instructions"].get("document", []) == []


def test_sts_with_its_revision_recorded(monkeypatch):
    rows = {
        "sentence1": [f"{w} one" for w in WORDS],
        "sentence2": [f"{w if i < 5 else WORDS[i - 5]} two" for i, w in enumerate(WORDS)],
        "score": [5.0] * 5 + [0.0] * 5,
    }
    task = only("STS12")
    path = task.metadata.dataset["path"]
    asked = serve(monkeypatch, {(path, None, None): DatasetDict(test=Dataset.from_dict(rows))})
    result = run.evaluate_task(oracle(), task)
    assert not result.failed, result.manifest["traceback"]
    assert result.scores["score"].item() > 80
    assert result.manifest["dataset"] == {"path": path, "revision": task.metadata.dataset["revision"]}
    assert asked[0]["revision"] == task.metadata.dataset["revision"]


def test_classification(monkeypatch):
    texts = [f"{w} {i}" for i in range(10) for w in WORDS[:2]]
    labels = [j for _ in range(10) for j in range(2)]
    task = only("ToxicConversationsClassification")
    path = task.metadata.dataset["path"]
    both = {"text": texts, "label": labels}
    data = DatasetDict(train=Dataset.from_dict(both), test=Dataset.from_dict(both))
    serve(monkeypatch, {(path, None, None): data.class_encode_column("label")})
    result = run.evaluate_task(oracle(), task)
    assert not result.failed, result.manifest["traceback"]
    assert result.scores["score"].item() == pytest.approx(100)
    assert len(result.items) == 20


def test_bitext_mining_of_several_languages(monkeypatch):
    task = only("NTREXBitextMining")
    task.hf_subsets = task.hf_subsets[:2]
    path = task.metadata.dataset["path"]
    columns = sorted({side for pair in task.hf_subsets for side in pair.split("-")})
    table = Dataset.from_dict({c: [f"{w} {c}" for w in WORDS] for c in columns})
    serve(monkeypatch, {(path, None, None): DatasetDict(test=table), (path, None, "test"): table})
    result = run.evaluate_task(oracle(), task)
    assert not result.failed, result.manifest["traceback"]
    assert result.scores["score"].tolist() == pytest.approx([100, 100])


def test_without_a_hub_a_task_fails_with_its_reason():
    result = run.evaluate_task(oracle(), only("SciFact"), suite="mine")
    assert result.failed
    assert result.scores["error"].item()
