"""A mixture of kinds of problems, each asked after two worked examples of its kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

from realign.behaviour import problems as problem_sets
from realign.behaviour.kinds import KINDS, Kind, Metadata
from realign.behaviour.problems import ANSWER_MARKER, Split, VerifiableProblem
from realign.config import Style
from realign.errors import RealignError, UsageError, unknown

MIXTURE = "mixture"  # as the task of settings; task_options then has a table a kind
_BARREN = 3000  # items in a row that bring no new problem: the kind has no more


def load(
    options: dict[str, Any],
    split: Split,
    n: int,
    seed: int = 0,
    *,
    chat: bool = True,
    style: Style = "working",
) -> list[VerifiableProblem]:
    """Return ``n`` problems of one split, the kinds in turn; the first of them are the same whatever ``n`` is.

    Args:
        options: settings of the reasoning_gym task of every kind, by kind.
        split: a problem text is in exactly one. A kind that has too few distinct problems for training is
            gone through again from its start; those to be measured on are distinct.
        n: how many.
        seed: which ones.
        chat: whether prompts have chat markers; else a problem is a line, and so is its answer.
        style: "working": the working, then "Answer: ..."; "answer": the latter alone.

    Raises:
        UsageError: no kind, an unknown one, or settings that its task does not accept.
        RealignError: a kind has too few distinct problems to be measured on.
    """
    if not options:
        raise UsageError("a mixture needs at least one kind of problems in task_options")
    streams = []
    for name, asked in options.items():
        if name not in KINDS:
            raise unknown("kind of problems in a mixture", name, KINDS)
        if not isinstance(asked, dict):
            raise UsageError(f"task_options of a mixture: {name} must be a table of settings, got {asked!r}")
        found = _distinct(name, asked, split, seed, chat, style)
        streams.append(cycle(found) if split == "train" else found)
    problems = list(islice((problem for turn in zip(*streams, strict=False) for problem in turn), n))
    if len(problems) < n:
        raise RealignError(
            f"the mixture of {', '.join(options)} gave only {len(problems)} distinct {split} problems of {n} asked "
            "for; ask for fewer or widen the options of its kinds"
        )
    return problems


def _distinct(
    name: str, options: dict[str, Any], split: Split, seed: int, chat: bool, style: Style
) -> Iterator[VerifiableProblem]:
    """Yield the distinct problems of a kind in one split, in the order of its stream."""
    kind, written = KINDS[name], json.dumps(options, sort_keys=True)
    stream = seed * problem_sets.SEED_STRIDE
    dataset = problem_sets.dataset_of(name, written, stream)
    seen = {kind.ask(item) for item, _ in kind.examples}
    last = 0
    for index in range(1_000_000):
        entry = dataset[index]
        question = kind.ask(entry["metadata"])
        fits = kind.fits(entry["metadata"]) and problem_sets.split_of(question) == split
        if fits and question not in seen:
            seen.add(question)
            last = index
            answer = str(entry["answer"])
            yield VerifiableProblem(
                task=name,
                options=written,
                question=question,
                prompt=_prompt(kind, entry["metadata"], chat, style),
                answer=answer,
                solution=_solution(kind, entry["metadata"], answer, style),
                index=index,
                seed=stream,
                style=style,
                mixed=True,
            )
        elif index - last > _BARREN:
            return


def _solution(kind: Kind, item: Metadata, answer: str, style: Style) -> str:
    """Return the working (in the style "working") and the answer."""
    worked = f"{kind.work(item)} " if style == "working" else ""
    return f"{worked}{ANSWER_MARKER} {answer}"


def _prompt(kind: Kind, item: Metadata, chat: bool, style: Style) -> str:
    """Return two examples and the question."""
    shown = [(kind.ask(other), _solution(kind, other, answer, style)) for other, answer in kind.examples]
    if chat:
        turns = [f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n" for q, a in shown]
        return "".join(turns) + f"<|im_start|>user\n{kind.ask(item)}<|im_end|>\n<|im_start|>assistant\n"
    return "".join(f"{q} {a}\n" for q, a in shown) + kind.ask(item)
