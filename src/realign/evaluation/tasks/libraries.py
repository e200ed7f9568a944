"""Code retrieval among functions of installed libraries, evaluation side only; no library is imported.

Functions that contrastive training sees are on the other side of the split by their bare names; near copies
of them, and near copies of one another, are left out here. A function's own name is replaced by
``function`` in its source: it usually repeats the words of the documentation.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, islice

from realign.evaluation.specs import Corpus, aligned, clip
from realign.evaluation.tasks.pools import Row, pool
from realign.texts import copies, corpus
from realign.texts.corpus import FUNCTION_PACKAGES, Function
from realign.texts.splits import draw, order_key

CODE_CHARACTERS = 400
"""About 128 tokens of code."""
PROSE_CHARACTERS = 300
DOCUMENTS = 3
"""Documents for each query."""
FURTHER_PACKAGES = ("mpmath", "narwhals", "pyarrow")
"""Libraries that training never reads, for more pairs of libraries."""
PACKAGES = (*FUNCTION_PACKAGES, *FURTHER_PACKAGES)
STOP = frozenset(
    [
        "the",
        "of",
        "an",
        "to",
        "in",
        "for",
        "and",
        "or",
        "with",
        "by",
        "is",
        "are",
        "this",
        "that",
        "if",
        "on",
        "from",
    ]
)


def masked(f: Function) -> str:
    """Return the start of a source, its own name replaced."""
    return clip(re.sub(rf"\b{re.escape(f.name)}\b", "function", f.source), CODE_CHARACTERS)


def documentation(f: Function) -> str:
    """Return the start of the prose that documents a function."""
    return clip(f"{f.summary} {f.description}", PROSE_CHARACTERS)


def _key(f: Function) -> str:
    return f"{f.package}/{f.module}/{f.name}"


@lru_cache(maxsize=4)
def chosen(n: int) -> tuple[Function, ...]:
    """Return ``n`` functions with a body and documentation worth reading, one for each name, no near copies."""
    by_name: dict[str, Function] = {}
    for f in draw(corpus.functions("eval"), None, _key, "libraries"):
        if f.source.count("\n") >= 3 and len(f.source) > 150 and len(documentation(f).split()) >= 10:
            by_name.setdefault(f.name, f)
    training = corpus.functions("train")
    candidates = list(islice(by_name.values(), n + n // 4))  # about a tenth are near copies
    for text in (masked, documentation):
        candidates = copies.distinct(candidates, text)
        candidates = copies.apart(candidates, text, map(text, training))
    return tuple(candidates[:n])


def doc_to_code(n: int) -> Corpus:
    """From the documentation of a function to its source."""
    functions = chosen(DOCUMENTS * n)
    return aligned([documentation(f) for f in functions[:n]], [masked(f) for f in functions])


def code_to_doc(n: int) -> Corpus:
    """From the source of a function, of those that :func:`doc_to_code` does not ask for, to its documentation."""
    functions = chosen(DOCUMENTS * n)[::-1]
    return aligned([masked(f) for f in functions[:n]], [documentation(f) for f in functions])


@lru_cache(maxsize=1)
def relatives() -> tuple[tuple[Function, ...], ...]:
    """Functions of one name, for each name that two libraries document in about the same words.

    Near copies of functions that training sees are left out here too.
    """
    by_name: dict[str, list[Function]] = defaultdict(list)
    for f in [*corpus.functions("eval"), *corpus.functions("eval", FURTHER_PACKAGES)]:
        if len(f.source) > 60 and not f.name.startswith("_"):
            by_name[f.name].append(f)
    groups = [sorted(group, key=_key) for _, group in sorted(by_name.items()) if _related(group)]
    training = map(masked, corpus.functions("train"))
    kept = set(copies.apart((f for group in groups for f in group), masked, training))
    apart = (tuple(f for f in group if f in kept) for group in groups)
    return tuple(group for group in apart if _related(group))


def _related(group: Sequence[Function]) -> bool:
    """Whether any two functions of a group agree."""
    return any(agree(*pair) for pair in combinations(group, 2))


def agree(one: Function, two: Function) -> bool:
    """Whether two functions of one name are of two libraries, documented alike, and not copied."""
    if one.package == two.package:
        return False
    same = _overlap(one.summary, two.summary, STOP)
    return same >= 0.25 and _overlap(one.source, two.source) < 0.6


def _overlap(one: str, two: str, stop: frozenset[str] = frozenset()) -> float:
    """Return the Jaccard index of the words of two texts."""
    a, b = (set(re.findall(r"[^\W_]+", text.lower())) - stop for text in (one, two))
    return len(a & b) / max(len(a | b), 1)


def code_to_code(n: int) -> Corpus:
    """From a source to that of the same function in other libraries.

    The query's own source is excluded from its ranking, and so are functions of its name that are
    documented otherwise. Other documents are those of :func:`doc_to_code`, which a model has read already.
    """
    groups = sorted(relatives(), key=lambda group: order_key("cross", group[0].name))
    rows = [
        Row(
            masked(f),
            tuple(masked(g) for g in group if agree(f, g)),
            tuple(masked(g) for g in group if not agree(f, g)),
        )
        for group in groups
        for f in group
    ]
    names = {group[0].name for group in groups}
    others = [masked(f) for f in chosen(DOCUMENTS * n) if f.name not in names]
    return pool(rows, others, n=n, documents=DOCUMENTS * n)
