"""Training sets in one form: instruction, queries, positives and hard negatives.

Offline sets are made of the ``train`` side of :mod:`realign.texts.corpus` and
:mod:`realign.texts.worked`; the paper's sets come from the hub as data/training_sets.toml says.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realign import paths
from realign.config import read_toml
from realign.errors import RealignError, unknown
from realign.texts import corpus, hub, worked
from realign.texts.splits import normalise, sample

PREFIX = "hub:"
FILE = "file:"
# Short, because a laptop pays for every token of every query.
INSTRUCTIONS = {
    "docs": "Find the description of the function",
    "code": "Find the code of the function",
    "messages": "Find the translation",
    "problems": "Find the solution of the problem",
}
SOURCE_CHARACTERS = 1200  # about 300 tokens of code; a tokeniser cuts further at the recipe's length


@dataclass(frozen=True)
class PairSet:
    """A training set: one positive and any number of hard negatives for each query.

    No negative equals its query's positive (after :func:`realign.texts.splits.normalise`).
    """

    name: str
    instruction: str
    queries: list[str]
    positives: list[str]
    negatives: list[list[str]]

    def __post_init__(self) -> None:
        if not len(self.queries) == len(self.positives) == len(self.negatives):
            raise ValueError(f"training set {self.name}: columns differ in length")

    def __len__(self) -> int:
        return len(self.queries)

    def texts(self) -> list[str]:
        """Return every text of the set."""
        return [*self.queries, *self.positives, *(n for row in self.negatives for n in row)]

    def take(self, n: int | None, seed: int) -> PairSet:
        """Return ``n`` queries drawn by ``seed`` (all, reordered, if None or too many)."""
        return self.rows(
            sample(range(len(self)), n, lambda i: f"{self.queries[i]}\x1f{self.positives[i]}", seed)
        )

    def rows(self, rows: Sequence[int]) -> PairSet:
        """Return some rows, in the order given."""
        return replace(
            self,
            queries=[self.queries[i] for i in rows],
            positives=[self.positives[i] for i in rows],
            negatives=[self.negatives[i] for i in rows],
        )


def names() -> list[str]:
    """Return the names that :func:`load` knows."""
    return [*INSTRUCTIONS, *(PREFIX + name for name in hub_sets())]


def load(name: str, *, hard_negatives: int = 0, cache: Path | None = None) -> PairSet:
    """Return a whole training set.

    Offline hard negatives are siblings of the positive (same module, same language, same kind of
    problem) that share most words with the query: near in topic and never the answer.

    Args:
        name: ``docs`` (summary -> description), ``code`` (summary -> source), ``messages`` (message <->
            translation, directions alternating), ``problems`` (problem -> worked answer), a hub set
            ``hub:...`` of data/training_sets.toml, or ``file:PATH``, what :func:`write` has written.
        hard_negatives: at most how many for each query.
        cache: folder for the parsed function corpus.
    """
    if name.startswith(PREFIX):
        return _hub_set(name, hard_negatives)
    if name.startswith(FILE):
        return read(paths.resolve(name.removeprefix(FILE)), hard_negatives)
    if name not in INSTRUCTIONS:
        raise unknown("training set", name, names())
    rows = ROWS[name](cache)
    queries, positives, groups = (list(column) for column in zip(*rows, strict=True))
    negatives = siblings(queries, positives, groups, hard_negatives)
    return PairSet(name, INSTRUCTIONS[name], queries, positives, negatives)


Rows = list[tuple[str, str, str]]  # query, positive, group of the positive


def _docs(cache: Path | None) -> Rows:
    found = corpus.functions("train", cache=cache)
    return [(f.summary, f.description, f.module) for f in found if len(f.description.split()) >= 8]


def _code(cache: Path | None) -> Rows:
    found = corpus.functions("train", cache=cache)
    return [(f.summary, f.source[:SOURCE_CHARACTERS], f.module) for f in found if f.source.count("\n") >= 3]


def _messages(cache: Path | None) -> Rows:
    rows = []
    for message in corpus.catalogues("train"):
        for index, (language, translation) in enumerate(message.translations.items()):
            pair = (message.text, translation, language)
            rows.append(pair if index % 2 == 0 else (translation, message.text, "en"))
    return rows


def _problems(cache: Path | None) -> Rows:
    return [(p.text, p.answer, p.task) for p in worked.problems("train")]


ROWS: dict[str, Callable[[Path | None], Rows]] = {
    "docs": _docs,
    "code": _code,
    "messages": _messages,
    "problems": _problems,
}
SIBLING_WINDOW = 64


def siblings(
    queries: Sequence[str], positives: Sequence[str], groups: Sequence[str], n: int
) -> list[list[str]]:
    """Return up to ``n`` hard negatives for each query: positives of its group with most shared words.

    At most :data:`SIBLING_WINDOW` neighbours in the group are looked at. A text that equals the query's
    positive, or is the positive of the same query text elsewhere, is never a negative.
    """
    if n == 0:
        return [[] for _ in queries]
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    answers: dict[str, set[str]] = defaultdict(set)
    keys = [normalise(p) for p in positives]
    for query, key in zip(queries, keys, strict=True):
        answers[normalise(query)].add(key)
    words = [frozenset(normalise(q).split()) for q in queries]
    found: list[list[str]] = [[] for _ in queries]
    for rows in members.values():
        for place, i in enumerate(rows):
            # a window around the query's place keeps large groups linear
            start = max(0, min(place - SIBLING_WINDOW // 2, len(rows) - SIBLING_WINDOW))
            near = rows[start : start + SIBLING_WINDOW]
            taken = set(answers[normalise(queries[i])])
            for j in sorted(near, key=lambda j: (-len(words[i] & words[j]), j)):
                if keys[j] not in taken and len(found[i]) < n:
                    taken.add(keys[j])
                    found[i].append(positives[j])
    return found


def hub_sets() -> dict[str, dict[str, Any]]:
    """Return the table of hub training sets (data/training_sets.toml)."""
    return read_toml(paths.data() / "training_sets.toml")


def _hub_set(name: str, hard_negatives: int) -> PairSet:
    table = hub_sets()
    short = name.removeprefix(PREFIX)
    if short not in table:
        raise unknown("training set", name, [PREFIX + n for n in table])
    entry = table[short]
    path, revision = entry["path"], entry.get("revision")
    data: Any
    if entry.get("layout") == "beir":
        data = hub.beir_rows(
            hub.open_dataset(path, "queries", "queries", revision),
            hub.open_dataset(path, "corpus", "corpus", revision),
            hub.open_dataset(f"{path}-qrels", entry["split"], None, revision),
        )
    else:
        data = hub.open_dataset(path, entry["split"], entry.get("config"), revision, entry.get("files"))
    return from_rows(name, entry, data, hard_negatives)


def from_rows(name: str, entry: dict[str, Any], data: Any, hard_negatives: int) -> PairSet:
    """Turn rows with the columns that ``entry`` names into a training set.

    Args:
        name: of the set, for messages.
        entry: ``query`` and ``positive`` (column names), optional ``negatives`` (a list of columns, each
            a text or a list of texts) and ``instruction``.
        data: an iterable of rows with ``column_names`` (``datasets.Dataset``) or a list of dictionaries.
        hard_negatives: at most how many for each query.

    Raises:
        RealignError: a column is missing, or nothing is left after empty texts are dropped.
    """
    columns = [entry["query"], entry["positive"], *entry.get("negatives", [])]
    there = list(getattr(data, "column_names", None) or (data[0] if len(data) else columns))
    for column in columns:
        if column not in there:
            raise RealignError(f"training set {name} has no column '{column}' (it has {', '.join(there)})")

    def listed(value: Any) -> list[str]:
        return [value] if isinstance(value, str) else list(value or [])

    queries, positives, negatives = [], [], []
    for row in data:
        query, positive = listed(row[entry["query"]])[:1], listed(row[entry["positive"]])[:1]
        if not query or not positive or not query[0].strip() or not positive[0].strip():
            continue
        hard = [t for c in entry.get("negatives", []) for t in listed(row[c])]
        keep = [t for t in hard if t.strip() and normalise(t) != normalise(positive[0])]
        queries.append(query[0])
        positives.append(positive[0])
        negatives.append(keep[:hard_negatives])
    if not queries:
        raise RealignError(f"training set {name} has no usable row")
    return PairSet(name, entry.get("instruction", ""), queries, positives, negatives)


def write(one: PairSet, file: Path) -> None:
    """Write a training set as JSON lines: query, positive, negatives, instruction."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as out:
        for query, positive, negatives in zip(one.queries, one.positives, one.negatives, strict=True):
            row = {"query": query, "positive": positive, "negatives": negatives}
            out.write(json.dumps({**row, "instruction": one.instruction}, ensure_ascii=False) + "\n")


def read(file: Path, hard_negatives: int) -> PairSet:
    """Read what :func:`write` wrote; at most ``hard_negatives`` for each query.

    Raises:
        RealignError: there is no such file, a line is not such a row, or the instructions differ.
    """
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RealignError(f"training set {file} cannot be read: {error}") from None
    instructions = {row.get("instruction", "") for row in rows if isinstance(row, dict)}
    if len(instructions) > 1 or not all(isinstance(row, dict) for row in rows):
        raise RealignError(f"training set {file}: every line must be a row, all with the same instruction")
    entry = {"query": "query", "positive": "positive", "negatives": ["negatives"]}
    return from_rows(file.stem, {**entry, "instruction": "".join(instructions)}, rows, hard_negatives)
