"""Kinds of problems for a mixture: how each is asked in few words, and its working, line by line.

A kind is a reasoning_gym task with a short question, a generator of the working that leads to the answer, and two
worked examples that stand in every prompt, so that a model that was never tuned already writes in this style.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Metadata = dict[str, Any]  # of a reasoning_gym item


@dataclass(frozen=True)
class Kind:
    """How problems of one reasoning_gym task are asked and worked out.

    Attributes:
        ask: the question in few words, from an item's metadata.
        work: the working; its last number is the answer.
        examples: metadata and answer of two problems that are never asked.
        fits: whether an item is a problem at all.
    """

    ask: Callable[[Metadata], str]
    work: Callable[[Metadata], str]
    examples: tuple[tuple[Metadata, str], tuple[Metadata, str]]
    fits: Callable[[Metadata], bool] = lambda item: True


def _running(expression: str) -> str:
    """'8 + 7 - 2' -> '8 + 7 = 15. 15 - 2 = 13.': one operation at a time, from left to right."""
    first, *rest = expression.split(" ")
    value, lines = int(first), []
    for sign, term in zip(rest[0::2], rest[1::2], strict=True):
        result = {"+": value + int(term), "-": value - int(term), "*": value * int(term)}[sign]
        lines.append(f"{value} {sign} {term} = {result}.")
        value = result
    return " ".join(lines)


def _gcd(item: Metadata) -> str:
    divisor = math.gcd(*item["numbers"])
    return " ".join(f"{n} = {n // divisor} * {divisor}." for n in item["numbers"])


def _lcm(item: Metadata) -> str:
    multiple = math.lcm(*item["numbers"])
    return " ".join(f"{n} * {multiple // n} = {multiple}." for n in item["numbers"])


def _summed(counts: list[int]) -> str:
    """[3, 1, 0] -> ' 3 + 1 + 0 = 4.'; nothing where there is one number only."""
    return f" {' + '.join(map(str, counts))} = {sum(counts)}." if len(counts) > 1 else ""


def _letters(item: Metadata) -> str:
    counts = [word.lower().count(item["target_letter"]) for word in item["span"]]
    return " ".join(f"{w}: {n}." for w, n in zip(item["span"], counts, strict=True)) + _summed(counts)


def _bits(item: Metadata) -> str:
    powers = [2**i for i in reversed(range(item["number"].bit_length())) if item["number"] >> i & 1]
    return f"{item['number']} = {' + '.join(map(str, powers))}. Ones: {len(powers)}."


def _herd(item: Metadata) -> str:
    return ", ".join(f"{n} {animal}{'s' if n > 1 else ''}" for animal, n in item["animals"].items())


def _legs(item: Metadata) -> str:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    legs = [n * ANIMALS[animal] for animal, n in item["animals"].items()]
    lines = [
        f"{animal}: {n} * {ANIMALS[animal]} = {n * ANIMALS[animal]}." for animal, n in item["animals"].items()
    ]
    return " ".join(lines) + _summed(legs)


def linear(equation: str) -> tuple[str, int, int, int]:
    """'3*x + 2 = 11' -> ('x', 3, 2, 11): variable, its coefficient, the constant beside it, the right side."""
    left, right = equation.split(" = ")
    coefficient, constant, variable = 0, 0, ""
    for sign, number, letter in re.findall(r"(?:^|(?<= ))([+-]?) ?(\d*)\*?([a-z]?)(?= |$)", left):
        value = int(number or 1) * (-1 if sign == "-" else 1)
        if letter:
            variable, coefficient = letter, coefficient + value
        elif number:
            constant += value
    return variable, coefficient, constant, int(right)


def _equation(item: Metadata) -> str:
    x, coefficient, constant, right = linear(item["equation"])
    lines, value = [], right - constant
    if constant:
        written = f"{right} {'-' if constant > 0 else '+'} {abs(constant)} = {value}"
        lines.append(
            f"{'' if coefficient == 1 else '-' if coefficient == -1 else f'{coefficient}*'}{x} = {written}."
        )
    if coefficient != 1 or not constant:
        lines.append(f"{x} = {value} / {coefficient} = {value // coefficient}.")
    return " ".join(lines)


def _primes(item: Metadata) -> str:
    return f"{', '.join(map(str, item['primes'])) or 'none'}. Count: {len(item['primes'])}."


KINDS: dict[str, Kind] = {
    "chain_sum": Kind(
        lambda item: f"{item['expression']} = ?",
        lambda item: _running(item["expression"]),
        (({"expression": "4 + 5 - 2"}, "7"), ({"expression": "9 - 3 + 8"}, "14")),
    ),
    "products": Kind(
        lambda item: f"{item['expression']} = ?",
        lambda item: _running(item["expression"]),
        (({"expression": "3 * 4 * 2"}, "24"), ({"expression": "2 * 5 * 6"}, "60")),
    ),
    "gcd": Kind(
        lambda item: f"Greatest common divisor of {', '.join(map(str, item['numbers']))}?",
        _gcd,
        (({"numbers": [12, 18]}, "6"), ({"numbers": [35, 8]}, "1")),
    ),
    "lcm": Kind(
        lambda item: f"Least common multiple of {', '.join(map(str, item['numbers']))}?",
        _lcm,
        (({"numbers": [4, 6]}, "12"), ({"numbers": [5, 3]}, "15")),
    ),
    "letter_counting": Kind(
        lambda item: f'How many "{item["target_letter"]}" in "{" ".join(item["span"])}"?',
        _letters,
        (
            ({"target_letter": "e", "span": ["seven", "trees"]}, "4"),
            ({"target_letter": "o", "span": ["cats", "book"]}, "2"),
        ),
    ),
    "count_bits": Kind(
        lambda item: f"How many 1 bits are in {item['number']}?",
        _bits,
        (({"number": 13}, "3"), ({"number": 34}, "2")),
    ),
    "leg_counting": Kind(
        lambda item: f"How many legs have {_herd(item)}?",
        _legs,
        (({"animals": {"dog": 2, "ant": 3}}, "26"), ({"animals": {"spider": 1, "chicken": 4}}, "16")),
    ),
    "simple_equations": Kind(
        lambda item: f"Solve {item['equation']}",
        _equation,
        (({"equation": "3*x + 2 = 11"}, "3"), ({"equation": "2*y - 5 = 7"}, "6")),
        lambda item: linear(item["equation"])[1] != 0,  # "0 = 0" has no one solution
    ),
    "count_primes": Kind(
        lambda item: f"How many primes from {item['start']} to {item['end']}?",
        _primes,
        (
            ({"start": 4, "end": 12, "primes": [5, 7, 11]}, "3"),
            ({"start": 13, "end": 18, "primes": [13, 17]}, "2"),
        ),
    ),
}
