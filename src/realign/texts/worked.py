"""Problems of reasoning_gym with a worked answer: the steps, not only the result."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Any

from realign.errors import RealignError
from realign.texts.splits import Split, normalise, side


@dataclass(frozen=True)
class WorkedProblem:
    """One problem with its worked answer."""

    task: str
    template: str
    """What is shared by problems that differ only in their numbers and names."""
    text: str
    answer: str


Entry = dict[str, Any]


def _euclid(a: int, b: int) -> tuple[list[str], int]:
    steps = []
    while b:
        steps.append(f"{a} = {a // b} * {b} + {a % b}")
        a, b = b, a % b
    return steps, a


def _gsm(entry: Entry) -> str:
    steps = str(entry["metadata"]["answer_cot"]).split("####")[0]
    return f"{' '.join(steps.split())} The result is {entry['answer']}."


def _gcd(entry: Entry) -> str:
    numbers = entry["metadata"]["numbers"]
    steps, result = _euclid(max(numbers[:2]), min(numbers[:2]))
    for other in numbers[2:]:
        more, result = _euclid(max(result, other), min(result, other))
        steps += more
    return f"Divide with remainder until nothing is left: {'; '.join(steps)}. The last divisor is {result}."


def _lcm(entry: Entry) -> str:
    result, *rest = entry["metadata"]["numbers"]
    steps = []
    for other in rest:
        common = _euclid(max(result, other), min(result, other))[1]
        steps.append(f"{result} and {other} share the factor {common}, so {result} * {other} / {common}")
        result = result * other // common
        steps[-1] += f" = {result}"
    return f"Multiply and divide by the shared factor: {'; '.join(steps)}. Both go into {result}."


def _primes(entry: Entry) -> str:
    left = entry["metadata"]["number"]
    steps = []
    for factor in entry["metadata"]["factors"]:
        steps.append(f"{left} / {factor} = {left // factor}")
        left //= factor
    return f"Divide by the smallest prime again and again: {', '.join(steps)}. So it is {entry['answer']}."


def _legs(entry: Entry) -> str:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    parts = [f"{n} times {ANIMALS[a]} for the {a}" for a, n in entry["metadata"]["animals"].items()]
    return f"Add up {', '.join(parts)}: {entry['answer']} altogether."


def _fraction(entry: Entry) -> str:
    m = entry["metadata"]
    factor, top, bottom = m["reduction_factor"], m["simplified_numerator"], m["simplified_denominator"]
    return (
        f"Numerator and denominator are both divisible by {factor}: {m['numerator']} / {factor} = {top} and "
        f"{m['denominator']} / {factor} = {bottom}, which have nothing more in common. The ratio is {top}/{bottom}."
    )


def _equation(entry: Entry) -> str:
    m = entry["metadata"]
    return (
        f"Collect the unknown on one side of {m['equation']} and divide by its coefficient: "
        f"{m['variable']} = {entry['answer']}. Putting {entry['answer']} back in makes both sides equal."
    )


def _bases(entry: Entry) -> str:
    m = entry["metadata"]
    return (
        f"Weighted by powers of {m['source_base']}, the digits {m['source_repr']} are worth {m['decimal_value']}. "
        f"Dividing that by {m['target_base']} repeatedly and reading the remainders backwards: {m['target_repr']}."
    )


def _angles(entry: Entry) -> str:
    m = entry["metadata"]
    known = " + ".join(f"{a:g}" for a in m["known_angles"])
    return (
        f"With {m['n_sides']} corners the sum is ({m['n_sides']} - 2) * 180 = {m['total_interior_sum']} degrees. "
        f"Subtract {known} = {m['sum_of_known_angles']:g}: {entry['answer']} degrees remain."
    )


def _letters(entry: Entry) -> str:
    m = entry["metadata"]
    target = m["target_letter"]
    parts = [f"{w} ({w.lower().count(target)})" for w in m["span"] if target in w.lower()]
    return (
        f"Go through the words that contain {target}: {', '.join(parts) or 'none'}. Total {entry['answer']}."
    )


def _bits(entry: Entry) -> str:
    m = entry["metadata"]
    return f"Written in base two it is {m['binary']}. Counting the ones gives {entry['answer']}."


def _coins(entry: Entry) -> str:
    m = entry["metadata"]
    n, k = m["num_trials"], m["k_heads"]
    return (
        f"There are 2^{n} = {2**n} equally likely outcomes; C({n}, i) of them show i heads, for {k} that is "
        f"{comb(n, k)}. Adding up the favourable ones and dividing gives {float(entry['answer']):.4g}."
    )


def _cipher(entry: Entry) -> str:
    m = entry["metadata"]
    return f"Shift every letter back by {m['rotation']} places in the alphabet: {m['clear_text']}"


WORKED: dict[str, Callable[[Entry], str]] = {
    "gsm_symbolic": _gsm,
    "gcd": _gcd,
    "lcm": _lcm,
    "prime_factorization": _primes,
    "leg_counting": _legs,
    "fraction_simplification": _fraction,
    "simple_equations": _equation,
    "base_conversion": _bases,
    "simple_geometry": _angles,
    "letter_counting": _letters,
    "count_bits": _bits,
    "coin_flip": _coins,
    "caesar_cipher": _cipher,
}
POOL = {"gsm_symbolic": 2400}
POOL_PER_TASK = 300
# Instructions on the format of the answer, which are removed from the problem.
FORMATTING = re.compile(
    r"(Give (only )?the .*|Return only .*|Provide only .*|Write the factors.*|If the target base.*?\n|"
    r"Your task is to [^\n]*\n+(Now, )?|\bNow, )",
)


def problems(split: Split | None = None, tasks: tuple[str, ...] | None = None) -> list[WorkedProblem]:
    """Return problems with worked answers, without duplicates.

    About 2,400 word problems from 100 templates (gsm_symbolic) and 300 of each of the other task types.
    Word problems are split by template, so that no story is on both sides; the others by the problem's
    text. (RLVR and SFT use another task, chain_sum, which is not among these.)

    Args:
        split: ``train``, ``eval`` or None for all.
        tasks: names of reasoning_gym tasks; all of :data:`WORKED` if None.
    """
    chosen = tasks or tuple(WORKED)
    if missing := [t for t in chosen if t not in WORKED]:
        raise RealignError(f"no worked answers for task {missing[0]} (there are: {', '.join(WORKED)})")
    everything = [p for task in chosen for p in _problems(task)]
    return [p for p in everything if split is None or side("problem", p.template) == split]


@lru_cache(maxsize=32)
def _problems(task: str) -> tuple[WorkedProblem, ...]:
    import reasoning_gym

    data = reasoning_gym.create_dataset(task, size=POOL.get(task, POOL_PER_TASK), seed=7)
    seen: set[str] = set()
    distinct = []
    for index, entry in enumerate(data):
        text = " ".join(FORMATTING.sub("", entry["question"] + "\n").split())
        answer = WORKED[task](entry)
        if normalise(text) in seen or normalise(answer) in seen:
            continue
        seen |= {normalise(text), normalise(answer)}
        template = f"{task}/{data.task_indices[index]}" if task == "gsm_symbolic" else f"{task}/{text}"
        distinct.append(WorkedProblem(task, template, text, answer))
    return tuple(distinct)
