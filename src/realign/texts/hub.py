"""Text sets from the Hugging Face hub: the ones the paper's code reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from realign.errors import RealignError, unknown


@dataclass(frozen=True)
class HubSet:
    """Where a set lies and how a row becomes (text, label)."""

    path: str
    split: str
    row: Callable[[dict[str, Any]], tuple[str, str]]
    config: str | None = None


AG_NEWS = ("World", "Sports", "Business", "Sci/Tech")
SETS = {
    "hub:math-500": HubSet("HuggingFaceH4/MATH-500", "test", lambda r: (r["solution"], r["subject"])),
    "hub:mmlu-pro": HubSet("TIGER-Lab/MMLU-Pro", "test", lambda r: (r["question"], r["category"])),
    "hub:ag_news": HubSet("fancyzhx/ag_news", "test", lambda r: (r["text"], AG_NEWS[r["label"]])),
    "hub:gsm8k": HubSet("openai/gsm8k", "test", lambda r: (r["answer"], "gsm8k"), "main"),
}


def open_dataset(
    path: str,
    split: str,
    config: str | None = None,
    revision: str | None = None,
    files: str | None = None,
) -> Any:
    """Open a data set of the hub (or a local folder of files) with ``datasets``.

    Args:
        path: repository or local folder.
        split: such as ``train``.
        config: configuration of the data set.
        revision: commit or branch.
        files: pattern of the files to read, if not all.

    Raises:
        RealignError: it cannot be reached or has no such split; says what to do.
    """
    import datasets

    try:
        return datasets.load_dataset(path, config, split=split, revision=revision, data_files=files)
    except Exception as error:  # the library raises a dozen unrelated types for one situation
        kind = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise RealignError(
            f"cannot load the data set {path} ({kind[:200]}): it needs the Hugging Face hub or a filled local "
            "cache; use the offline sets (docs, code, messages, problems) where there is none"
        ) from None


def canonical(name: str) -> str:
    """Return our name of a set that may be given by its place on the hub (``hub:openai/gsm8k``)."""
    return next((short for short, entry in SETS.items() if name == f"hub:{entry.path}"), name)


def load(name: str) -> list[tuple[str, str]]:
    """Return all (text, label) of a hub set, empty texts left out."""
    if name not in SETS:
        raise unknown("hub text set", name, SETS)
    entry = SETS[name]
    rows = (entry.row(r) for r in open_dataset(entry.path, entry.split, entry.config))
    return [(text, label) for text, label in rows if text.strip()]


def beir_rows(queries: Any, corpus: Any, qrels: Any) -> list[dict[str, str]]:
    """Join a BeIR set: one row ``{"query", "positive"}`` for each judgement above 0."""
    asked = {str(q["_id"]): q["text"] for q in queries}
    wanted = [(str(r["query-id"]), str(r["corpus-id"])) for r in qrels if r["score"] > 0]
    needed = {document for _, document in wanted}
    documents = {
        str(d["_id"]): f"{d.get('title') or ''} {d['text']}".strip()
        for d in corpus
        if str(d["_id"]) in needed
    }
    return [{"query": asked[q], "positive": documents[d]} for q, d in wanted if q in asked and d in documents]
