"""Code tasks from the functions of installed libraries, evaluation side only; nothing is imported.

Function names in sources are replaced by ``function``: a name usually repeats the documentation's
words, and matching it would be a task for BM25. Sources are cut to their first lines.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache, partial
from itertools import combinations

from realign.evaluation.messages import LIBRARY_LICENSE, SUMMARY_CHARACTERS, words
from realign.evaluation.specs import Corpus, TaskSpec, aligned, clip
from realign.texts import corpus
from realign.texts.corpus import FUNCTION_PACKAGES, Function
from realign.texts.splits import draw, order_key

N = 36
"""Queries of each task of the laptop suite."""
SOURCE_CHARACTERS = 160
VERBS = words(
    """add apply build calculate check compute convert create determine display draw estimate evaluate extract
    fill find fit format generate get group infer initialize insert iterate join load make merge move normalize
    parse perform plot print produce read remove rename replace resolve return rotate run sample save select
    set sort split transform update validate verify wrap write"""
)
STOP = words("the of an to in for and or with by is are this that if on from")


def masked(f: Function) -> str:
    """Return the start of a source with the function's own name replaced."""
    return clip(re.sub(rf"\b{re.escape(f.name)}\b", "function", f.source), SOURCE_CHARACTERS)


def signature(f: Function) -> str:
    """Return the first logical line: ``def name(arguments)``, on one line."""
    head = f.source.partition("):")[0].partition(") ->")[0]
    return clip(" ".join(head.split()) + ")", 120)


def _key(f: Function) -> str:
    return f"{f.package}/{f.module}/{f.name}"


@lru_cache(maxsize=1)
def _usable() -> tuple[Function, ...]:
    """Functions with a body worth reading and a summary that says something."""
    return tuple(
        f
        for f in corpus.functions("eval")
        if f.source.count("\n") >= 3 and len(f.source) > 150 and 5 <= len(f.summary.split()) <= 25
    )


@lru_cache(maxsize=4)
def _pool(n: int) -> tuple[Function, ...]:
    """The functions of the documentation tasks, at most one for each name."""
    by_name: dict[str, Function] = {}
    for f in sorted(_usable(), key=lambda f: order_key("code", _key(f))):
        by_name.setdefault(f.name, f)
    return tuple(draw(by_name.values(), n, _key, "code"))


def summary(f: Function) -> str:
    """Return the first sentence of a function's documentation."""
    return clip(f.summary, SUMMARY_CHARACTERS)


def doc_to_code(n: int) -> Corpus:
    """From a documentation summary to the source, among ``2 n`` sources."""
    pool = _pool(2 * n)
    return aligned([summary(f) for f in pool[:n]], [masked(f) for f in pool])


def described(n: int) -> tuple[Function, ...]:
    """Return the ``2 n`` functions whose summaries are the documents of :func:`code_to_doc`."""
    return _pool(4 * n)[2 * n :]


def code_to_doc(n: int) -> Corpus:
    """From a source to its documentation summary, among ``2 n`` summaries."""
    pool = described(n)
    return aligned([masked(f) for f in pool[:n]], [summary(f) for f in pool])


@lru_cache(maxsize=1)
def twins() -> tuple[tuple[Function, Function], ...]:
    """Functions of one name in two libraries whose summaries agree in a quarter of their words.

    Vendored copies are left out: their sources share most of their words.
    """
    by_name: dict[str, list[Function]] = defaultdict(list)
    for f in corpus.functions("eval"):
        if len(f.source) > 60 and not f.name.startswith("_"):
            by_name[f.name].append(f)
    pairs = []
    for group in by_name.values():
        ordered = sorted(group, key=lambda f: order_key("twins", _key(f)))
        pairs += [pair for pair in combinations(ordered, 2) if _alike(*pair)][:1]
    return tuple(pairs)


