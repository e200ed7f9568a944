"""The builders of open-bright on small data of the layout of their sources; no archive is needed."""

from __future__ import annotations

import json

import pytest

from realign.errors import RealignError
from realign.evaluation import instructions, specs
from realign.evaluation.specs import Corpus
from realign.evaluation.tasks import bright, commonsense, lint, mathematics, ruff, twins
from realign.evaluation.tasks.bigbench import Reader
from realign.texts.archives import BIGBENCH_TASKS, Archive


def archive(**members: object) -> Reader:
    """Reader of JSON members: BIG-bench tasks by name (``__`` for ``/``), and ``champ``."""
    files = {
        f"{BIGBENCH_TASKS}/{name.replace('__', '/')}/task.json": {"examples": x}
        for name, x in members.items()
    }
    files[mathematics.CHAMP_DATA] = members.get("champ")

    def read(archive: Archive, member: str) -> bytes:
        assert archive.needs(member), f"{member} would not be extracted"
        return json.dumps(files[member]).encode()

    return read


def choice(text: str, right: str | list[str], *wrong: str) -> dict[str, object]:
    return {
        "input": text,
        "target_scores": dict.fromkeys(wrong, 0)
        | dict.fromkeys([right] if isinstance(right, str) else right, 1),
    }


def answers(data: Corpus, side: str = "relevant") -> dict[str, set[str]]:
    """Texts of the relevant or excluded documents by the text of the query."""
    grades = getattr(data, side)
    return {text: {data.documents[d] for d in grades[q]} for q, text in data.queries.items()}


def concept(name: str, text: str, parent: dict | None = None, title: str | None = None) -> dict:
    return {"identifier": name, "name": title, "_text": text, "parent": parent}


@pytest.fixture
def champ() -> Reader:
    square = concept("C_square", "x times x", title="square")
    cube = concept("C_cube", "x times x times x", parent=square)
    other = concept("C_other", "something else")
    problem = {"one": ["H_1", "C_cube"], "two": ["C_cube", "C_other"], "three": ["C_other"], "four": ["H_2"]}
    return archive(
        champ={
            "concepts": {each["identifier"]: each for each in (square, cube, other)},
            "problems": {f"P_{k}": {"_text": f"problem {k}", "ch_list": v} for k, v in problem.items()},
        },
        physics=[
            choice("a stone falls", "F = m * a", "v = x / t"),
            choice("a stone falls", "W = F * d", "v = x / t"),
        ],
    )


def test_a_problem_has_its_concepts_and_neither_what_they_are_a_case_of(champ):
    data = mathematics.champ_concepts(9, champ)
    assert answers(data) == {
        "problem one": {"x times x times x"},
        "problem two": {"x times x times x", "something else"},
        "problem three": {"something else"},
    }
    assert answers(data, "excluded")["problem one"] == {"square: x times x"}
    assert "F = m * a" in data.documents.values()


def test_problems_of_one_concept_are_similar_and_hints_do_not_count(champ):
    data = mathematics.champ_problems(9, champ)
    assert answers(data) == {
        "problem one": {"problem two"},
        "problem two": {"problem one", "problem three"},
        "problem three": {"problem two"},
    }
    assert all(query in out for query, out in answers(data, "excluded").items())


def test_a_physics_problem_that_is_listed_twice_has_both_formulas(champ):
    data = mathematics.physics(9, champ)
    assert answers(data) == {"a stone falls": {"F = m * a", "W = F * d"}}
    assert {"v = x / t", "something else"} <= set(data.documents.values())


def test_programs_are_compared_without_numbers_and_a_story_with_other_numbers_counts_once():
    story = "tom has 3 apples and buys 4 more , then he shares them with 2 friends"
    problems = {
        story: "divide(add(3, 4), 2)",
        story.replace("3", "5"): "divide(add(5, 4), 2)",
        "what is the mean of 7.5 and 9 when both weigh the same ?": "divide(add(7.5, 9), 2)",
        "how long is the sum of 1 and 2 ?": "add(1, 2)",
        "what comes of 8 and 9 taken together ?": "add(8, 9)",
        "a unique calculation of 4 and 4": "divide(subtract(4, 4), 4)",
    }
    read = archive(
        elementary_math_qa__question_only=[choice(text, "1") for text in problems],
        elementary_math_qa__mathematical_hint_only=[choice(program, "1") for program in problems.values()],
    )
    data = mathematics.same_program(9, read)
    mean = "what is the mean of 7.5 and 9 when both weigh the same ?"
    assert answers(data) == {story: {mean}, mean: {story}}
    assert "how long is the sum of 1 and 2 ?" in data.documents.values()


def test_facts_that_share_a_word_with_the_question_are_excluded():
    read = archive(
        strategyqa=[
            {"input": "Would a pear sink in water?",
             "target": "No. Pears are less dense than that. Objects float when they weigh less. Too short."},
            {"input": "Can a dog fly?", "target": "No. The dogs have four legs each."},
        ]
    )  # fmt: skip
    data = commonsense.implicit_facts(9, read)
    assert answers(data) == {"Would a pear sink in water?": {"Objects float when they weigh less."}}
    assert answers(data, "excluded")["Would a pear sink in water?"] == {"Pears are less dense than that."}
    assert "The dogs have four legs each." in data.documents.values()


