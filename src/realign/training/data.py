"""From training sets to batches: one set a batch, no positive twice, the same plan on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from realign.config import Recipe
from realign.errors import RealignError
from realign.models.batching import query_prefix, tokenize
from realign.texts import corpus, pairs, problems
from realign.texts.pairs import PairSet
from realign.texts.splits import normalise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TrainingBatch:
    """Texts of one optimiser step, over all processes.

    ``ids[u]`` are the tokens of distinct text u, of which the first ``skip[u]`` (an instruction) are
    read and not pooled. Query i is text ``queries[i]`` with positive ``candidates[i]``; candidates
    beyond the positives are hard negatives. Every query is compared with every candidate. Texts that are
    the same but for an instruction share a number in ``content``, which tells false negatives.
    """

    name: str
    ids: list[list[int]]
    skip: list[int]
    queries: list[int]
    candidates: list[int]
    content: list[int]

    @property
    def tokens(self) -> int:
        """Number of tokens in the distinct texts."""
        return sum(map(len, self.ids))


Plan: TypeAlias = list[tuple[int, list[int]]]
"""Which rows of which set make up each batch: (set, rows)."""
Sampling = Literal["size", "equal", "temperature"]


def queries_per_set(
    sizes: Sequence[int], queries: int | None, sampling: Sampling, temperature: float = 2.0
) -> list[int]:
    """Return how many queries to take of each set.

    Args:
        sizes: of the sets.
        queries: in total; None takes all of every set, whatever the sampling.
        sampling: ``size`` takes from each set in proportion to its size, ``equal`` the same number,
            ``temperature`` in proportion to size^(1/temperature), which lies between the two. A set with
            too few queries gives all it has; the others do not make up for it.
        temperature: at least 1; 1 is ``size``, and ``equal`` is its limit.
    """
    if queries is None:
        return list(sizes)
    power = {"size": 1.0, "equal": 0.0, "temperature": 1 / temperature}[sampling]
    weights = [size**power for size in sizes]
    return [min(round(queries * w / max(sum(weights), 1)), s) for w, s in zip(weights, sizes, strict=True)]


def draw_queries(sets: Sequence[PairSet], recipe: Recipe, seed: int) -> list[PairSet]:
    """Draw a recipe's number of queries from its training sets."""
    sizes = [len(one) for one in sets]
    counts = queries_per_set(sizes, recipe.queries, recipe.sampling, recipe.sampling_temperature)
    return [one.take(n, seed) for one, n in zip(sets, counts, strict=True)]


def load_sets(recipe: Recipe, seed: int) -> list[PairSet]:
    """Load the training sets of a recipe and draw its number of queries from them."""
    sets = [pairs.load(name, hard_negatives=recipe.hard_negatives) for name in recipe.data]
    return draw_queries(sets, recipe, seed)


def evaluation_texts(recipe: Recipe) -> list[str]:
    """Return every text on the evaluation side of the offline sets that a recipe trains on.

    A set from a file may have been made of any of them, so it is held against all.
    """
    names = set(recipe.data)
    if any(name.startswith(pairs.FILE) for name in names):
        names |= set(pairs.INSTRUCTIONS)
    texts: list[str] = []
    if {"docs", "code"} & names:
        for f in corpus.functions("eval"):
            texts += [f.summary, f.description, f.source[: pairs.SOURCE_CHARACTERS]]
    if "messages" in names:
        for m in corpus.catalogues("eval"):
            texts += [m.text, *m.translations.values()]
    if "problems" in names:
        for p in problems("eval"):
            texts += [p.text, p.answer]
    return [text for text in texts if text]


