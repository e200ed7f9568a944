"""Mixtures: worked examples, workings that are true, splits that never meet, verifiers that never raise."""

from __future__ import annotations

import re

import pytest

from realign import config, paths
from realign.behaviour import mixture, problems
from realign.behaviour.kinds import KINDS, linear
from realign.errors import RealignError, UsageError

# The easiest and the hardest that a kind is asked with, and more of what its task can give.
OPTIONS = {
    "chain_sum": {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2},
    "products": {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 1},
    "gcd": {"min_value": 1, "max_value": 60},
    "lcm": {"min_value": 1, "max_value": 30},
    "letter_counting": {"min_words": 1, "max_words": 4},
    "count_bits": {"max_n": 1000},
    "leg_counting": {"min_animals": 1, "max_animals": 3, "max_instances": 9},
    "simple_equations": {"min_terms": 2, "max_terms": 3, "max_value": 12},
    "count_primes": {"min_n": 1, "max_n": 60},
}
SHORT = {kind: OPTIONS[kind] for kind in ("products", "gcd", "letter_counting")}


def test_every_kind_is_tried_here() -> None:
    assert OPTIONS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_the_worked_answer_of_a_kind_is_right_by_the_verifier_and_its_last_number_is_the_answer(
    kind: str,
) -> None:
    for problem in mixture.load({kind: OPTIONS[kind]}, "train", 150, seed=3):
        assert problems.score(problem, problem.solution) == 1.0
        working = problem.solution.partition(problems.ANSWER_MARKER)[0]
        assert re.findall(r"-?\d+", working)[-1] == problem.answer, problem.solution


@pytest.mark.parametrize("kind", KINDS)
def test_every_equation_in_the_working_of_a_kind_is_true(kind: str) -> None:
    checked = 0
    for problem in mixture.load({kind: OPTIONS[kind]}, "train", 100, seed=5):
        for line in re.split(r"[.:] ", problem.solution):
            sides = [side for side in line.split(" = ") if re.fullmatch(r"-?\d+( [+*/-] -?\d+)*", side)]
            assert len({eval(side) for side in sides}) <= 1, problem.solution
            checked += len(sides) > 1
    assert checked or kind == "count_primes"


@pytest.mark.parametrize("kind", KINDS)
def test_worked_examples_are_right_and_never_asked(kind: str) -> None:
    asked = {
        p.prompt.rsplit("user\n", 1)[1].split("<|im_end|>")[0]
        for p in mixture.load({kind: OPTIONS[kind]}, "train", 100)
    }
    for item, answer in KINDS[kind].examples:
        assert KINDS[kind].ask(item) not in asked
        assert re.findall(r"-?\d+", KINDS[kind].work(item))[-1] == answer


@pytest.mark.parametrize(
    ("equation", "parts"),
    [
        ("3*x + 2 = 11", ("x", 3, 2, 11)),
        ("2 - 7*q = -12", ("q", -7, 2, -12)),
        ("-3*b + 5 = 2", ("b", -3, 5, 2)),
        ("12*z = 36", ("z", 12, 0, 36)),
        ("y - 4 = 1", ("y", 1, -4, 1)),
        ("8 - k = 3", ("k", -1, 8, 3)),
    ],
)
def test_a_linear_equation_is_read(equation: str, parts: tuple[str, int, int, int]) -> None:
    assert linear(equation) == parts


@pytest.mark.parametrize("style", ["working", "answer"])
def test_a_prompt_has_two_examples_in_the_style_that_is_asked_for(style: str) -> None:
    for problem in mixture.load(SHORT, "test", 6, style=style):  # type: ignore[arg-type]
        *shown, last = problem.prompt.split("<|im_start|>user\n")[1:]
        assert len(shown) == 2
        assert all(problems.ANSWER_MARKER in one for one in shown)
        assert last.endswith("<|im_end|>\n<|im_start|>assistant\n")
        answers = [one.split("assistant\n")[1] for one in shown]
        assert all(one.startswith("Answer:") == (style == "answer") for one in answers)
        assert problems.score(problem, f"{problems.ANSWER_MARKER} {problem.answer}<|im_end|>") == 1.0
        assert problems.score(problem, problem.answer) == 0.0  # no marker
    plain = mixture.load(SHORT, "test", 1, chat=False)[0].prompt
    assert plain.count("\n") == 2
    assert "<|" not in plain


