"""MultiEmo: sentences of Polish reviews from four domains, machine-translated into ten languages (in BIG-bench)."""

from __future__ import annotations

from realign.evaluation.specs import Columns, clip, parallel
from realign.evaluation.tasks.bigbench import Reader, examples, right
from realign.texts import archives
from realign.texts.copies import distinct
from realign.texts.splits import draw

LANGUAGES = {
    "de": "deu-Latn", "en": "eng-Latn", "es": "spa-Latn", "fr": "fra-Latn", "it": "ita-Latn", "ja": "jpn-Jpan",
    "nl": "nld-Latn", "pl": "pol-Latn", "pt": "por-Latn", "ru": "rus-Cyrl", "zh": "zho-Hans",
}  # fmt: skip
SENTIMENTS = ("positive", "negative", "neutral", "ambivalent")
DOMAINS = ("hotels", "medicine", "products", "reviews")
TRAIN = 12
"""Training texts of a label, of which mteb draws eight."""
ALIGNED = 20_000
"""Sentences of a domain that are translations by their index: the German ones are one short near their end."""
CHARACTERS = 120


def _sentences(domain: str, language: str, read: Reader) -> list[tuple[str, str]]:
    """Return (sentence, sentiment) of a domain, by index."""
    rows = examples(f"multiemo/{domain}_sentence_{language}", read)
    return [(" ".join(row["input"].split()), right(row)[0]) for row in rows[:ALIGNED]]


def _long_enough(text: str, language: str) -> bool:
    return len(text) >= (12 if language in ("ja", "zh") else 30)


def _split(by_label: dict[str, list[str]], n: int, *salt: object) -> dict[str, dict[str, list]]:
    """Draw train and test texts, ``n`` of these in all and as many of each label, no two of them near copies."""
    each = n // len(by_label)
    columns: dict[str, dict[str, list]] = {s: {"text": [], "label": []} for s in ("train", "test")}
    drawn = [
        (clip(text, CHARACTERS), label)
        for label, (name, texts) in enumerate(by_label.items())
        for text in draw(set(texts), 2 * (each + TRAIN), str, *salt, name)
    ]
    kept = distinct(drawn, lambda row: row[0])
    for label in range(len(by_label)):
        texts = [text for text, mine in kept if mine == label]
        for split, part in (("test", texts[:each]), ("train", texts[each : each + TRAIN])):
            columns[split]["text"] += part
            columns[split]["label"] += [label] * len(part)
    return columns


def sentiment(n: int, read: Reader = archives.read) -> Columns:
    """Sentences of hotel reviews with their sentiment, ``n`` to be classified in each of eleven languages."""
    subsets = {}
    for language in LANGUAGES:
        rows = [row for row in _sentences("hotels", language, read) if _long_enough(row[0], language)]
        by_label = {name: [text for text, label in rows if label == name] for name in SENTIMENTS}
        subsets[language] = _split(by_label, n, "sentiment", language)
    return Columns(subsets)


def domain(n: int, read: Reader = archives.read) -> Columns:
    """Sentences of reviews with what is reviewed, ``n`` to be classified in each of eleven languages."""
    subsets = {}
    for language in LANGUAGES:
        by_label = {
            name: [t for t, _ in _sentences(name, language, read) if _long_enough(t, language)]
            for name in DOMAINS
        }
        subsets[language] = _split(by_label, n, "domain", language)
    return Columns(subsets)


def bitext(n: int, read: Reader = archives.read) -> Columns:
    """An English sentence and its counterpart, ``n`` in each of ten languages; the English ones are the same."""
    english = [text for text, _ in _sentences("hotels", "en", read)]
    places = [i for i, text in enumerate(english) if 40 <= len(text) <= CHARACTERS]
    drawn = distinct(draw(places, 2 * n, english.__getitem__, "bitext"), english.__getitem__)[:n]
    subsets = {}
    for language in LANGUAGES:
        if language != "en":
            other = [text for text, _ in _sentences("hotels", language, read)]
            subsets[f"en-{language}"] = [(english[i], other[i]) for i in drawn]
    return parallel(subsets)
