"""What a task of our own is: its data in plain Python, how it is described, and how mteb gets it.

A builder is a pure function of installed packages, of archives with a pinned digest and of a size, so the same
environment always gives the same data; ``TaskSpec.digest`` says which. mteb is imported where a task of its own is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from realign.texts.archives import Archive

if TYPE_CHECKING:
    from datasets import DatasetDict
    from mteb.abstasks import AbsTask

MAIN_SCORES = {
    "BitextMining": "f1",
    "Classification": "accuracy",
    "Clustering": "v_measure",
    "MultilabelClassification": "f1",
    "PairClassification": "max_ap",
    "Reranking": "map_at_1000",
    "Retrieval": "ndcg_at_10",
    "STS": "cosine_spearman",
}
LABELLED_TYPES = ("Classification", "MultilabelClassification", "Clustering")
Size = Literal["study", "laptop", "smoke"]
SIZES: tuple[Size, ...] = get_args(Size)
BM25_TYPES = ("Retrieval", "Reranking")
"""Task types that BM25 is run on."""
FEW_LABELS = {"n_experiments": 5, "samples_per_label": 8}
OPTIONS: dict[str, dict[str, Any]] = {
    "Classification": FEW_LABELS,
    "MultilabelClassification": FEW_LABELS,
    # mteb embeds 4% of a clustering task's texts by default; a small task is read whole.
    "Clustering": {"max_fraction_of_documents_to_embed": None},
    "STS": {"min_score": 0, "max_score": 1},
}


@dataclass(frozen=True)
class Columns:
    """Data of a task without a corpus: ``subsets[subset][split][column]`` is a list of values."""

    subsets: Mapping[str, Mapping[str, Mapping[str, Sequence[Any]]]]


@dataclass(frozen=True)
class Corpus:
    """Data of a retrieval or reranking task: texts by id, gold grades, and what each query may see.

    ``candidates`` (reranking) lists the only documents of a query; ``excluded`` the documents that
    are taken out of its ranking, as in BRIGHT.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]
    candidates: Mapping[str, Sequence[str]] | None = None
    excluded: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    ``build(n)`` makes the data at size ``n``; ``study_n``, ``n`` and ``smoke_n`` are its sizes in study, laptop and
    smoke suites, 0 where it is not in that suite (smoke: a task that needs no archive). ``gold`` says why the labels
    are right, ``weakness`` what the task cannot show; ``labels`` names what a classification task's numbers
    stand for. ``license``, ``reference``, ``citation`` (BibTeX), ``date`` (of the texts), ``annotations`` and
    ``creation`` are those of the data, in the words of mteb's ``TaskMetadata``.
    """

    name: str
    type: str
    build: Callable[[int], Columns | Corpus]
    n: int
    smoke_n: int
    description: str
    source: str
    gold: str
    weakness: str
    license: str
    languages: Mapping[str, Sequence[str]] | Sequence[str] = ("eng-Latn",)
    domains: tuple[str, ...] = ("Written",)
    subtypes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    labels: tuple[str, ...] = ()
    study_n: int = 0
    reference: str = "https://arxiv.org/abs/2601.21192"
    citation: str = ""
    date: tuple[str, str] = ("2024-01-01", "2026-11-01")
    annotations: str = "derived"
    creation: str = "found"

    @property
    def main_score(self) -> str:
        """The measure that counts, that of the task's type."""
        return MAIN_SCORES[self.type]

    def size(self, name: Size) -> int:
        """Return the size of this task in a suite of a size."""
        return {"study": self.study_n, "laptop": self.n, "smoke": self.smoke_n}[name]

    def data(self, n: int) -> Columns | Corpus:
        """Build the data once per process and size."""
        return _data(self, n)

    def digest(self, n: int) -> str:
        """Sha256 of the data: two equal digests mean two equal tasks."""
        text = json.dumps(asdict(self.data(n)), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.name)


@lru_cache(maxsize=64)
def _data(spec: TaskSpec, n: int) -> Columns | Corpus:
    return spec.build(n)


def texts(data: Columns | Corpus) -> list[str]:
    """Return every text of a task's data, so that it can be checked against training texts."""
    if isinstance(data, Corpus):
        return [*data.queries.values(), *data.documents.values()]
    columns = [c for splits in data.subsets.values() for columns in splits.values() for c in columns.values()]
    return [value for column in columns for value in column if isinstance(value, str)]


