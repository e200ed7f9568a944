"""Retrieval data from rows of texts: a query, the texts that answer it, and texts that are not to be judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from realign.evaluation.specs import Corpus
from realign.texts.copies import Copies
from realign.texts.splits import draw, normalise


@dataclass(frozen=True)
class Row:
    """A query, the documents that answer it, and documents that are taken out of its ranking."""

    query: str
    relevant: tuple[str, ...]
    excluded: tuple[str, ...] = ()


def pool(rows: Iterable[Row], others: Iterable[str] = (), *, n: int, documents: int | None = None) -> Corpus:
    """Draw ``n`` queries with all their relevant documents, and further documents up to ``documents`` (None: all).

    Further documents are those of the rows that were not drawn, and ``others``, without near copies of a
    document that is there already. Rows with one query are one query; texts that differ in case or white space
    only are one document. A document that is a near copy of a query is excluded from its ranking and answers
    nothing; one that is a near copy of a relevant document is excluded too. The draw depends on each text alone,
    so a smaller ``n`` asks the first queries of a larger one.
    """
    merged, spelling = _merged(rows)
    spare = {text for sides in merged.values() for side in sides for text in side}
    for text in others:
        spelling.setdefault(normalise(text), text.strip())
        spare.add(normalise(text))
    answerable = (q for q, (relevant, _) in merged.items() if relevant - _copied(q, relevant))
    queries = draw(answerable, n, str, "queries")
    kept = draw({text for q in queries for text in merged[q][0]}, None, str, "documents")
    copies = Copies(kept)
    for text in draw(spare - set(kept), None, str, "documents"):
        if documents is not None and len(kept) >= documents:
            break
        if not copies.of(text):
            copies.add(text)
            kept.append(text)
    place = {text: i for i, text in enumerate(kept)}
    near = {text: set(copies.of(text)) for q in queries for text in merged[q][0]}
    relevant, excluded = {}, {}
    for i, query in enumerate(queries):
        copied = {*copies.of(query), place.get(query, -1)} - {-1}
        right = {place[text] for text in merged[query][0]} - copied
        hidden = {place[text] for text in merged[query][1] if text in place}.union(
            *(near[kept[at]] for at in right)
        )
        relevant[f"q{i}"] = {f"d{at}": 1 for at in sorted(right)}
        excluded[f"q{i}"] = [f"d{at}" for at in sorted((hidden | copied) - right)]
    return Corpus(
        queries={f"q{i}": spelling[query] for i, query in enumerate(queries)},
        documents={f"d{i}": spelling[text] for i, text in enumerate(kept)},
        relevant=relevant,
        excluded=excluded,
    )


def _merged(rows: Iterable[Row]) -> tuple[dict[str, tuple[set[str], set[str]]], dict[str, str]]:
    """Return relevant and excluded texts by query, all normalised, and how each text is spelled."""
    spelling: dict[str, str] = {}

    def plain(text: str) -> str:
        spelling.setdefault(normalise(text), text.strip())
        return normalise(text)

    merged: dict[str, tuple[set[str], set[str]]] = {}
    for row in rows:
        relevant, excluded = merged.setdefault(plain(row.query), (set(), set()))
        relevant.update(map(plain, row.relevant))
        excluded.update(map(plain, row.excluded))
    return merged, spelling


def _copied(query: str, texts: Iterable[str]) -> set[str]:
    """Return the texts that are a near copy of the query."""
    listed = sorted(texts)
    return {listed[at] for at in Copies(listed).of(query)} | ({query} & set(listed))
