"""From a problem to the theorem or formula that solves it, or to another problem that is solved in the same way.

CHAMP names the concepts of each competition problem, BIG-bench the formulas of each physics problem, and MathQA
(in BIG-bench) the program that computes each answer.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from realign.evaluation.specs import Corpus
from realign.evaluation.tasks.bigbench import Reader, choices, examples, right
from realign.evaluation.tasks.pools import Row, pool
from realign.texts import archives
from realign.texts.archives import CHAMP
from realign.texts.copies import distinct

CHAMP_DATA = "champ_dataset/dataset_files/v0.json"
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
STEPS, STORIES = 2, range(2, 13)
"""Operations that a program has at least, and how many different problems share one that is asked."""
Concept = Mapping[str, Any]  # of CHAMP: identifier, name, _text, parent
Problem = Mapping[str, Any]  # of CHAMP: _text, ch_list (identifiers of concepts C_... and hints H_...), ...


def _concept_text(concept: Concept) -> str:
    return f"{concept['name']}: {concept['_text']}" if concept["name"] else concept["_text"]


def _line(concept: Concept | None) -> Iterator[str]:
    """Yield a concept and those that it is a case of."""
    while concept:
        yield concept["identifier"]
        concept = concept["parent"]


def _concepts(problem: Problem) -> list[str]:
    return [name for name in problem["ch_list"] if name.startswith("C_")]


def _champ(read: Reader) -> tuple[dict[str, Problem], dict[str, Concept]]:
    data = json.loads(read(CHAMP, CHAMP_DATA))
    return data["problems"], data["concepts"]


def champ_concepts(n: int, read: Reader = archives.read) -> Corpus:
    """From a competition problem to the concepts that its solution uses, among those of CHAMP and physics formulas.

    What a relevant concept is a case of, and its own cases, are excluded.
    """
    problems, concepts = _champ(read)
    related: dict[str, set[str]] = defaultdict(set)
    for name, concept in concepts.items():
        for above in _line(concept):
            related[name].add(above)
            related[above].add(name)
    text = {name: _concept_text(concept) for name, concept in concepts.items()}
    rows = [
        Row(
            problem["_text"],
            tuple(text[name] for name in _concepts(problem)),
            tuple(text[near] for name in _concepts(problem) for near in sorted(related[name])),
        )
        for problem in problems.values()
    ]
    return pool(rows, [*text.values(), *_formulas(read)], n=n, documents=2 * n)


def champ_problems(n: int, read: Reader = archives.read) -> Corpus:
    """From a competition problem to the others whose solutions share a concept with its own."""
    problems, _ = _champ(read)
    users: dict[str, list[str]] = defaultdict(list)
    for problem in problems.values():
        for concept in _concepts(problem):
            users[concept].append(problem["_text"])
    rows = [
        Row(
            problem["_text"],
            tuple(t for c in _concepts(problem) for t in users[c] if t != problem["_text"]),
            (problem["_text"],),
        )
        for problem in problems.values()
    ]
    return pool(rows, n=n, documents=2 * n)


def _formulas(read: Reader) -> list[str]:
    return [formula for example in examples("physics", read) for formula in choices(example)]


def physics(n: int, read: Reader = archives.read) -> Corpus:
    """From a physics problem to the formulas that it needs, among those of physics and the concepts of CHAMP."""
    rows = [Row(example["input"], right(example)) for example in examples("physics", read)]
    return pool(rows, [*_formulas(read), *map(_concept_text, _champ(read)[1].values())], n=n, documents=2 * n)


def same_program(n: int, read: Reader = archives.read) -> Corpus:
    """From a word problem to those that the same program solves, once its numbers are masked.

    Problems that tell one story with other numbers count once. Asked are programs of at least :data:`STEPS`
    operations that between 2 and 12 stories share.
    """
    told = examples("elementary_math_qa/question_only", read)
    hints = examples("elementary_math_qa/mathematical_hint_only", read)
    stories: dict[str, list[str]] = defaultdict(list)
    for problem, hint in zip(told, hints, strict=True):
        stories[NUMBER.sub("#", hint["input"])].append(problem["input"])
    rows: list[Row] = []
    others: list[str] = []
    for program, texts in stories.items():
        different = distinct(sorted(texts), partial(NUMBER.sub, "#"))
        if program.count("(") >= STEPS and len(different) in STORIES:
            rows += [Row(t, tuple(o for o in different if o != t), (t,)) for t in different]
        else:
            others += different
    return pool(rows, others, n=n, documents=5 * n)