def example(data: Columns | Corpus, labels: Sequence[str] = ()) -> tuple[str, str]:
    """Return one example of a task: a query with its relevant document, a pair, or a text with its label."""
    if isinstance(data, Corpus):
        query, grades = next(iter(data.relevant.items()))
        return data.queries[query], data.documents[next(iter(grades))]
    columns = next(iter(data.subsets.values()))["test"]
    keys = ("sentence1", "sentence2") if "sentence1" in columns else tuple(columns)[:2]
    gold = columns[keys[1]][0]
    if labels:
        gold = ", ".join(labels[i] for i in (gold if isinstance(gold, list) else [gold]))
    return str(columns[keys[0]][0]), str(gold)


def aligned(queries: Sequence[str], documents: Sequence[str]) -> Corpus:
    """Make a corpus in which document i alone answers query i; further documents answer none."""
    return Corpus(
        queries={f"q{i}": text for i, text in enumerate(queries)},
        documents={f"d{i}": text for i, text in enumerate(documents)},
        relevant={f"q{i}": {f"d{i}": 1} for i in range(len(queries))},
    )


def labelled(train: Iterable[tuple[str, Any]], test: Iterable[tuple[str, Any]]) -> Columns:
    """Make the columns of a classification task from (text, label) rows."""
    splits = {"train": list(train), "test": list(test)}
    return Columns(
        {"default": {s: {"text": [t for t, _ in r], "label": [x for _, x in r]} for s, r in splits.items()}}
    )


def grouped(rows: Iterable[tuple[str, str]]) -> Columns:
    """Make the columns of a clustering task from (text, group) rows."""
    texts, groups = zip(*rows, strict=True)
    return Columns({"default": {"test": {"sentences": list(texts), "labels": list(groups)}}})


def parallel(subsets: Mapping[str, Iterable[tuple[str, str]]]) -> Columns:
    """Make the columns of a bitext task from (text, translation) rows by subset."""
    columns = {name: list(zip(*rows, strict=True)) for name, rows in subsets.items()}
    return Columns(
        {n: {"test": {"sentence1": list(a), "sentence2": list(b)}} for n, (a, b) in columns.items()}
    )


def clip(text: str, characters: int) -> str:
    """Shorten a text to at most ``characters``, at a white space when there is one."""
    text = text.strip()
    if len(text) <= characters:
        return text
    cut = text[:characters]
    space = max(cut.rfind(" "), cut.rfind("\n"))
    return (cut[:space] if space > characters // 2 else cut).rstrip()


def make(spec: TaskSpec, n: int) -> AbsTask:
    """Make the mteb task of a specification at size ``n``; its data are built when it is loaded."""
    from mteb import abstasks
    from mteb.abstasks.task_metadata import TaskMetadata

    fields: dict[str, Any] = {  # checked by pydantic, whose literal types a plain str does not fit
        "name": spec.name,
        "description": f"{spec.description} Gold: {spec.gold}. Known weakness: {spec.weakness}.",
        "dataset": {"path": f"realign/{spec.name}", "revision": f"n{n}"},
        "reference": spec.reference,
        "type": spec.type,
        "category": "t2c" if spec.type in LABELLED_TYPES else "t2t",
        "modalities": ["text"],
        "eval_splits": ["test"],
        "eval_langs": spec.languages,
        "main_score": spec.main_score,
        "date": spec.date,
        "domains": spec.domains,
        "task_subtypes": spec.subtypes,
        "license": spec.license,
        "annotations_creators": spec.annotations,
        "dialect": [],
        "sample_creation": spec.creation,
        "bibtex_citation": spec.citation,
    }

    def load_data(self: AbsTask, num_proc: int | None = None, **kwargs: Any) -> None:
        if not self.data_loaded:
            data = spec.data(n)
            self.dataset = to_retrieval(data) if isinstance(data, Corpus) else to_columns(data)
            self.data_loaded = True

    body = {"__doc__": spec.description, "metadata": TaskMetadata(**fields), "load_data": load_data}
    body |= OPTIONS.get(spec.type, {})
    if spec.type == "Clustering":  # mteb would sample 16,384 texts ten times, with replacement
        body["max_documents_per_cluster"] = n
    kind = "Retrieval" if spec.type == "Reranking" else spec.type
    return type(spec.name, (getattr(abstasks, f"AbsTask{kind}"),), body)()


def to_columns(data: Columns) -> dict[str, DatasetDict]:
    """Columns as mteb holds them: a dictionary of subsets, each with its splits."""
    from datasets import Dataset, DatasetDict

    return {
        subset: DatasetDict({split: Dataset.from_dict(dict(columns)) for split, columns in splits.items()})
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
    test = {
        "corpus": Dataset.from_list([{"id": i, "title": "", "text": t} for i, t in data.documents.items()]),
        "queries": Dataset.from_list([{"id": i, "text": t} for i, t in data.queries.items()]),
        "relevant_docs": {q: dict(grades) for q, grades in data.relevant.items()},
        "top_ranked": ranked,
    }
    return {"default": {"test": test}}
