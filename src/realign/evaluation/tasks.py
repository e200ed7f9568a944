"""Laptop tasks as mteb tasks: the same classes, samplers and metrics as the real benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realign.evaluation.specs import Columns, Corpus, TaskSpec

if TYPE_CHECKING:
    from datasets import DatasetDict
    from mteb.abstasks import AbsTask

# mteb embeds 4% of a clustering task's texts by default and samples 16,384 of them ten times; a small
# task is read whole, and as many texts are drawn (with replacement) as there are.
DEFAULTS: dict[str, dict[str, Any]] = {"Clustering": {"max_fraction_of_documents_to_embed": None}}


def _mteb_class(kind: str) -> type[AbsTask]:
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.clustering import AbsTaskClustering
    from mteb.abstasks.multilabel_classification import AbsTaskMultilabelClassification
    from mteb.abstasks.pair_classification import AbsTaskPairClassification
    from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

    classes: dict[str, type[AbsTask]] = {
        "BitextMining": AbsTaskBitextMining,
        "Classification": AbsTaskClassification,
        "MultilabelClassification": AbsTaskMultilabelClassification,
        "Clustering": AbsTaskClustering,
        "PairClassification": AbsTaskPairClassification,
        "Retrieval": AbsTaskRetrieval,
        "Reranking": AbsTaskRetrieval,
    }
    return classes[kind]


def make(spec: TaskSpec, n: int) -> AbsTask:
    """Make the mteb task of a specification at size ``n``; its data are built when it is loaded."""
    from mteb.abstasks.task_metadata import TaskMetadata

    languages = spec.languages
    fields: dict[str, Any] = {  # checked by pydantic, whose literal types a plain str does not fit
        "name": spec.name,
        "description": f"{spec.description} Gold: {spec.gold}. Known weakness: {spec.weakness}.",
        "dataset": {"path": f"realign/{spec.name}", "revision": f"n{n}"},
        "reference": "https://arxiv.org/abs/2601.21192",
        "type": spec.type,
        "category": "t2t",
        "modalities": ["text"],
        "eval_splits": ["test"],
        "eval_langs": (
            {k: list(v) for k, v in languages.items()} if hasattr(languages, "items") else list(languages)
        ),
        "main_score": spec.main_score,
        "date": ("2024-01-01", "2026-11-01"),
        "domains": list(spec.domains),
        "task_subtypes": list(spec.subtypes),
        "license": spec.license,
        "annotations_creators": "derived",
        "dialect": [],
        "sample_creation": "found",
        "bibtex_citation": "",
    }
    metadata = TaskMetadata(**fields)

    def load_data(self: AbsTask, num_proc: int | None = None, **kwargs: Any) -> None:
        if not self.data_loaded:
            data = spec.data(n)
            self.dataset = to_retrieval(data) if isinstance(data, Corpus) else to_columns(data)
            self.data_loaded = True

    options = {**DEFAULTS.get(spec.type, {}), **spec.options}
    if spec.type == "Clustering":
        options.setdefault("max_documents_per_cluster", n)
    body = {"__doc__": spec.description, "metadata": metadata, "load_data": load_data, **options}
    return type(spec.name, (_mteb_class(spec.type),), body)()


def to_columns(data: Columns) -> dict[str, DatasetDict]:
    """Columns as mteb holds them: a dictionary of subsets, each with its splits."""
    from datasets import Dataset, DatasetDict

    return {
        subset: DatasetDict(
            {s: Dataset.from_dict({k: list(v) for k, v in c.items()}) for s, c in splits.items()}
        )
        for subset, splits in data.subsets.items()
    }


def to_retrieval(data: Corpus) -> dict[str, dict[str, Any]]:
    """A corpus as mteb holds it; excluded documents become the complement in ``top_ranked``, as in BRIGHT."""
    from datasets import Dataset

    ranked: dict[str, list[str]] | None = None
    if data.candidates is not None:
        ranked = {q: list(ids) for q, ids in data.candidates.items()}
    elif data.excluded:
        hidden = {q: set(ids) for q, ids in data.excluded.items()}
        ranked = {q: [d for d in data.documents if d not in hidden.get(q, ())] for q in data.queries}
    return {
        "default": {
            "test": {
                "corpus": Dataset.from_list(
                    [{"id": i, "title": "", "text": t} for i, t in data.documents.items()]
                ),
                "queries": Dataset.from_list([{"id": i, "text": t} for i, t in data.queries.items()]),
                "relevant_docs": {q: dict(grades) for q, grades in data.relevant.items()},
                "top_ranked": ranked,
            }
        }
    }