def test_kinds_come_in_turn_and_more_problems_begin_with_the_same_ones() -> None:
    few, many = (mixture.load(SHORT, "train", n, seed=1) for n in (30, 300))
    assert [p.task for p in few[:6]] == [*SHORT, *SHORT]
    assert many[:30] == few
    assert mixture.load(SHORT, "train", 30, seed=2) != few


def test_no_question_is_in_two_splits_and_measured_ones_are_distinct() -> None:
    asked = {
        split: [p.question for seed in (1, 2) for p in mixture.load(SHORT, split, 90, seed)]  # type: ignore[arg-type]
        for split in ("train", "validation", "test")
    }
    sets = {split: set(questions) for split, questions in asked.items()}
    assert not sets["train"] & sets["test"]
    assert not sets["train"] & sets["validation"]
    assert not sets["test"] & sets["validation"]
    assert len({p.question for p in mixture.load(SHORT, "test", 90)}) == 90


def test_a_small_kind_is_trained_on_again_and_never_measured_twice() -> None:
    small = {"lcm": {"min_value": 2, "max_value": 6}}
    again = [p.question for p in mixture.load(small, "train", 60)]
    distinct = len(set(again))
    assert distinct < 30
    assert again[:distinct] == again[distinct : 2 * distinct]
    with pytest.raises(RealignError, match=r"gave only .* distinct test problems of 60"):
        mixture.load(small, "test", 60)


def test_an_answer_is_right_or_wrong_and_what_a_verifier_cannot_read_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = next(p for p in mixture.load({"gcd": OPTIONS["gcd"]}, "train", 50) if p.answer == "2")
    assert problems.score(problem, "Answer: 222") == 0.0  # reasoning_gym gives a third for text that holds it
    assert problems.score(problem, "Answer: 3. Answer: 2") == 1.0
    for odd in ("", "Answer:", "Answer: two", "Answer: 💥", "Answer: " + "9" * 5000):
        assert problems.score(problem, odd) == 0.0

    def raises(*args: object) -> float:
        raise ValueError("invalid literal for int()")

    dataset = problems.dataset_of(problem.task, problem.options, problem.seed)
    monkeypatch.setattr(dataset, "score_answer", raises)
    assert problems.score(problem, "Answer: 2") == 0.0


def test_an_unknown_kind_or_none_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="did you mean 'gcd'"):
        mixture.load({"gcb": {}}, "train", 1)
    with pytest.raises(UsageError, match="at least one kind"):
        mixture.load({}, "train", 1)
    with pytest.raises(UsageError, match="gcd must be a table"):
        mixture.load({"gcd": 3}, "train", 1)
    with pytest.raises(UsageError, match="does not accept"):
        mixture.load({"gcd": {"min_value": -1}}, "train", 1)


def test_the_arms_are_asked_at_least_four_kinds_that_have_400_problems_to_measure_on() -> None:
    family = config.load_families(paths.data() / "families.toml")["smollm2-135m"]
    arms = {role: family.tuning[role] for role in family.tuning if role[-2:] in ("-1", "-2", "-3")}
    assert len(arms) == 9
    options = {str(settings.task_options) for settings in arms.values()}
    assert len(options) == 1
    settings = arms["reason-1"]
    assert len(settings.task_options) >= 4
    assert len(mixture.load(settings.task_options, "test", 400)) == 400
    assert settings.steps == 3 * arms["reason-2"].steps
    for role, one in arms.items():
        assert one.seed == int(role[-1])
        assert one.save_steps == tuple(s for s in settings.save_steps if s < one.steps)
