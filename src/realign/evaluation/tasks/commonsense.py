"""From a question, a story or a step to what lies behind it: facts, sayings, goals. All data are of BIG-bench."""

from __future__ import annotations

import re
from collections import defaultdict

from realign.evaluation.specs import Corpus
from realign.evaluation.tasks.bigbench import Reader, choices, examples, right
from realign.evaluation.tasks.pools import Row, pool
from realign.texts import archives

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
WORD = re.compile(r"[^\W_]+")
VERDICT = re.compile(r"^(Yes|No)\.\s*")
STEP = re.compile(r"The most reasonable goal of '(.*)' is", re.DOTALL)
FACT_WORDS, STEM = 4, 5
"""A fact has at least so many words; words are the same if so many first letters agree, a final s aside."""
STOP = frozenset(
    WORD.findall(
        """a an the of in on at to for from by with and or is are was were be been do does did can could would
        will should has have had it its their his her they he she that this than as if not any some all most
        there which who what when where how why into about more less"""
    )
)


def _stems(text: str) -> set[str]:
    return {
        word.rstrip("s")[:STEM] for word in WORD.findall(text.lower()) if word not in STOP and len(word) > 2
    }


def implicit_facts(n: int, read: Reader = archives.read) -> Corpus:
    """From a yes-no question to the facts of its explanation that share no word with it; the others are excluded."""
    rows = []
    for example in examples("strategyqa", read):
        explanation = SENTENCE_END.split(VERDICT.sub("", example["target"]))
        facts = [fact for fact in explanation if len(fact.split()) >= FACT_WORDS]
        asked = _stems(example["input"])
        implicit = tuple(fact for fact in facts if not _stems(fact) & asked)
        rows.append(Row(example["input"], implicit, tuple(facts)))
    return pool(rows, n=n, documents=6 * n)


def two_facts(n: int, read: Reader = archives.read) -> Corpus:
    """From a question to the two facts whose combination answers it."""
    combined: dict[str, list[str]] = defaultdict(list)
    for example in examples("natural_instructions/subtask038_qasc_combined_fact", read):
        one, _, two = example["input"].partition("\nFact 2: ")
        combined[example["target"][0].strip()] += [one.removeprefix("Fact 1: "), two]
    rows = []
    for example in examples("natural_instructions/subtask040_qasc_question_generation", read):
        facts = combined.get(example["input"].removeprefix("Fact: ").strip(), [])
        rows.append(Row(example["target"][0], tuple(facts)))
    return pool(rows, [fact for facts in combined.values() for fact in facts], n=n, documents=8 * n)


def proverbs(n: int, read: Reader = archives.read) -> Corpus:
    """From a short story to the proverb that it illustrates, among proverbs and morals of fables."""
    stories = [
        example
        for size in (4, 9, 99)
        for example in examples(f"abstract_narrative_understanding/{size}_distractors", read)
    ]
    further = [*stories, *examples("understanding_fables", read), *examples("english_proverbs", read)]
    rows = [Row(story["input"], right(story)) for story in stories]
    return pool(rows, [saying for example in further for saying in choices(example)], n=n, documents=3 * n)


def goals(n: int, read: Reader = archives.read) -> Corpus:
    """From one step of a how-to guide to the goal of the guide."""
    all_steps = examples("goal_step_wikihow/goal_inference", read)
    rows = [Row(step[1], right(example)) for example in all_steps if (step := STEP.search(example["input"]))]
    return pool(rows, [goal for example in all_steps for goal in choices(example)], n=n, documents=5 * n)