def _alike(one: Function, two: Function) -> bool:
    if one.package == two.package:
        return False
    a, b = words(one.summary) - STOP, words(two.summary) - STOP
    s, t = words(one.source), words(two.source)
    return len(a & b) / max(len(a | b), 1) >= 0.25 and len(s & t) / len(s | t) < 0.6


def code_to_code(n: int) -> Corpus:
    """From a source to that of the same function in another library, names hidden in both.

    Each pair is asked in both directions; the query's own source is excluded from its ranking.
    """
    chosen = draw(twins(), max(n // 2, 2), lambda pair: _key(pair[0]), "cross")
    names = {one.name for one, _ in chosen}
    both = {
        f"{i}{side}": masked(f) for i, pair in enumerate(chosen) for side, f in zip("ab", pair, strict=True)
    }
    # distractors are the sources of doc_to_code, which a model has read already
    others = {f"x{i}": masked(f) for i, f in enumerate(_pool(2 * n)) if f.name not in names}
    other_side = {"a": "b", "b": "a"}
    return Corpus(
        queries={f"q{i}": text for i, text in both.items()},
        documents=both | others,
        relevant={f"q{i}": {i[:-1] + other_side[i[-1]]: 1} for i in both},
        excluded={f"q{i}": [i] for i in both},
    )


def question_to_signature(n: int) -> Corpus:
    """From a question made of the summary to the name and arguments of the function that does it."""
    pool = [f for f in _pool(9 * n) if not f.name.startswith("_") and len(f.name) > 3][: 2 * n]
    asked = [f for f in pool if _plain_form(f.summary.split(" ", 1)[0]) in VERBS][:n]
    ids = {f.name: f"d{i}" for i, f in enumerate(pool)}
    queries = {}
    for f in asked:
        verb, rest = summary(f).rstrip(".").split(" ", 1)
        queries[f"q-{ids[f.name]}"] = f"How can I {_plain_form(verb)} {rest}?"
    return Corpus(
        queries=queries,
        documents={ids[f.name]: signature(f) for f in pool},
        relevant={q: {q[2:]: 1} for q in queries},
    )


def _plain_form(verb: str) -> str:
    """'Returns' and 'Return' both become 'return'."""
    verb = verb.lower()
    if verb.endswith(("sses", "ches", "shes")):
        return verb[:-2]
    return verb[:-1] if verb.endswith("s") and not verb.endswith("ss") else verb


_code_task = partial(
    TaskSpec,
    type="Retrieval",
    smoke_n=8,
    source="functions of installed libraries, evaluation side",
    license=LIBRARY_LICENSE,
    languages=("eng-Latn", "python-Code"),
    domains=("Programming", "Written"),
    subtypes=("Code retrieval",),
    packages=FUNCTION_PACKAGES,
)

SPECS = (
    _code_task(
        name="DocToCodeRetrieval",
        build=doc_to_code,
        n=N,
        description="Find the source of a function from the first sentence of its documentation.",
        gold="the docstring stands in the function",
        weakness="sources are cut to 160 characters; training has pairs of the same form from other functions",
    ),
    _code_task(
        name="CodeToDocRetrieval",
        build=code_to_doc,
        n=N,
        description="Find the sentence that documents a function from its source.",
        gold="the docstring stands in the function",
        weakness="some summaries would fit several functions",
    ),
    _code_task(
        name="CrossLibraryCodeRetrieval",
        build=code_to_code,
        n=30,
        description="Find the same function in another library from its source, both without their names.",
        gold="same name and documentation that agrees, in two libraries; near copies left out",
        weakness="argument names often agree between libraries",
        languages=("python-Code",),
    ),
    _code_task(
        name="QuestionToSignatureRetrieval",
        build=question_to_signature,
        n=N,
        description="Find the name and arguments of the function that answers a how-to question.",
        gold="the question is the function's own first sentence of documentation",
        weakness="questions are made by a pattern; a name can repeat their words",
        subtypes=("Code retrieval", "Question answering"),
    ),
)
