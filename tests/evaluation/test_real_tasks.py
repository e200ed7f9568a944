"""Tasks of the real benchmarks through mteb's own classes, on local data in their exact schema."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict

from realign.errors import RealignError
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


def serve_ranking(
    monkeypatch: pytest.MonkeyPatch, path: str, split: str, **tables: list[dict[str, Any]]
) -> None:
    """Serve the configurations of a retrieval data set (corpus, queries, default, top_ranked, ...)."""
    answers = {
        (path, name, "qrel_diff" if name == "qrel_diff" else split): Dataset.from_list(rows)
        for name, rows in tables.items()
    }
    serve(monkeypatch, answers)
    loaders = "mteb.abstasks.retrieval_dataset_loaders"
    monkeypatch.setattr(f"{loaders}.get_dataset_config_names", lambda *_, **__: list(tables))
    monkeypatch.setattr(f"{loaders}.get_dataset_split_names", lambda *_, **__: [split])


def oracle(backend: type[RandomVectors] | None = None) -> TaskEncoder:
    return TaskEncoder((backend or Oracle)(), instructions.load(strict=True))


def only(name: str) -> Any:
    (task,) = suites.load(f"tasks:{name}")
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


def test_multilabel_classification(monkeypatch):
    texts = [f"{w} {i}" for i in range(12) for w in WORDS[:4]]
    # the fourth word carries the labels of the first two
    labels = [[0], [1], [2], [0, 1]] * 12
    task = only("CEDRClassification")
    both = Dataset.from_dict({"text": texts, "label": labels})
    serve(monkeypatch, {(task.metadata.dataset["path"], None, None): DatasetDict(train=both, test=both)})
    result = run.evaluate_task(oracle(), task)
    assert not result.failed, result.manifest["traceback"]
    assert result.scores["score"].item() == pytest.approx(100)
    assert len(result.items) == 48
    assert set(result.items["value"]) == {1.0}


def test_clustering_embeds_the_share_that_mteb_says(monkeypatch):
    task = only("BiorxivClusteringP2P.v2")
    rows = {"sentences": [f"{w} {i}" for i in range(150) for w in WORDS[:4]], "labels": WORDS[:4] * 150}
    serve(
        monkeypatch,
        {(task.metadata.dataset["path"], None, None): DatasetDict(test=Dataset.from_dict(rows))},
    )
    encoder = oracle()
    result = run.evaluate_task(encoder, task)
    assert not result.failed, result.manifest["traceback"]
    assert result.scores["score"].item() > 95
    assert result.manifest["texts"] == 24, "4% of 600"


def test_pair_classification_of_renamed_columns(monkeypatch):
    task = only("SprintDuplicateQuestions")
    row = {
        "sent1": [f"{w} one" for w in WORDS] * 2,
        "sent2": [f"{w} two" for w in WORDS + WORDS[1:] + WORDS[:1]],
        "labels": [1] * 10 + [0] * 10,
    }
    path = task.metadata.dataset["path"]
    serve(monkeypatch, {(path, None, None): DatasetDict(test=Dataset.from_list([row]))})
    result = run.evaluate_task(oracle(), task)
    assert not result.failed, result.manifest["traceback"]
    assert result.scores["score"].item() == pytest.approx(100)
    assert set(result.items["measure"]) == {"accuracy"}
    assert result.items["value"].tolist() == [1.0] * 20  # every pair is on its side of the threshold


CORPUS = [{"_id": f"d{i}", "title": "", "text": f"{w} answer"} for i, w in enumerate(WORDS)]


def test_retrieval_from_corpus_queries_and_judgements(monkeypatch):
    task = only("StackOverflowQA")
    serve_ranking(
        monkeypatch, task.metadata.dataset["path"], "test",
        corpus=CORPUS,
        queries=[{"_id": f"q{i}", "text": f"{w} question"} for i, w in enumerate(WORDS)],
        default=[{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(9)],
    )  # fmt: skip
    encoder = oracle()
    result = run.evaluate_task(encoder, task)
    assert not result.failed, result.manifest["traceback"]
    assert result.scores["score"].item() == pytest.approx(100)
    assert set(result.items["item"]) == {f"q{i}" for i in range(9)}, "q9 has no judgement"
    assert encoder.used["document"] == {None}


def test_reranking_ranks_the_candidates_only(monkeypatch):
    task = only("AlloprofReranking")
    # d0 answers q1 as well as d1 does, and would share the first place: it is no candidate
    corpus = [*CORPUS[1:], {"_id": "d0", "title": "", "text": "beta copy"}]
    serve_ranking(
        monkeypatch, task.metadata.dataset["path"], "test",
        corpus=corpus,
        queries=[{"_id": "q1", "text": "beta question"}],
        default=[{"query-id": "q1", "corpus-id": "d1", "score": 1}],
        top_ranked=[{"query-id": "q1", "corpus-ids": ["d1", "d2", "d3"]}],
    )  # fmt: skip
    result = run.evaluate_task(oracle(), task)
    assert not result.failed, result.manifest["traceback"]
    assert result.scores["score"].item() == pytest.approx(100)
    assert result.items["value"].tolist() == [1.0]


class LastWord(RandomVectors):
    """Reads a text's last word only: the end of the condition that belongs to a query."""

    def encode(self, texts, instruction=None):  # type: ignore[no-untyped-def]
        return super().encode([text.split()[-1] for text in texts])


