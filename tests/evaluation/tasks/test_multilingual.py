"""Multilingual tasks from small archives of the same layout: what is asked, what is right, what is left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from realign.errors import RealignError
from realign.evaluation import instructions, specs, suites
from realign.evaluation.specs import Columns, Corpus
from realign.evaluation.tasks import examinations, multilingual, reviews, short, wikis
from realign.texts import archives
from realign.texts.archives import BIGBENCH_TASKS, Archive
from realign.texts.splits import order_key

LETTERS = "ABCD"


def words(*key: object, n: int = 8) -> str:
    """Write a sentence of made-up words that no other key gives."""
    digest = order_key(*key)
    return " ".join(digest[5 * i : 5 * i + 5] for i in range(n)).capitalize() + "."


def scored(text: str, answer: str, *others: str) -> dict[str, Any]:
    return {"input": text, "target_scores": {answer: 1, **dict.fromkeys(others, 0)}}


def question(i: int, *key: object) -> dict[str, Any]:
    text = words(*key, i) + "".join(f"\n{c}. {words(*key, i, c, n=3)}" for c in LETTERS)
    return {
        "input": [{"content": "Choose."}, {"content": f"{text}\nAnswer:"}],
        "ideal": f"[{LETTERS[i % 4]}]",
    }


def parable(i: int, language: str) -> dict[str, Any]:
    options = " ".join(f"{c}) {words('moral', language, i, c, n=4)}" for c in LETTERS)
    text = f"{words('story', language, i)}\nWhich moral is this?\n{options}\nThe output should look like X"
    return {
        "input": [{"content": "Choose."}, {"content": text}],
        "ideal": [f"The final answer is: {LETTERS[i % 4]}"],
    }


def sample(text: str, ideal: str) -> dict[str, Any]:
    return {"input": [{"content": "system"}, {"content": text}], "ideal": ideal}


def reviewed(domain: str, language: str) -> list[dict[str, Any]]:
    return [scored(words(domain, language, i), reviews.SENTIMENTS[i % 4]) for i in range(160)]


def shift(name: str) -> dict[str, Any]:
    paragraphs = []
    for i in range(8):
        lines = [words(name, i, at) for at in range(4)]
        context = " ".join(lines)
        answer = {"answer_start": context.index(lines[2]) + 3, "text": "x"}
        paragraphs.append(
            {
                "context": context,
                "qas": [{"question": f"{words(name, i, 'asked')[:-1]}?", "answers": [answer]}],
            }
        )
    return {"data": [{"paragraphs": paragraphs}]}


def bigbench(task: str) -> list[dict[str, Any]]:
    kind, _, rest = task.partition("/")
    if kind == "multiemo":
        domain, _, language = rest.split("_")
        return reviewed(domain, language)
    return {
        "language_identification": [scored(words(x, i), x, "Other") for x in short.IDENTIFIED for i in range(10)],
        "intent_recognition": [scored(f"Utterance: {words(x, i)}", x, "Other") for x in short.INTENTS for i in range(40)],
        "gem": [
            {"input": words(x, i, n=12), "target": [words("summary", i % 3 if x == "vi" else (x, i))]}
            for x in wikis.WIKILINGUA for i in range(4)
        ],
        "vitaminc_fact_verification": [
            scored(f"{words('page', i, n=12)}\nClaim: {words('claim', i)}", ("True", "False", "Neither")[i % 3])
            for i in range(60)
        ],
        "paragraph_segmentation": [
            {"input": "\n".join(words(x, i, at, n=12) for at in range(7)), "target": "0"}
            for x in wikis.WIKIPEDIA for i in range(5)
        ],
    }[kind]  # fmt: skip


def read(archive: Archive, member: str) -> bytes:
    """Read a made-up archive with the layout of the real one."""
    if member.startswith(BIGBENCH_TASKS):
        task = member.removeprefix(f"{BIGBENCH_TASKS}/").removesuffix("/task.json")
        if task.startswith("squad_shifts/"):
            return json.dumps(shift(task)).encode()
        return json.dumps({"examples": bigbench(task)}).encode()
    if member.endswith("lee.cor"):
        return "\n".join(words("news", i, n=12) + " \u00a3" for i in range(6)).encode("latin-1")
    if member.endswith("similarities0-1.txt"):
        return "\n".join("\t".join(f"{(i + j) / 20}" for j in range(6)) for i in range(6)).encode()
    name = member.split("/")[3]
    rows = {
        "sarcasm": [sample(words("headline", i), str(i % 2)) for i in range(120)],
        "portuguese-sarcasm": [sample(words("frase", i), "NY"[i % 2]) for i in range(120)],
        "soc_codes": [
            sample(f"What is the SOC Code for the job title {words('job', i, n=2)[:-1]}'", f" {words('class', i // 2, n=3)}")
            for i in range(40)
        ] + [sample("What is the SOC Code for the job title Rest'", " Workers, All Other")],
        "parable-to-moral-match": [parable(i, member[-8:-6]) for i in range(20)],
    }.get(name) or [question(i, name) for i in range(12)]  # fmt: skip
    return "\n".join(map(json.dumps, rows)).encode()


BUILDERS: list[tuple[Callable[..., Columns | Corpus], int]] = [
    (reviews.sentiment, 16), (reviews.domain, 16), (reviews.bitext, 8), (short.languages, 2), (short.intents, 4),
    (short.news, 5), (wikis.how_to, 20), (wikis.questions, 20), (wikis.claims, 20), (wikis.articles, 24),
    (examinations.examinations, 32), (examinations.parables, 10), (examinations.occupations, 12),
    (examinations.sarcasm, 20),
]  # fmt: skip


@pytest.mark.parametrize(("build", "n"), BUILDERS, ids=[build.__name__ for build, _ in BUILDERS])
def test_data_are_complete_at_the_size_that_is_asked(build: Callable[..., Columns | Corpus], n: int) -> None:
    data = build(n, read)
    assert all(text.strip() for text in specs.texts(data))
    if isinstance(data, Corpus):
        assert len(data.queries) == n
        assert len(set(data.documents.values())) == len(data.documents) > n
        for grades in data.relevant.values():
            assert grades
            assert set(grades) <= set(data.documents)
        return
    for splits in data.subsets.values():
        for columns in splits.values():
            assert len({len(column) for column in columns.values()}) == 1
        if "train" in splits:
            assert not set(splits["train"]["text"]) & set(splits["test"]["text"])
            assert set(splits["train"]["label"]) == set(splits["test"]["label"])


def test_a_pair_of_bitext_is_one_sentence_in_two_languages() -> None:
    data = reviews.bitext(8, read)
    assert list(data.subsets) == [f"en-{language}" for language in reviews.LANGUAGES if language != "en"]
    english = [row["input"] for row in reviewed("hotels", "en")]
    for name, splits in data.subsets.items():
        other = [row["input"] for row in reviewed("hotels", name.removeprefix("en-"))]
        pairs = zip(splits["test"]["sentence1"], splits["test"]["sentence2"], strict=True)
        assert all(other[english.index(one)] == two for one, two in pairs)


def test_sentences_after_the_place_where_german_loses_one_are_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reviews, "ALIGNED", 10)
    known = {row["input"] for row in reviewed("hotels", "en")[:10]}
    assert set(reviews.bitext(8, read).subsets["en-de"]["test"]["sentence1"]) <= known


def test_labels_of_reviews_are_those_of_their_sentences() -> None:
    labels = {row["input"]: next(iter(row["target_scores"])) for row in reviewed("hotels", "ja")}
    test = reviews.sentiment(16, read).subsets["ja"]["test"]
    assert [labels[text] for text in test["text"]] == [reviews.SENTIMENTS[label] for label in test["label"]]
    assert [list(test["label"]).count(label) for label in range(4)] == [4] * 4


def test_the_answer_of_a_question_is_the_sentence_in_which_it_was_marked() -> None:
    data = wikis.questions(20, read)
    for query, grades in data.relevant.items():
        (name, i) = next(
            (name, i) for name in wikis.SHIFTS for i in range(8)
            if data.queries[query] == f"{words(f'squad_shifts/{name}.json', i, 'asked')[:-1]}?"
        )  # fmt: skip
        assert [data.documents[d] for d in grades] == [words(f"squad_shifts/{name}.json", i, 2)]


@pytest.mark.parametrize(
    ("paragraph", "parts"),
    [
        ("One. Two? Three", ["One.", "Two?", "Three"]),
        ('He said "No." Then 3.5 more came.', ['He said "No.', "Then 3.5 more came."]),
        ("Only one", ["Only one"]),
    ],
)
def test_sentences_are_found(paragraph: str, parts: list[str]) -> None:
    assert [paragraph[a:b] for a, b in wikis.sentences(paragraph)] == parts


def test_english_articles_are_not_asked_but_their_summaries_are_there() -> None:
    data = wikis.how_to(20, read)
    assert not {words("en", i, n=12) for i in range(4)} & set(data.queries.values())
    assert {words("summary", ("en", i)) for i in range(4)} <= set(data.documents.values())


def test_claims_that_a_passage_refutes_are_left_out() -> None:
    test = wikis.claims(20, read).subsets["default"]["test"]
    kinds = {words("claim", i): i % 3 for i in range(60)}
    assert [{1: 0, 0: 2}[label] for label in test["labels"]] == [kinds[claim] for claim in test["sentence1"]]
    assert sum(test["labels"]) == 10


def test_an_examination_has_its_right_answer_and_its_wrong_ones_in_the_pool() -> None:
    data = examinations.examinations(32, read)
    for query, grades in data.relevant.items():
        key = next(
            (f"{x}-exams-qa", i) for x in examinations.LANGUAGES for i in range(12)
            if data.queries[query] == words(f"{x}-exams-qa", i)
        )  # fmt: skip
        answers = {c: words(*key, c, n=3) for c in LETTERS}
        assert [data.documents[d] for d in grades] == [answers[LETTERS[key[1] % 4]]]
        assert set(answers.values()) <= set(data.documents.values())


def test_half_of_the_parables_are_in_each_language_and_lead_to_their_moral() -> None:
    data = examinations.parables(10, read)
    stories = {words("story", x, i): (x, i) for x in ("en", "zh") for i in range(20)}
    asked = {query: stories[text] for query, text in data.queries.items()}
    assert [language for language, _ in asked.values()].count("zh") == 5
    for query, (language, i) in asked.items():
        assert [data.documents[d] for d in data.relevant[query]] == [
            words("moral", language, i, LETTERS[i % 4], n=4)
        ]


def test_ratings_belong_to_their_pair() -> None:
    test = short.news(6, read).subsets["default"]["test"]
    place = {words("news", i, n=12) + " £": i for i in range(6)}
    assert len(test["score"]) == 15
    for one, two, score in zip(test["sentence1"], test["sentence2"], test["score"], strict=True):
        assert score == pytest.approx((place[one] + place[two]) / 20)


def test_the_suite_has_its_width() -> None:
    assert len(multilingual.SPECS) >= 12
    assert len({spec.type for spec in multilingual.SPECS}) >= 6
    assert len({code for spec in multilingual.SPECS for code in spec.codes}) >= 15


def test_every_task_is_described_for_mteb() -> None:
    table = instructions.load(strict=True)
    for spec, task in zip(multilingual.SPECS, suites.load("study-open-multilingual"), strict=True):
        assert table(spec.name, spec.type)
        known = task.metadata
        assert (known.name, known.license, known.main_score) == (spec.name, spec.license, spec.main_score)
        if spec.archives:
            assert known.is_filled()
            assert known.bibtex_citation


def test_keys_know_the_archives_and_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_extract", lambda *_: pytest.fail("an archive was read for a key"))
    known = suites.sources("study-open-multilingual", "LeeSTS")
    assert known["gensim-4.4.0.tar.gz"] == archives.GENSIM.sha256
    assert "bigbench-1.0.0.tar.gz" not in known
    assert suites.sources("laptop-multilingual").keys() >= {"builder", "sizes"}


def test_smoke_suites_need_no_archive() -> None:
    for suite in suites.SUITES:
        assert [spec.name for spec, _ in suite.sized("smoke") if spec.archives] == []


def test_a_size_that_a_suite_does_not_have_is_unknown() -> None:
    with pytest.raises(RealignError, match=r"unknown suite 'study-code'"):
        suites.specs("study-code")
