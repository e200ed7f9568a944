"""Tasks from the registry of OpenAI's evals: school examinations, parables, job titles, sarcasm."""

from __future__ import annotations

import json
import re

from realign.evaluation.specs import Columns, Corpus, clip
from realign.evaluation.tasks.bigbench import Reader
from realign.evaluation.tasks.pools import Row, pool
from realign.texts import archives
from realign.texts.archives import EVALS
from realign.texts.splits import draw

LANGUAGES = {
    "albanian": "sqi-Latn", "arabic": "ara-Arab", "bulgarian": "bul-Cyrl", "croatian": "hrv-Latn",
    "french": "fra-Latn", "german": "deu-Latn", "hungarian": "hun-Latn", "italian": "ita-Latn",
    "lithuanian": "lit-Latn", "macedonian": "mkd-Cyrl", "polish": "pol-Latn", "portuguese": "por-Latn",
    "serbian": "srp-Cyrl", "spanish": "spa-Latn", "turkish": "tur-Latn", "vietnamese": "vie-Latn",
}  # fmt: skip
OPTION = re.compile(r"(?:^|\s)([A-E])[.)]\s")


def samples(member: str, read: Reader) -> list[tuple[str, str]]:
    """Return (what is asked, the ideal answer) of a file of samples."""
    rows = [
        json.loads(line) for line in read(EVALS, f"evals/registry/data/{member}").splitlines() if line.strip()
    ]
    ideal = [row["ideal"][0] if isinstance(row["ideal"], list) else row["ideal"] for row in rows]
    return [(row["input"][-1]["content"], answer.strip()) for row, answer in zip(rows, ideal, strict=True)]


def options(text: str) -> dict[str, str]:
    """Return the options of a choice by their letter."""
    parts = OPTION.split(text)
    return {letter: " ".join(option.split()) for letter, option in zip(parts[1::2], parts[2::2], strict=True)}


def _choice(asked: str, ideal: str) -> tuple[str, str, list[str]] | None:
    """Return question, right and wrong options; None for one that cannot be read."""
    question, _, rest = asked.partition("\nA")
    known = options("A" + rest.partition("\nAnswer:")[0].partition("\nThe output should")[0])
    letter = re.search(r"\b([A-E])\b\]?$", ideal)
    if letter is None or letter[1] not in known:
        return None
    return question, known[letter[1]], [text for name, text in known.items() if name != letter[1]]


def examinations(n: int, read: Reader = archives.read) -> Corpus:
    """From a question of a school examination to its right answer, among right and wrong ones in 16 languages."""
    rows, others = [], []
    for language in LANGUAGES:
        known = [_choice(*sample) for sample in samples(f"{language}-exams-qa/samples.jsonl", read)]
        usable = [
            k
            for k in known
            if k and 25 <= len(k[0]) <= 200 and all(10 <= len(x) <= 120 for x in (k[1], *k[2]))
        ]
        for question, answer, wrong in draw(
            usable, -(-n // len(LANGUAGES)), lambda k: k[0], "examinations", language
        ):
            rows.append(Row(" ".join(question.split()), (answer,)))
            others += wrong
    return pool(rows, others, n=n)


def parables(n: int, read: Reader = archives.read) -> Corpus:
    """From a parable to its moral, among all morals; half in English, half in Chinese."""
    rows, others = [], []
    for language, characters in (("en", 480), ("zh", 200)):
        known = []
        for asked, ideal in samples(f"parable-to-moral-match/parable-to-moral-match-{language}.jsonl", read):
            story, _, rest = asked.partition("\nWhich moral")
            choice = _choice(f"{story}\nA{rest.partition(chr(10) + 'A')[2]}", ideal)
            if choice is not None:
                known.append((clip(" ".join(story.split()), characters), choice[1]))
                others += choice[2]
        chosen = set(draw({story for story, _ in known}, n // 2, str, "parables", language))
        rows += [Row(story, (moral,)) for story, moral in known if story in chosen]
    return pool(rows, others, n=n, documents=3 * n)


def occupations(n: int, read: Reader = archives.read) -> Corpus:
    """From a job title to its class in the Standard Occupational Classification, among all classes."""
    rows = []
    for asked, ideal in samples("soc_codes/samples.jsonl", read):
        title = asked.rpartition("job title ")[2].strip("' ?.")
        if not ideal.endswith("All Other"):  # these classes hold what the others do not
            rows.append(Row(title, (ideal,)))
    return pool(rows, n=n)


def sarcasm(n: int, read: Reader = archives.read) -> Columns:
    """Headlines in English and sentences in Portuguese, sarcastic or not; ``n`` to be classified in each language."""
    files = {"en": "sarcasm/samples.jsonl", "pt": "portuguese-sarcasm/samples.jsonl"}
    subsets = {}
    for language, member in files.items():
        columns: dict[str, dict[str, list]] = {s: {"text": [], "label": []} for s in ("test", "train")}
        rows = {(" ".join(text.split()), answer in ("1", "Y")) for text, answer in samples(member, read)}
        for label in (False, True):
            drawn = draw([t for t, mine in rows if mine == label], n // 2 + 32, str, "sarcasm", language)
            for split, part in (("test", drawn[: n // 2]), ("train", drawn[n // 2 :])):
                columns[split]["text"] += part
                columns[split]["label"] += [int(label)] * len(part)
        subsets[language] = columns
    return Columns(subsets)
