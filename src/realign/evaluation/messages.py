"""Multilingual tasks from Sphinx's message catalogues, and tasks over the prose of library documentation.

Only texts on the evaluation side of :mod:`realign.texts` are used, so none is in training. The three
tasks over translated messages share their texts and one instruction, so a model reads them once.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial

from realign.evaluation.specs import Columns, Corpus, TaskSpec, clip, grouped, parallel
from realign.texts import corpus
from realign.texts.corpus import Function, Message
from realign.texts.splits import draw, order_key

# gettext language -> mteb's code; those with the most messages on the evaluation side
LANGUAGES = {
    "fr": "fra-Latn",
    "es": "spa-Latn",
    "pt_BR": "por-Latn",
    "ca": "cat-Latn",
    "id": "ind-Latn",
    "tr": "tur-Latn",
    "ja": "jpn-Jpan",
    "zh_CN": "zho-Hans",
}
LIBRARIES = (
    "matplotlib",
    "pandas",
    "sympy",
    "torch",
    "networkx",
    "SQLAlchemy",
    "scikit-learn",
    "transformers",
)
SUMMARY_CHARACTERS = 120
DESCRIPTION_CHARACTERS = 160
SPHINX_LICENSE = "https://opensource.org/license/bsd-2-clause"
LIBRARY_LICENSE = "multiple"


def words(text: str) -> set[str]:
    """Lower-case words of a text."""
    return set(re.findall(r"[^\W\d_]{2,}", text.lower()))


@lru_cache(maxsize=1)
def _messages() -> tuple[Message, ...]:
    """Messages in plain prose: no placeholders or names that would give the translation away."""
    plain = [
        m
        for m in corpus.catalogues("eval")
        if not re.search(r"[%{}<>`@*\\_/]|\b[a-z]+\.[a-z]+|\"", m.text) and 3 <= len(m.text.split()) <= 25
    ]
    return tuple(m for m in plain if all(language in m.translations for language in LANGUAGES))


def _chosen(n: int) -> list[Message]:
    return draw(_messages(), n, lambda m: m.key, "messages")


def message_bitext(n: int) -> Columns:
    """English message and its translation, ``n`` messages in each of eight languages."""
    return parallel(
        {f"en-{language}": [(m.text, m.translations[language]) for m in _chosen(n)] for language in LANGUAGES}
    )


def message_pairs(n: int) -> Columns:
    """Message with its translation (1) and with that of the message nearest in length and words (0)."""
    chosen = _chosen(n)
    subsets: dict[str, dict[str, dict[str, list]]] = {}
    for language in LANGUAGES:
        rows: list[tuple[str, str, int]] = []
        for message in chosen:
            near = max(
                (m for m in chosen if m.key != message.key),
                key=lambda m: (
                    len(words(m.text) & words(message.text)),
                    -abs(len(m.translations[language]) - len(message.translations[language])),
                ),
            )
            rows += [(message.text, m.translations[language], int(m is message)) for m in (message, near)]
        columns = map(list, zip(*rows, strict=True))
        names = ("sentence1", "sentence2", "labels")
        subsets[f"en-{language}"] = {"test": dict(zip(names, columns, strict=True))}
    return Columns(subsets)


def message_retrieval(n: int) -> Corpus:
    """From a message in another language to the English one, among all plain English messages."""
    chosen = _chosen(n)
    others = [
        m for m in corpus.catalogues("eval") if m.key not in {c.key for c in chosen} and "%" not in m.text
    ]
    documents = chosen + draw(others, 3 * n, lambda m: m.key, "distractors")
    ids = {m.key: f"d{i}" for i, m in enumerate(documents)}
    queries = {(ids[m.key], k): m.translations[k] for m in chosen for k in LANGUAGES}
    return Corpus(
        queries={f"{d}-{k}": text for (d, k), text in queries.items()},
        documents={ids[m.key]: clip(m.text, DESCRIPTION_CHARACTERS) for m in documents},
        relevant={f"{d}-{k}": {d: 1} for d, k in queries},
    )


@lru_cache(maxsize=1)
def _documented() -> tuple[Function, ...]:
    return tuple(f for f in corpus.functions("eval") if f.package in LIBRARIES and not f.name.startswith("_"))


def library_clustering(n: int) -> Columns:
    """Documentation summaries, to be grouped by the library they come from."""
    rows = []
    for library in LIBRARIES:
        named = re.compile(re.escape(library.partition("-")[0]), re.IGNORECASE)
        pool = [f for f in _documented() if f.package == library and not named.search(f.summary)]
        chosen = draw(pool, n // len(LIBRARIES), lambda f: f.module + f.name, "clustering")
        rows += [(clip(f.summary, SUMMARY_CHARACTERS), library) for f in chosen]
    return grouped(rows)


def description_reranking(n: int) -> Corpus:
    """From the summary of a function to its description, among those of seven others of its library."""
    group = 8
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    candidates: dict[str, list[str]] = {}
    usable = list(
        {
            clip(f.description, DESCRIPTION_CHARACTERS): f for f in _documented() if len(f.description) > 120
        }.values()
    )
    for library in LIBRARIES[: max(1, n // group)]:
        pool = [f for f in usable if f.package == library]
        # one seed function and those nearest to it in words: negatives that are about the same thing
        seed = min(pool, key=lambda f: order_key("rerank", f.module, f.name))
        near = sorted(
            pool,
            key=lambda f: (
                -len(words(f.summary) & words(seed.summary)) / len(words(f.summary) | words(seed.summary)),
                order_key(f.module, f.name),
            ),
        )[: min(group, n)]
        ids = [f"{library}-{i}" for i in range(len(near))]
        for name, f in zip(ids, near, strict=True):
            queries[f"q-{name}"] = clip(f.summary, SUMMARY_CHARACTERS)
            documents[name] = clip(f.description, DESCRIPTION_CHARACTERS)
            candidates[f"q-{name}"] = ids
    return Corpus(queries, documents, {q: {q[2:]: 1} for q in queries}, candidates=candidates)


_message_task = partial(
    TaskSpec,
    n=10,
    smoke_n=4,
    source="Sphinx message catalogues, eight languages, evaluation side",
    license=SPHINX_LICENSE,
    languages={f"en-{k}": ("eng-Latn", code) for k, code in LANGUAGES.items()},
    domains=("Programming", "Written"),
    packages=("sphinx",),
)
_library_task = partial(
    TaskSpec,
    source="docstrings of eight installed libraries, evaluation side",
    license=LIBRARY_LICENSE,
    domains=("Programming", "Written"),
    packages=tuple(LIBRARIES),
)

SPECS = (
    _message_task(
        name="SphinxBitextMining",
        type="BitextMining",
        build=message_bitext,
        description="Find the translation of an English interface message.",
        gold="the catalogue's translation, by volunteers, entries marked fuzzy left out",
        weakness="one narrow domain; 10 candidates are few; other messages of the domain are in training",
    ),
    _message_task(
        name="SphinxTranslationPairs",
        type="PairClassification",
        build=message_pairs,
        description="Tell a translation from the translation of a similar message.",
        gold="the catalogue's translation; negatives are other messages' translations",
        weakness="same texts as SphinxBitextMining, so the two are not independent",
    ),
    _message_task(
        name="SphinxCrossLingualRetrieval",
        type="Retrieval",
        build=message_retrieval,
        description="Find the English message of which the query is a translation, among all messages.",
        gold="the catalogue's translation",
        weakness="queries are those of SphinxBitextMining; words that are not translated give some away",
        languages=("eng-Latn", *LANGUAGES.values()),
    ),
    _library_task(
        name="LibraryDocsClustering",
        type="Clustering",
        build=library_clustering,
        n=72,
        smoke_n=24,
        description="Group one-sentence function descriptions by the library they come from.",
        gold="the library; summaries that name it are left out",
        weakness="libraries overlap in topic, so no model can reach 100",
        subtypes=("Thematic clustering",),
    ),
    _library_task(
        name="LibraryDocsReranking",
        type="Reranking",
        build=description_reranking,
        n=40,
        smoke_n=8,
        description="Rank the description that belongs to a one-sentence summary above those of similar functions.",
        gold="summary and description stand in one docstring",
        weakness="shared words solve a part; training has pairs of the same form from other functions",
    ),
)
