"""Hard negatives from any embedding model, positive-aware as in the paper's recipe (paper.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from realign.texts.pairs import PairSet
from realign.texts.splits import normalise

Encode = Callable[[list[str], str | None], np.ndarray]
"""(texts, instruction or None) -> (n, d) rows of length 1, as :meth:`realign.embedding.Embedder.encode`."""


@dataclass(frozen=True)
class MiningReport:
    """What was found: counts of queries, and how far negatives stay below their positive."""

    queries: int
    full: int
    """Queries that got all the negatives asked for."""
    short: int
    """Queries that got fewer; they are kept, and train with in-batch negatives besides."""
    none: int
    above_margin: int
    """Candidates among the first that were left out because they score too close to the positive."""
    mean_margin: float
    """Mean of positive score minus negative score over the negatives taken; NaN if there is none."""
    smallest_margin: float


def mine(
    pairs: PairSet,
    encode: Encode,
    *,
    n: int = 3,
    first: int = 100,
    relative_margin: float = 0.05,
    block: int = 1024,
) -> tuple[PairSet, MiningReport]:
    """Replace the negatives of a set by its own passages that a model finds nearest.

    For each query the ``first`` nearest passages are looked at, best first; taken are the first ``n`` that
    score at most ``(1 - relative_margin)`` times the query's positive (for a positive that scores below 0:
    at most the positive minus that share of its size). Passages that equal any positive of the same query
    text are never taken.

    Args:
        pairs: the set; its positives are the passages searched.
        encode: the miner.
        n: negatives a query.
        first: how many neighbours are looked at, as in the paper.
        relative_margin: 0.05 in the paper.
        block: queries scored at a time; memory is ``block`` x passages float32.

    Returns:
        The set with mined negatives, and a report.
    """
    passages = list(dict.fromkeys(pairs.positives))
    place = {text: i for i, text in enumerate(passages)}
    keys = [normalise(p) for p in passages]
    answers: dict[str, set[str]] = {}
    for query, positive in zip(pairs.queries, pairs.positives, strict=True):
        answers.setdefault(normalise(query), set()).add(normalise(positive))
    documents = encode(passages, None)
    found: list[list[str]] = []
    margins: list[float] = []
    skipped = 0
    for start in range(0, len(pairs), block):
        queries = pairs.queries[start : start + block]
        scores = encode(queries, pairs.instruction or None) @ documents.T
        nearest = np.argsort(-scores, axis=1, kind="stable")[:, :first]
        for row, query in enumerate(queries):
            own = float(scores[row, place[pairs.positives[start + row]]])
            limit = own - relative_margin * abs(own)
            taken: list[str] = []
            seen = set(answers[normalise(query)])
            for column in nearest[row]:
                if len(taken) == n:
                    break
                if keys[column] in seen:
                    continue
                if scores[row, column] > limit:
                    skipped += 1
                    continue
                seen.add(keys[column])
                taken.append(passages[column])
                margins.append(own - float(scores[row, column]))
            found.append(taken)
    counts = [len(taken) for taken in found]
    report = MiningReport(
        queries=len(pairs),
        full=sum(c == n for c in counts),
        short=sum(0 < c < n for c in counts),
        none=sum(c == 0 for c in counts),
        above_margin=skipped,
        mean_margin=float(np.mean(margins)) if margins else float("nan"),
        smallest_margin=min(margins, default=float("nan")),
    )
    return replace(pairs, negatives=found), report
