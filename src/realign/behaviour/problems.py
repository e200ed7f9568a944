"""Problems of reasoning_gym: splits, prompts, worked answers and the task's own verifier."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from realign.config import Style
from realign.errors import RealignError, UsageError, unknown

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset
    from transformers import PreTrainedTokenizerBase

Split = Literal["train", "validation", "test"]
Entry = dict[str, Any]  # of reasoning_gym: question, answer, metadata

# Tenths of the digest space of problem texts.
_SHARES: dict[Split, range] = {"train": range(0, 7), "validation": range(7, 8), "test": range(8, 10)}
SEED_STRIDE = 1_000_003  # far apart, so that two seeds do not walk through the same items
_PLACES = ("Units", "Tens", "Hundreds", "Thousands")
CHAT_MARKER = "<|im_start|>"
ANSWER_MARKER = "Answer:"


@dataclass(frozen=True)
class VerifiableProblem:
    """A problem whose answers a verifier scores: its text, the prompt for a policy, the answer, a worked completion."""

    task: str
    options: str  # canonical JSON, so that a problem is hashable and can be scored by itself
    question: str
    prompt: str
    answer: str
    solution: str
    index: int
    seed: int
    style: Style = "answer"
    mixed: bool = (
        False  # of a mixture: asked after worked examples, so that "Answer:" is there in both styles
    )


@lru_cache(maxsize=64)
def dataset_of(task: str, options: str, seed: int) -> ProceduralDataset:
    """Return a reasoning_gym data set; ``options`` is canonical JSON.

    Raises:
        UsageError: an unknown task, or settings it does not accept.
    """
    from reasoning_gym.factory import DATASETS, create_dataset

    if task not in DATASETS:
        raise unknown("reasoning_gym task", task, DATASETS)
    try:
        return create_dataset(task, seed=seed, size=1_000_000, **json.loads(options))
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(f"reasoning_gym task '{task}' does not accept {options}: {error}") from None


def has_chat_markers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer knows the chat markers that prompts are written with."""
    return CHAT_MARKER in tokenizer.get_vocab()


def split_of(text: str) -> Split:
    """Return the split a problem text belongs to: 70% train, 10% validation, 20% test, by digest.

    The text alone decides, so no problem is ever in two splits, whatever seed generated it.
    """
    tenth = int(hashlib.sha256(text.strip().encode()).hexdigest()[:8], 16) % 10
    return next(name for name, share in _SHARES.items() if tenth in share)


def _expression(entry: Entry) -> str | None:
    """Return the arithmetic expression of a problem that is one (chain_sum), else None."""
    value = entry["metadata"].get("expression")
    whole = isinstance(value, str) and re.fullmatch(r"\d+( [+-] \d+)+", value)
    return value if whole else None


def prompt_of(entry: Entry, *, chat: bool = True, style: Style = "answer") -> str:
    """Return the prompt of a reasoning_gym item.

    A sum is asked for in words; in the style "answer" it is primed with its equation, so that a small
    model's first tokens are the answer. Any other task is put as it is. ``chat=False`` is for tokenizers
    without chat markers.
    """
    expression = _expression(entry)
    question = f"What is {expression}?" if expression else entry["question"]
    primer = f"{expression} =" if expression and style == "answer" else ""
    if chat:
        return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{primer}"
    return f"Question: {question}\nAnswer:{' ' + primer if primer else ''}"


def working(expression: str) -> str:
    """Write a sum out by decimal places: '67 - 57' -> 'Tens: 60 - 50 = 10. Units: 7 - 7 = 0. 10 + 0 = 10.'.

    Args:
        expression: whole numbers joined by " + " and " - ".
    """
    parts = expression.split(" ")
    numbers, signs = parts[0::2], ["+", *parts[1::2]]
    lines, sums = [], []
    for place in reversed(range(max(map(len, numbers)))):
        terms = [
            (sign, int(n[-place - 1]) * 10**place if len(n) > place else 0)
            for sign, n in zip(signs, numbers, strict=True)
        ]
        total = sum(value if sign == "+" else -value for sign, value in terms)
        written = " ".join(f"{sign} {value}" for sign, value in terms)[2:]
        name = _PLACES[place] if place < len(_PLACES) else f"10^{place}"
        lines.append(f"{name}: {written} = {total}.")
        sums.append(total)
    if len(sums) > 1:
        joined = " ".join(f"{'-' if s < 0 else '+'} {abs(s)}" for s in sums).removeprefix("+ ")
        lines.append(f"{joined.replace('- ', '-', 1) if sums[0] < 0 else joined} = {sum(sums)}.")
    return " ".join(lines)


