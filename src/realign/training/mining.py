"""Hard negatives from any embedding model, positive-aware as in the paper's recipe (paper.md).

The search is sentence-transformers' ``mine_hard_negatives``. What is ours: texts count as equal after
:func:`realign.texts.splits.normalise`, and the report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from realign.errors import UsageError
from realign.models.batching import query_prefix
from realign.texts.pairs import PairSet
from realign.texts.splits import normalise

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Short = Literal["keep", "drop"]


@dataclass(frozen=True)
class MiningReport:
    """Counts of queries by their negatives, and how far negatives stay below their positive."""

    queries: int
    full: int
    """Queries that got all the negatives asked for."""
    short: int
    """Queries that got fewer, but some."""
    none: int
    done: str
    """What was done with the queries that are not full."""
    margins: dict[str, float]
    """Positive minus negative score over all negatives: mean, min, quartiles, max; empty if there is none."""
    positive_mean: float
    """Mean score of the positives that got a negative; NaN if there is none."""


def mine(
    pairs: PairSet,
    model: SentenceTransformer,
    *,
    n: int = 3,
    first: int = 100,
    relative_margin: float = 0.05,
    short: Short = "keep",
    batch_size: int = 32,
) -> tuple[PairSet, MiningReport]:
    """Replace the negatives of a set by its own passages that a model finds nearest.

    Of the ``first`` nearest passages (the query's positives besides), the ``n`` best are taken that
    score at least ``relative_margin`` times the size of the positive's score below it; of a query with
    several positives the lowest-scoring one counts.

    Args:
        pairs: the set; its positives are the passages searched.
        model: the miner, any model that sentence-transformers opens; queries are read with the set's
            instruction as in training.
        n: negatives a query.
        first: how many neighbours are looked at, as in the paper.
        relative_margin: 0.05 in the paper: a negative scores at most 95% of the positive.
        short: a query with fewer than ``n`` negatives is kept with what it got (and trains with in-batch
            negatives besides), or dropped.
        batch_size: texts encoded at a time.

    Returns:
        The set with mined negatives, and a report.

    Raises:
        UsageError: the set is empty or ``first`` is below ``n``.
    """
    if not len(pairs) or not 1 <= n <= first:
        raise UsageError(f"mining needs at least one query and 1 <= n <= first, not n={n}, first={first}")
    # The library compares texts byte by byte: let one spelling stand for all that count as equal.
    spelling: dict[str, str] = {}
    asked = [spelling.setdefault(f"q {normalise(q)}", q) for q in pairs.queries]
    answers = [spelling.setdefault(f"p {normalise(p)}", p) for p in pairs.positives]
    keys = list(zip(asked, answers, strict=True))
    prompt = query_prefix(pairs.instruction) if pairs.instruction else None
    nearest = _search(list(dict.fromkeys(keys)), model, prompt, n, first, relative_margin, batch_size)
    rows = [nearest[key].negatives if key in nearest else [] for key in keys]
    counts = [len(row) for row in rows]
    scores = [nearest[key].scores for key in keys if key in nearest]
    report = MiningReport(
        queries=len(pairs),
        full=sum(count >= n for count in counts),
        short=sum(0 < count < n for count in counts),
        none=sum(count == 0 for count in counts),
        done={
            "keep": "kept with the negatives they got; in-batch negatives do the rest",
            "drop": "dropped from the set",
        }[short],
        margins=_summary(np.array([positive - s for positive, *rest in scores for s in rest])),
        positive_mean=float(np.mean([positive for positive, *_ in scores])) if scores else float("nan"),
    )
    mined = replace(pairs, negatives=rows)
    return mined.rows([i for i, c in enumerate(counts) if c == n or short == "keep"]), report


class _Nearest(NamedTuple):
    negatives: list[str]
    scores: list[float]  # of the positive, then of the negatives


def _search(
    pairs: list[tuple[str, str]],
    model: SentenceTransformer,
    prompt: str | None,
    n: int,
    first: int,
    relative_margin: float,
    batch_size: int,
) -> dict[tuple[str, str], _Nearest]:
    """Return the negatives of each (query, positive) that has any."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    mined = mine_hard_negatives(
        Dataset.from_dict({"query": [q for q, _ in pairs], "positive": [p for _, p in pairs]}),
        model,
        "query",
        "positive",
        range_max=first,
        relative_margin=relative_margin,
        num_negatives=n,
        sampling_strategy="top",
        query_prompt=prompt,
        output_format="labeled-list",  # unlike n-tuple it keeps queries with fewer than n
        output_scores=True,
        batch_size=batch_size,
        verbose=False,
    )
    return {(row["query"], row["positive"][0]): _Nearest(row["positive"][1:], row["scores"]) for row in mined}


def _summary(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    places = {"min": 0, "25%": 25, "50%": 50, "75%": 75, "max": 100}
    return {"mean": float(values.mean())} | {k: float(np.percentile(values, q)) for k, q in places.items()}
