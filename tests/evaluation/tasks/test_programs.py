"""HumanEval, Spider and the examples of ruff as retrieval data, from small files of the same layout."""

from __future__ import annotations

import gzip
import json

from realign.evaluation.specs import Corpus
from realign.evaluation.tasks import programs
from realign.evaluation.tasks.ruff import Rule
from realign.texts.archives import Archive

PROMPT = '''import os
from typing import List

def helper(x):
    """Return what add_up needs."""
    return x

def add_up(numbers: List[int]) -> int:
    """ Return the sum of all numbers,
    and 0 for none.
    >>> add_up([1, 2])
    3
    """
'''
SOLUTION = """    # see add_up
    return helper(numbers) and numbers[0] + add_up(numbers[1:])

"""


def problem(name: str, prose: str, body: str) -> dict[str, str]:
    prompt = f'def {name}(x):\n    """{prose}"""\n'
    return {"prompt": prompt, "canonical_solution": body, "entry_point": name}


def reader(content: bytes):
    """What reads this content, whatever member is asked for."""

    def read(archive: Archive, member: str) -> bytes:
        return content

    return read


def human_eval(rows: list[dict[str, str]]):
    return reader(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def spider(rows: list[tuple[str, str, list[str]]]):
    examples = [{"input": f"{question} | * | {columns}", "target": sql} for question, columns, sql in rows]
    return reader(json.dumps({"examples": examples}).encode())


def answers(data: Corpus) -> dict[str, set[str]]:
    """Texts of the relevant documents by text of the query."""
    return {data.queries[q]: {data.documents[d] for d in grades} for q, grades in data.relevant.items()}


def test_a_program_is_split_at_its_docstring_without_examples_and_its_name_is_hidden():
    prose, code = programs.split_program(PROMPT + SOLUTION, "add_up")
    assert prose == "Return the sum of all numbers, and 0 for none."
    assert code.splitlines() == [
        "def helper(x):",
        "    return x",
        "def function(numbers: List[int]) -> int:",
        "    # see function",
        "    return helper(numbers) and numbers[0] + function(numbers[1:])",
    ]


def test_a_description_that_is_an_example_only_is_kept():
    source = 'def twice(x):\n    import os\n    """ twice(2) gives 4 """\n    return 2 * x\n'
    assert programs.split_program(source, "twice") == (
        "twice(2) gives 4",
        "def function(x):\n    return 2 * x",
    )


def test_no_program_is_run(tmp_path):
    mark = tmp_path / "mark"
    prose, code = programs.split_program(
        f'open({str(mark)!r}, "w")\ndef f(x):\n    """Does what nobody asked for."""\n    return x\n', "f"
    )
    assert prose == "Does what nobody asked for."
    assert "open(" in code
    assert not mark.exists()


def test_human_eval_is_asked_in_both_directions():
    rows = [
        problem("double", "Return twice the number x.", "    return 2 * x\n"),
        problem("is_odd", "Tell whether x is odd.", "    return x % 2 == 1\n"),
    ]
    there = answers(programs.description_to_solution(9, human_eval(rows)))
    assert there == {
        "Return twice the number x.": {"def function(x):\n    return 2 * x"},
        "Tell whether x is odd.": {"def function(x):\n    return x % 2 == 1"},
    }
    back = answers(programs.solution_to_description(9, human_eval(rows)))
    assert back == {code: {prose} for prose, (code,) in there.items()}


def test_texts_are_cut():
    long = problem("f", "word " * 200, "    x = 1\n" * 200)
    data = programs.description_to_solution(1, human_eval([long]))
    every = [*data.queries.values(), *data.documents.values()]
    assert all(programs.CHARACTERS - 20 < len(text) <= programs.CHARACTERS for text in every)


SPIDER = [
    ("How many cats are there?", "cat.id", ["select count ( cat.* )"]),
    ("What is the number of cats?", "cat.id", ["select count ( cat.* )"]),
    ("List names and ages.", "cat.id", ["select cat.name , cat.age", "select cat.age , cat.name"]),
    ("How old is each, by name?", "cat.id", ["select cat.age , cat.name", "select cat.name , cat.age"]),
    ("List names and ages.", "dog.id", ["select dog.age , dog.name"]),
]


def test_a_question_is_answered_by_the_sql_of_every_database_that_it_is_asked_of():
    assert answers(programs.question_to_sql(9, spider(SPIDER))) == {
        "How many cats are there?": {"select count ( cat.* )"},
        "What is the number of cats?": {"select count ( cat.* )"},
        "List names and ages.": {"select cat.age , cat.name", "select dog.age , dog.name"},
        "How old is each, by name?": {"select cat.age , cat.name"},
    }


def test_sql_has_all_its_questions_and_the_order_of_columns_does_not_count():
    assert answers(programs.sql_to_question(9, spider(SPIDER))) == {
        "select count ( cat.* )": {"How many cats are there?", "What is the number of cats?"},
        "select cat.age , cat.name": {"List names and ages.", "How old is each, by name?"},
        "select dog.age , dog.name": {"List names and ages."},
    }


def test_databases_are_asked_in_turn():
    rows = [(f"How many of the {i} are there?", "cat.id", [f"select cat.x{i}"]) for i in range(50)]
    rows += [("Which dogs bark at night?", "dog.id", ["select dog.name"])]
    for build in (programs.question_to_sql, programs.sql_to_question):
        texts = [*answers(build(2, spider(rows))).items()]
        assert any("dog" in query for query, _ in texts)
        assert any("dog" not in query for query, _ in texts)


def test_a_rule_is_illustrated_by_wrong_and_right_code_and_alike_rules_are_one():
    text = "Checks for words that are long and hard to read in a sentence that somebody wrote"
    rules = [
        Rule("A1", "one", f"{text} today.", "long()", "short()"),
        Rule("A2", "two", f"{text} now.", "longer()", ""),
        Rule("A3", "three", "Checks for spaces.", "x  = 1", ""),
        Rule("A4", "four", "Checks nothing that code could show.", "", ""),
    ]
    assert answers(programs.rule_to_code(9, lambda: rules)) == {
        f"{text} today.": {"long()", "short()"},
        "Checks for spaces.": {"x  = 1"},
    }