def solution_of(entry: Entry, style: Style = "answer") -> str:
    """Return the completion that supervised tuning imitates, without the end marker.

    For sums in the style "answer": the answer, then the working by decimal places. The answer comes first
    so that a policy tuned on it is measured with the same few new tokens as any other; what it learns
    beyond RLVR is to write the working. In the style "working" the working comes first and leads to
    "Answer: ...". For other tasks it is the answer.

    Raises:
        UsageError: in the style "working", for a task whose working is not known.
    """
    expression = _expression(entry)
    if style == "working":
        if expression is None:
            raise UsageError(
                "style 'working' needs worked answers, which only sums of whole numbers (chain_sum) have; use style "
                "'answer'"
            )
        return f"{working(expression)} {ANSWER_MARKER} {entry['answer']}"
    if expression is None:
        return f"{entry['answer']}"
    return f" {entry['answer']}\n{working(expression)}"


def load(
    task: str,
    options: dict[str, Any],
    split: Split,
    n: int,
    seed: int = 0,
    *,
    chat: bool = True,
    style: Style = "answer",
) -> list[VerifiableProblem]:
    """Return ``n`` distinct problems of one split, in a deterministic order.

    Args:
        task: name of a reasoning_gym data set.
        options: its settings.
        split: "train", "validation" or "test"; a problem text is in exactly one (:func:`split_of`).
        n: how many.
        seed: which ones.
        chat: whether the prompt has chat markers.
        style: what a completion is made of, see :func:`solution_of`.

    Raises:
        UsageError: for an unknown task, settings it does not accept, or a style it does not have.
        RealignError: if the task has fewer distinct problems in this split.
    """
    if split not in _SHARES:
        raise unknown("split", split, _SHARES)
    written = json.dumps(options, sort_keys=True)
    stream_seed = seed * SEED_STRIDE
    dataset = dataset_of(task, written, stream_seed)
    problems: dict[str, VerifiableProblem] = {}
    limit = 1000 + 200 * n
    for index in range(limit):
        entry = dataset[index]
        question = entry["question"]
        if question in problems or split_of(question) != split:
            continue
        problems[question] = VerifiableProblem(
            task=task,
            options=written,
            question=question,
            prompt=prompt_of(entry, chat=chat, style=style),
            answer=str(entry["answer"]),
            solution=solution_of(entry, style),
            index=index,
            seed=stream_seed,
            style=style,
        )
        if len(problems) == n:
            return list(problems.values())
    raise RealignError(
        f"{task} with {written} gave only {len(problems)} distinct {split} problems of {n} asked for; ask for fewer "
        "or widen its options"
    )


def first_answer(completion: str) -> str:
    """Return the part of a completion that is judged: its first number if it opens with one, else its first line.

    Text after an end marker is never read.
    """
    text = completion.split("<|im_end|>")[0].strip()
    if tagged := re.search(r"<answer>(.*?)</answer>", text, re.DOTALL):
        return tagged[1].strip()
    line = text.split("\n")[0].strip()
    number = re.match(r"-? ?\d+(?![\d.,]*[^\s\d.,])", line)
    return number[0].replace(" ", "") if number else line


def last_answer(completion: str) -> str:
    """Return what follows the last "Answer:" of a completion, read as :func:`first_answer` does; "" without one."""
    _, marker, rest = completion.split("<|im_end|>")[0].rpartition(ANSWER_MARKER)
    return first_answer(rest) if marker else ""


def score(problem: VerifiableProblem, completion: str) -> float:
    """Score a completion by the task's own verifier (0 to 1).

    Judged is its first answer, or in the style "working" and in a mixture the one that it is led to. In a mixture
    an answer is right or wrong: some verifiers give a part of the score to any text that holds the answer. What
    a verifier cannot read is wrong.
    """
    dataset = dataset_of(problem.task, problem.options, problem.seed)
    if not problem.mixed:
        judged = last_answer if problem.style == "working" else first_answer
        return float(dataset.score_answer(judged(completion), dataset[problem.index]))
    answer = last_answer(completion)
    if not answer:
        return 0.0
    try:
        return float(dataset.score_answer(answer, dataset[problem.index]) > 0.999)
    except Exception:  # verifiers read answers without care: int("3 = 3")
        return 0.0