def test_a_question_has_both_facts_of_its_combination():
    read = archive(
        natural_instructions__subtask038_qasc_combined_fact=[
            {"input": "Fact 1: rain is wet. \nFact 2: Wet roads are slippery.", "target": ["rain makes roads slippery"]},
            {"input": "Fact 1: ice is cold. \nFact 2: Cold hands hurt.", "target": ["ice hurts hands"]},
        ],
        natural_instructions__subtask040_qasc_question_generation=[
            {"input": "Fact: rain makes roads slippery", "target": ["What makes roads slippery?"]},
            {"input": "Fact: nothing is known of this", "target": ["What is known?"]},
        ],
    )  # fmt: skip
    data = commonsense.two_facts(9, read)
    assert answers(data) == {"What makes roads slippery?": {"rain is wet.", "Wet roads are slippery."}}
    assert {"ice is cold.", "Cold hands hurt."} <= set(data.documents.values())


def test_a_story_has_its_proverb_among_the_sayings_of_all_three_tasks():
    read = archive(
        abstract_narrative_understanding__4_distractors=[
            choice("He ran.", "Haste makes waste", "Time flies")
        ],
        abstract_narrative_understanding__9_distractors=[choice("She won.", "Practice makes perfect")],
        abstract_narrative_understanding__99_distractors=[],
        understanding_fables=[choice("A fox.", "Slow wins", "Fast loses")],
        english_proverbs=[choice("Ben.", "Beggars cannot choose")],
    )
    data = commonsense.proverbs(9, read)
    assert answers(data) == {"He ran.": {"Haste makes waste"}, "She won.": {"Practice makes perfect"}}
    assert len(data.documents) == 6


def test_a_step_has_the_goal_of_its_guide():
    read = archive(
        goal_step_wikihow__goal_inference=[
            choice("The most reasonable goal of 'Don't melt 'it'' is ", "Make Ice", "Buy Bread"),
        ]
    )
    data = commonsense.goals(9, read)
    assert answers(data) == {"Don't melt 'it'": {"Make Ice"}}
    assert "Buy Bread" in data.documents.values()


def rules() -> list[ruff.Rule]:
    return [
        ruff.Rule("F401", "unused-import", "Checks for unused imports.\nThey are slow.", "import os", ""),
        ruff.Rule("D100", "undocumented", "Checks for missing docstrings.", "x = 1", ""),
        ruff.Rule("Z1", "without-code", "Checks for something.", "", ""),
        ruff.Rule("Z2", "not-confirmed", "Checks for a setting.", "y = 2", ""),
    ]


def test_code_has_the_rule_that_it_illustrates_and_no_other_that_it_breaks():
    data = lint.broken_rules(9, rules, lambda codes: [{"F401", "D100", "X"}, {"D100"}, {"D100"}])
    assert answers(data) == {
        "import os": {"Checks for unused imports."}, "x = 1": {"Checks for missing docstrings."}
    }  # fmt: skip
    assert answers(data, "excluded")["import os"] == {"Checks for missing docstrings."}
    assert len(data.documents) == 4


def test_ruff_reports_what_each_piece_of_code_breaks():
    first, second = lint.reported(["import os", "def f(:"])
    assert {"F401", "D100"} <= first
    assert "F401" not in second


def test_a_ruff_that_does_not_answer_is_one_sentence(monkeypatch):
    monkeypatch.setattr(lint, "CHECK", ("check", "--no-such-option"))
    with pytest.raises(RealignError, match="cannot check the examples of its rules"):
        lint.reported(["import os"])


def test_a_problem_has_solved_problems_of_the_twin_kind_and_none_of_its_own():
    data = twins.solved_twins(200)
    kind_of = {}
    for pair in twins.TWINS:
        for kind in pair:
            kind_of |= {question: kind for question, _ in twins.problems(kind, twins.ASKED + twins.SOLVED)}
    twin_of = dict(twins.TWINS) | {two: one for one, two in twins.TWINS}
    for (query, relevant), excluded in zip(
        answers(data).items(), answers(data, "excluded").values(), strict=True
    ):
        assert {kind_of[text.rpartition("\nAnswer: ")[0]] for text in relevant} == {twin_of[kind_of[query]]}
        assert {kind_of[text.rpartition("\nAnswer: ")[0]] for text in excluded} >= {kind_of[query]}
    assert len({kind_of[query] for query in data.queries.values()}) == 2 * len(twins.TWINS)
    assert len(data.queries) == 200
    assert len(data.documents) > 350


@pytest.mark.parametrize("spec", bright.SPECS, ids=lambda spec: spec.name)
def test_every_task_is_fully_described(spec):
    metadata = specs.make(spec, spec.study_n).metadata
    assert metadata.is_filled()
    assert (spec.study_n, metadata.main_score) == (200, "ndcg_at_10")
    assert bool(spec.archives) or spec.smoke_n
    assert instructions.load(strict=True)(spec.name, spec.type)


@pytest.mark.parametrize("spec", [s for s in bright.SPECS if s.smoke_n], ids=lambda spec: spec.name)
@pytest.mark.parametrize("size", specs.SIZES)
def test_tasks_without_an_archive_are_complete_at_every_size(spec, size):
    data = spec.data(spec.size(size))
    assert isinstance(data, Corpus)
    assert len(data.queries) == spec.size(size)
    assert all(data.relevant.values())
    assert len(data.documents) > len(data.queries)