@pytest.mark.parametrize(("backend", "follows"), [(LastWord, True), (Oracle, False)])
def test_instruction_reranking_rewards_following_a_changed_condition(monkeypatch, backend, follows):
    task = only("Core17InstructionRetrieval")
    serve_ranking(
        monkeypatch, task.metadata.dataset["path"], "test",
        corpus=[{"_id": f"d{i}", "title": "", "text": f"news about {w}"} for i, w in enumerate(WORDS)],
        queries=[{"_id": "1-og", "text": "news"}, {"_id": "1-changed", "text": "news"}],
        default=[{"query-id": "1-og", "corpus-id": "d0", "score": 1},
                 {"query-id": "1-og", "corpus-id": "d1", "score": 1},
                 {"query-id": "1-changed", "corpus-id": "d1", "score": 1}],
        top_ranked=[{"query-id": q, "corpus-ids": [f"d{i}" for i in range(10)]} for q in ("1-og", "1-changed")],
        instruction=[{"query-id": "1-og", "instruction": "relevant is alpha"},
                     {"query-id": "1-changed", "instruction": "relevant is beta"}],
        qrel_diff=[{"query-id": "1", "corpus-ids": ["d0"]}],
    )  # fmt: skip
    monkeypatch.setattr("mteb.tasks.instruction_reranking.eng.core17_instruction_retrieval.load_dataset",
                        datasets.load_dataset)  # fmt: skip
    result = run.evaluate_task(oracle(backend), task)
    assert not result.failed, result.manifest["traceback"]
    score = result.scores["score"].item()
    assert score > 30 if follows else score == pytest.approx(0)
    assert result.manifest["instructions"]["query"] == [
        "Retrieve news articles that satisfy the query and its conditions"
    ]


def test_without_a_hub_the_reason_is_said_and_no_result_is_made_of_it():
    with pytest.raises(
        RealignError, match=r"task SciFact could not be evaluated here \(ConnectionError: Couldn't"
    ):
        run.evaluate_task(oracle(), only("SciFact"), suite="mine")


def test_data_that_the_hub_does_not_have_fail_the_task_with_the_reason(monkeypatch):
    def load_dataset(path: str, *args: Any, **kwargs: Any) -> Any:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub")

    serve(monkeypatch, {})
    monkeypatch.setattr("mteb.abstasks.abstask.load_dataset", load_dataset)
    result = run.evaluate_task(oracle(), only("STS12"), suite="mine")
    assert result.failed
    assert "doesn't exist on the Hub" in result.scores["error"].item()
