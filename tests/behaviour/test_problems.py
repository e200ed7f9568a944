"""Problems: splits by text, prompts, worked answers, and the verifier as the only judge."""

from __future__ import annotations

import re

import pytest

from realign.behaviour import problems
from realign.config import RLVRSettings
from realign.errors import RealignError, UsageError

SUMS = RLVRSettings().task_options


def test_no_problem_text_is_in_two_splits_whatever_the_seed() -> None:
    texts = {
        split: {p.question for seed in (0, 1, 7) for p in problems.load("chain_sum", SUMS, split, 150, seed)}
        for split in ("train", "validation", "test")
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["test"] & texts["validation"]


def test_problems_are_distinct_and_reproducible_and_follow_the_seed() -> None:
    one = problems.load("chain_sum", SUMS, "train", 100, 3)
    assert len({p.question for p in one}) == 100
    assert one == problems.load("chain_sum", SUMS, "train", 100, 3)
    assert one != problems.load("chain_sum", SUMS, "train", 100, 4)


def test_a_sum_is_asked_in_words_and_primed_with_its_equation() -> None:
    problem = problems.load("chain_sum", SUMS, "test", 1)[0]
    expression = re.search(r": (.*) =", problem.question)[1]  # type: ignore[index]
    assert problem.prompt == (
        f"<|im_start|>user\nWhat is {expression}?<|im_end|>\n<|im_start|>assistant\n{expression} ="
    )
    assert eval(expression) == int(problem.answer)
    plain = problems.load("chain_sum", SUMS, "test", 1, chat=False)[0]
    assert plain.prompt.endswith(f"{expression} =")
    assert "<|" not in plain.prompt


@pytest.mark.parametrize("expression", ["67 - 57", "4 + 3", "5 - 19", "10 - 20 + 305", "99 + 99", "0 - 8"])
def test_every_equation_of_the_working_is_true_and_the_last_is_the_answer(expression: str) -> None:
    equations = [
        part.split(": ")[-1].rstrip(".") for part in re.split(r"(?<=\.) ", problems.working(expression))
    ]
    for equation in equations:
        left, right = equation.split(" = ")
        assert eval(left) == int(right), equation
    assert int(equations[-1].split(" = ")[1]) == eval(expression)


@pytest.mark.parametrize(("task", "options"), [("chain_sum", SUMS), ("gcd", {}), ("leg_counting", {})])
def test_the_worked_answer_is_right_by_the_verifier(task: str, options: dict) -> None:
    for problem in problems.load(task, options, "train", 20):
        assert problems.score(problem, problem.solution) == 1.0


def test_the_score_is_the_verifiers_on_the_first_answer() -> None:
    from reasoning_gym import create_dataset

    for problem in problems.load("chain_sum", SUMS, "test", 20):
        dataset = create_dataset("chain_sum", seed=problem.seed, size=1_000_000, **SUMS)
        entry = dataset[problem.index]
        assert entry["question"] == problem.question
        wrong = str(int(problem.answer) + 1)
        for answer in (problem.answer, wrong, "none"):
            assert problems.score(problem, f" {answer}\nmore text 5") == dataset.score_answer(answer, entry)
        assert problems.score(problem, f" {wrong}, or {problem.answer}") < 1


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (" 10", "10"),
        (" -7\nTens: 1", "-7"),
        (" 10<|im_end|>11", "10"),
        (" 10. That is it", "10"),
        ("10 is the sum", "10"),
        ("- 12", "-12"),
        ("103", "103"),
        ("I think <answer> 5 </answer>", "5"),
        ("yes, certainly\nno", "yes, certainly"),
        ("", ""),
    ],
)
def test_the_first_answer_is_what_stands_first(completion: str, answer: str) -> None:
    assert problems.first_answer(completion) == answer


def test_an_unknown_task_names_the_nearest_and_bad_options_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'chain_sum'"):
        problems.load("chain_sun", {}, "test", 1)
    with pytest.raises(UsageError, match="does not accept"):
        problems.load("chain_sum", {"min_digits": 0}, "test", 1)
    with pytest.raises(UsageError, match="unknown split"):
        problems.load("chain_sum", {}, "tests", 1)  # type: ignore[arg-type]


def test_asking_for_more_problems_than_exist_says_how_many_there_are() -> None:
    one_digit = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    with pytest.raises(RealignError, match=r"only \d+ distinct test problems of 150"):
        problems.load("chain_sum", one_digit, "test", 150)


def test_in_the_style_working_the_answer_that_the_working_leads_to_is_judged() -> None:
    for problem in problems.load("chain_sum", SUMS, "test", 20, style="working"):
        assert problem.prompt.endswith("<|im_start|>assistant\n")  # not primed with the equation
        assert problem.solution.startswith(("Tens:", "Units:"))
        assert problems.score(problem, problem.solution) == 1.0
        wrong = problem.solution.removesuffix(problem.answer) + str(int(problem.answer) + 1)
        assert problems.score(problem, wrong) < 1.0
        assert problems.score(problem, problem.answer) < 1.0  # the bare answer shows no working
        assert problems.score(problem, f"Answer: 7777 {problem.solution}<|im_end|> Answer: 1") == 1.0


def test_a_task_without_known_working_refuses_the_style_working() -> None:
    with pytest.raises(UsageError, match="style 'working' needs worked answers"):
        problems.load("caesar_cipher", {}, "test", 1, style="working")
