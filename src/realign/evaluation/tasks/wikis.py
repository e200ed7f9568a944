"""Encyclopaedia, how-to and question texts of BIG-bench: WikiLingua, SQuADShifts, VitaminC, Wikipedia articles."""

from __future__ import annotations

import json
import re

from realign.evaluation.specs import Columns, Corpus, clip
from realign.evaluation.tasks.bigbench import Reader, examples, right
from realign.evaluation.tasks.pools import Row, pool
from realign.texts import archives
from realign.texts.archives import BIGBENCH, BIGBENCH_TASKS
from realign.texts.copies import distinct
from realign.texts.splits import draw

# The blocks of gem/wikilingua_multilingual in their order, 152 articles each.
WIKILINGUA = {
    "ar": "ara-Arab", "zh": "zho-Hans", "cs": "ces-Latn", "nl": "nld-Latn", "en": "eng-Latn", "fr": "fra-Latn",
    "de": "deu-Latn", "hi": "hin-Deva", "id": "ind-Latn", "it": "ita-Latn", "ja": "jpn-Jpan", "ko": "kor-Hang",
    "pt": "por-Latn", "ru": "rus-Cyrl", "es": "spa-Latn", "th": "tha-Thai", "tr": "tur-Latn", "vi": "vie-Latn",
}  # fmt: skip
# The blocks of paragraph_segmentation in their order.
WIKIPEDIA = {
    "de": "deu-Latn", "en": "eng-Latn", "es": "spa-Latn", "fr": "fra-Latn", "it": "ita-Latn", "nl": "nld-Latn",
    "pl": "pol-Latn", "pt": "por-Latn", "ru": "rus-Cyrl",
}  # fmt: skip
DENSE = ("zh", "ja", "ko", "th")
"""Languages in which half as many characters say as much."""
SHIFTS = ("squaddev_v1.1", "nyt_v1.0", "amazon_reviews_v1.0", "reddit_v1.0", "new_wiki_v1.0")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"”)]*\s+(?=[\"“(]?[A-Z0-9])")
SENTENCES = 6
"""Sentences of an article that are to be grouped."""


def how_to(n: int, read: Reader = archives.read) -> Corpus:
    """From the opening of a how-to article in one of 17 languages to its English summary, among all summaries."""
    articles = examples("gem/wikilingua_multilingual", read)
    block = len(articles) // len(WIKILINGUA)
    rows, english = [], []
    for i, article in enumerate(articles):
        language = list(WIKILINGUA)[min(i // block, len(WIKILINGUA) - 1)]
        summary = clip(_target(article), 160)
        if language == "en":
            english.append(summary)
        else:
            opening = clip(" ".join(article["input"].split()), 80 if language in DENSE else 160)
            rows.append(Row(opening, (summary,)))
    return pool(rows, english, n=n)


def _target(example: object) -> str:
    target = example["target"]  # type: ignore[index]
    return " ".join((target[0] if isinstance(target, list) else target).split())


def sentences(paragraph: str) -> list[tuple[int, int]]:
    """Return where the sentences of a paragraph begin and end."""
    cuts = [(m.start(), m.end()) for m in SENTENCE_END.finditer(paragraph)]
    return list(
        zip([0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(paragraph)], strict=True)
    )


def questions(n: int, read: Reader = archives.read) -> Corpus:
    """From a question to the sentence that holds its answer, among those of such paragraphs; five kinds of text."""
    rows, others = [], []
    for shift in SHIFTS:
        data = json.loads(read(BIGBENCH, f"{BIGBENCH_TASKS}/squad_shifts/{shift}.json"))["data"]
        asked = [
            (question["question"].strip(), paragraph["context"], question["answers"])
            for article in data
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
        chosen: dict[str, tuple[str, str, list]] = {}
        for each in draw(asked, None, lambda each: each[0], "squad", shift):
            if len(chosen) == n // len(SHIFTS):
                break
            if len(each[0]) >= 20 and each[1] not in chosen:  # one question a paragraph
                chosen[each[1]] = each
        for question, paragraph, answers in chosen.values():
            spans = sentences(paragraph)
            starts = [answer["answer_start"] for answer in answers]
            holding = {clip(paragraph[a:b], 240) for a, b in spans if any(a <= at < b for at in starts)}
            rows.append(Row(question, tuple(sorted(holding))))
            others += [clip(paragraph[a:b], 240) for a, b in spans if b - a >= 30]
    return pool(rows, others, n=n, documents=5 * n)


def claims(n: int, read: Reader = archives.read) -> Columns:
    """Claim and passage: the passage supports the claim (1), or says neither that it is true nor false (0)."""
    rows = []
    for example in examples("vitaminc_fact_verification", read):
        passage, _, claim = example["input"].partition("\nClaim: ")
        whole = 20 <= len(claim) <= 160 and 40 <= len(passage) <= 280 and "\ufffd" not in example["input"]
        if whole and right(example)[0] in ("True", "Neither"):
            rows.append((claim.strip(), " ".join(passage.split()), int(right(example)[0] == "True")))
    drawn = [
        row
        for label in (0, 1)
        for row in distinct(
            draw([r for r in rows if r[2] == label], 2 * n, lambda r: r[0] + r[1], "claims"), lambda r: r[0]
        )[: n // 2]
    ]
    names = ("sentence1", "sentence2", "labels")
    return Columns({"default": {"test": dict(zip(names, map(list, zip(*drawn, strict=True)), strict=True))}})


def articles(n: int, read: Reader = archives.read) -> Columns:
    """Sentences of Wikipedia, to be grouped by the article they stand in: ``n``, six an article, in nine languages."""
    texts = examples("paragraph_segmentation", read)
    block = len(texts) // len(WIKIPEDIA)
    subsets = {}
    for at, language in enumerate(WIKIPEDIA):
        usable = [
            lines
            for example in texts[at * block : (at + 1) * block]
            if len(lines := [x for x in example["input"].split("\n") if 50 <= len(x) <= 160]) >= SENTENCES
        ]
        drawn = [distinct(lines, str)[:SENTENCES] for lines in draw(usable, n, " ".join, "articles")]
        chosen = [lines for lines in drawn if len(lines) == SENTENCES][: n // SENTENCES]
        subsets[language] = {
            "test": {
                "sentences": [line for lines in chosen for line in lines],
                "labels": [str(i) for i, lines in enumerate(chosen) for _ in lines],
            }
        }
    return Columns(subsets)