def plan(sets: Sequence[PairSet], batch_size: int, epochs: float, seed: int) -> Plan:
    """Return the batches of a run in order.

    Rows are shuffled in each epoch by ``seed``. A row whose positive or query is already in the batch
    waits for a later one; rows that do not fill a batch at the end of an epoch are dropped (a set smaller
    than a batch makes one smaller batch of all its rows). Batches of the sets are shuffled together.

    Raises:
        RealignError: there is no row at all.
    """
    generator = random.Random(f"realign plan {seed}")
    batches: Plan = []
    whole = int(epochs)
    for epoch in range(whole + (epochs > whole)):
        of_epoch: Plan = []
        for index, one in enumerate(sets):
            rows = list(range(len(one)))
            generator.shuffle(rows)
            of_epoch += [(index, batch) for batch in _batches(one, rows, batch_size)]
        generator.shuffle(of_epoch)
        share = 1.0 if epoch < whole else epochs - whole
        batches += of_epoch[: max(1, round(len(of_epoch) * share))]
    if not batches:
        total = sum(len(one) for one in sets)
        raise RealignError(
            f"no two of the {total} training rows differ in query and positive, so none can be a negative of another"
            if total > 1
            else f"the training sets have {total} rows: there is nothing to train on"
        )
    return batches


def _batches(one: PairSet, rows: list[int], size: int) -> list[list[int]]:
    """Fill batches of ``size`` rows in order; a row that repeats a text of its batch goes to the next."""
    size = min(size, len(rows))
    made: list[list[int]] = []
    waiting = rows
    while len(waiting) >= size > 0:
        batch: list[int] = []
        seen: set[str] = set()
        left: list[int] = []
        for place, row in enumerate(waiting):
            keys = {normalise(one.positives[row]), normalise(one.queries[row])}
            if keys & seen:
                left.append(row)
                continue
            seen |= keys
            batch.append(row)
            if len(batch) == size:
                left += waiting[place + 1 :]
                break
        if len(batch) < size and made:
            break  # only repeats are left
        if len(batch) > 1:
            made.append(batch)
        if len(batch) < size:
            break
        waiting = left
    return made


class Tokenized:
    """Training sets as token ids, each distinct text of a batch once.

    Args:
        sets: training sets.
        tokenizer: of the backbone.
        max_query_tokens: longest query, its instruction included.
        max_passage_tokens: longest passage.
        instructions: put each set's instruction before its queries.
    """

    def __init__(
        self,
        sets: Sequence[PairSet],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_query_tokens: int,
        max_passage_tokens: int,
        instructions: bool = True,
    ) -> None:
        self.sets = sets
        self.tokenizer = tokenizer
        self.max_query_tokens = max_query_tokens
        self.max_passage_tokens = max_passage_tokens
        self.instructions = instructions

    def prefixes(self) -> dict[str, str]:
        """Return the exact string before the queries of each set."""
        used = {s.name: s.instruction if self.instructions else "" for s in self.sets}
        return {name: query_prefix(text) if text else "" for name, text in used.items()}

    def batch(self, index: int, rows: Sequence[int]) -> TrainingBatch:
        """Tokenise some rows of one set."""
        one = self.sets[index]
        queries = [one.queries[row] for row in rows]
        passages = [one.positives[row] for row in rows] + [n for row in rows for n in one.negatives[row]]
        instruction = one.instruction if self.instructions else ""
        asked = tokenize(self.tokenizer, queries, instruction, self.max_query_tokens)
        read = tokenize(self.tokenizer, passages, None, self.max_passage_tokens)
        batch = TrainingBatch(one.name, [], [], [], [], [])
        place: dict[tuple[int, tuple[int, ...]], int] = {}
        contents: dict[str, int] = {}
        for places, texts, tokens in ((batch.queries, queries, asked), (batch.candidates, passages, read)):
            for text, ids in zip(texts, tokens.ids, strict=True):
                key = (tokens.skip, tuple(ids))
                if key not in place:
                    place[key] = len(batch.ids)
                    batch.ids.append(ids)
                    batch.skip.append(tokens.skip)
                    batch.content.append(contents.setdefault(normalise(text), len(contents)))
                places.append(place[key])
        return batch
