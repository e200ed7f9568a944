"""Training sets in one form: instruction, queries, positives and hard negatives.

Offline sets are made of the ``train`` side of :mod:`realign.texts.corpus` and
:mod:`realign.texts.worked`; the paper's sets come from the hub as data/training_sets.toml says.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realign import paths
from realign.config import read_toml
from realign.errors import RealignError, unknown
from realign.texts import corpus, hub, worked
from realign.texts.splits import normalise, sample

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "hub:"
FILE = "file:"
# Kept short: every token of every query costs time on a laptop.
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
        keys = [f"{query}\x1f{answer}" for query, answer in zip(self.queries, self.positives, strict=True)]
        return self.rows(sample(range(len(self)), n, keys.__getitem__, seed))

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


def load(name: str, *, hard_negatives: int = 0) -> PairSet:
    """Return a whole training set.

    Offline hard negatives are siblings of the positive (same module, same language, same kind of
    problem) that share most words with the query: near in topic and never the answer.

    Args:
        name: ``docs`` (summary -> description), ``code`` (summary -> source), ``messages`` (message <->
            translation, directions alternating), ``problems`` (problem -> worked answer), a hub set
            ``hub:...`` of data/training_sets.toml, or ``file:PATH``, what :func:`write` has written.
        hard_negatives: at most how many for each query.
    """
    if name.startswith(PREFIX):
        return _hub_set(name, hard_negatives)
    if name.startswith(FILE):
        return read(paths.resolve(name.removeprefix(FILE)), hard_negatives)
    if name not in INSTRUCTIONS:
        raise unknown("training set", name, names())
    queries, positives, groups = (list(column) for column in zip(*_rows(name), strict=True))
    negatives = siblings(queries, positives, groups, hard_negatives)
    return PairSet(name, INSTRUCTIONS[name], queries, positives, negatives)


Rows = list[tuple[str, str, str]]  # query, positive, group of the positive


def _rows(name: str) -> Rows:
    if name == "docs":
        functions = corpus.functions("train")
        return [(f.summary, f.description, f.module) for f in functions if len(f.description.split()) >= 8]
    if name == "code":
        functions = [f for f in corpus.functions("train") if f.source.count("\n") >= 3]
        return [(f.summary, f.source[:SOURCE_CHARACTERS], f.module) for f in functions]
    if name == "problems":
        return [(p.text, p.answer, p.task) for p in worked.problems("train")]
    return [
        (m.text, translation, language) if index % 2 == 0 else (translation, m.text, "en")
        for m in corpus.catalogues("train")
        for index, (language, translation) in enumerate(m.translations.items())
    ]


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
    answers = _answers(queries, positives)
    keys = [normalise(p) for p in positives]
    words = [frozenset(normalise(q).split()) for q in queries]
    negatives: list[list[str]] = [[] for _ in queries]
    for rows in members.values():
        for place, i in enumerate(rows):
            # a window around the query's place keeps large groups linear
            start = max(0, min(place - SIBLING_WINDOW // 2, len(rows) - SIBLING_WINDOW))
            near = rows[start : start + SIBLING_WINDOW]
            taken = set(answers[normalise(queries[i])])
            for j in sorted(near, key=lambda j: (-len(words[i] & words[j]), j)):
                if keys[j] not in taken and len(negatives[i]) < n:
                    taken.add(keys[j])
                    negatives[i].append(positives[j])
    return negatives


def _answers(queries: Iterable[str], positives: Iterable[str]) -> dict[str, set[str]]:
    """Return the positives of each query text; both normalised."""
    answers: dict[str, set[str]] = defaultdict(set)
    for query, positive in zip(queries, positives, strict=True):
        answers[normalise(query)].add(normalise(positive))
    return answers


def hub_sets() -> dict[str, dict[str, Any]]:
    """Return the table of hub training sets (data/training_sets.toml)."""
    return read_toml(paths.data() / "training_sets.toml")


def hub_entry(name: str) -> dict[str, Any]:
    """Return the entry of one hub set, by its name with ``hub:``.

    Raises:
        UsageError: there is no such set.
    """
    table = hub_sets()
    if name.removeprefix(PREFIX) not in table:
        raise unknown("training set", name, names())
    return table[name.removeprefix(PREFIX)]


def _hub_set(name: str, hard_negatives: int) -> PairSet:
    entry = hub_entry(name)
    path, revision = entry["path"], entry.get("revision")
    data: Dataset | Sequence[Mapping[str, Any]]
    if entry.get("layout") == "beir":
        data = hub.beir_rows(
            hub.open_dataset(path, "queries", "queries", revision),
            hub.open_dataset(path, "corpus", "corpus", revision),
            hub.open_dataset(f"{path}-qrels", entry["split"], None, revision),
        )
    else:
        data = hub.open_dataset(path, entry["split"], entry.get("config"), revision, entry.get("files"))
    return from_rows(name, entry, data, hard_negatives)


def from_rows(
    name: str, entry: Mapping[str, Any], data: Dataset | Sequence[Mapping[str, Any]], hard_negatives: int
) -> PairSet:
    """Turn rows with the columns that ``entry`` names into a training set.

    Args:
        name: of the set, for messages.
        entry: ``query`` and ``positive`` (column names), optional ``negatives`` (a list of columns, each
            a text or a list of texts) and ``instruction``.
        data: an iterable of rows with ``column_names`` (``datasets.Dataset``) or a list of dictionaries.
        hard_negatives: at most how many for each query. A text that is a positive of the same query,
            in this row or another, is no negative.

    Raises:
        RealignError: a column is missing, a value is not a text, or nothing is left after empty texts are
            dropped.
    """
    columns = [entry["query"], entry["positive"], *entry.get("negatives", [])]
    there = list(getattr(data, "column_names", None) or (data[0] if len(data) else columns))
    for column in columns:
        if column not in there:
            raise RealignError(f"training set {name} has no column '{column}' (it has {', '.join(there)})")
    rows = {}
    for number, row in enumerate(data, start=1):
        query, positive = (_texts(name, number, column, row)[:1] for column in columns[:2])
        if query and positive and query[0].strip() and positive[0].strip():
            rows[number] = query[0], positive[0]
    if not rows:
        raise RealignError(f"training set {name} has no usable row")
    queries, positives = map(list, zip(*rows.values(), strict=True))
    answers = _answers(queries, positives)
    # read again rather than kept: of a large set only the negatives that are asked for fit into memory
    negatives: list[list[str]] = []
    for number, row in enumerate(data, start=1):
        texts = [t for column in columns[2:] for t in _texts(name, number, column, row) if t.strip()]
        if number in rows:
            taken = answers[normalise(rows[number][0])]
            negatives.append([t for t in texts if normalise(t) not in taken][:hard_negatives])
    return PairSet(name, entry.get("instruction", ""), queries, positives, negatives)


def _texts(name: str, number: int, column: str, row: Mapping[str, Any]) -> list[str]:
    """Return the texts in one cell: a text, a list of texts, or nothing (None)."""
    value = row.get(column)
    texts = [] if value is None else [value] if isinstance(value, str) else value
    kinds = {type(t).__name__ for t in texts} if isinstance(texts, list | tuple) else {type(value).__name__}
    if kinds - {"str"}:
        wrong = ", ".join(sorted(kinds - {"str"})).replace("NoneType", "null")
        raise RealignError(
            f"training set {name}, row {number}: '{column}' holds {wrong} where a text is needed"
        )
    if any("\ud800" <= c <= "\udfff" for t in texts for c in t):
        raise RealignError(
            f"training set {name}, row {number}: '{column}' holds half a character (a surrogate)"
        )
    return list(texts)


def write(one: PairSet, file: Path) -> None:
    """Write a training set as JSON lines: query, positive, negatives, instruction.

    Raises:
        RealignError: a text cannot be written because it is not valid Unicode.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    with part.open("w", encoding="utf-8", newline="\n") as out:
        for number, row in enumerate(zip(one.queries, one.positives, one.negatives, strict=True), start=1):
            cells = dict(zip(("query", "positive", "negatives"), row, strict=True))
            for column in cells:
                _texts(one.name, number, column, cells)
            out.write(json.dumps({**cells, "instruction": one.instruction}, ensure_ascii=False) + "\n")
    part.replace(file)


def read(file: Path, hard_negatives: int) -> PairSet:
    """Read what :func:`write` wrote; at most ``hard_negatives`` for each query.

    Raises:
        RealignError: there is no such file, a line is not such a row, or the instructions differ.
    """
    rows, number = [], 0
    try:
        # Only these ends of lines: a text may hold others, such as U+2028.
        for line in file.read_text(encoding="utf-8-sig").split("\n"):
            number += 1
            if line.strip():
                rows.append(json.loads(line))
    except (OSError, UnicodeDecodeError) as error:
        raise RealignError(f"training set {file} cannot be read: {error}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise RealignError(
            f"training set {file} cannot be read: line {number} is not JSON: {error}"
        ) from None
    instructions = [row.get("instruction", "") if isinstance(row, dict) else None for row in rows]
    if any(not isinstance(text, str) or text != instructions[0] for text in instructions):
        raise RealignError(
            f"training set {file}: every line must be a row, all with the same instruction, a text"
        )
    entry = {"query": "query", "positive": "positive", "negatives": ["negatives"]}
    return from_rows(file.stem, {**entry, "instruction": next(iter(instructions), "")}, rows, hard_negatives)
