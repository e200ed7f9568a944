"""Reasoning-intensive retrieval: from a problem to what helps to solve it, with few words in common.

Queries are reasoning_gym problems; documents are the notes in data/techniques, written for this
project without the words of the problems, worked examples of another kind of problem with the same
technique, or what libraries say of the function that would solve it. As in BRIGHT, documents that
are arguable for a problem are excluded from its ranking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from realign import paths
from realign.config import read_toml
from realign.errors import RealignError
from realign.evaluation import code
from realign.evaluation.specs import Corpus, TaskSpec, clip
from realign.evaluation.tasks.twins import TWINS, problems
from realign.texts import corpus
from realign.texts.splits import draw

DOMAINS = ("arithmetic", "mathematics", "algorithms", "logic")
Entry = Mapping[str, Any]  # of a TOML table: text, problems, related, ...
CHARACTERS = 150


def _files() -> list[Path]:
    files = [paths.data() / "techniques" / f"{name}.toml" for name in (*DOMAINS, "functions")]
    for path in files:
        if not path.is_file():
            raise RealignError(f"the technique notes {path} are missing: restore them from the repository")
    return files


def files() -> dict[str, str]:
    """Digest of the notes, for the store keys of the suites that use them."""
    total = hashlib.sha256(b"".join(path.read_bytes() for path in _files()))
    return {"techniques": total.hexdigest()}


@lru_cache(maxsize=1)
def notes() -> Mapping[str, Entry]:
    """All notes by id, with domain, text, and the tasks they solve or merely touch."""
    notes: dict[str, Entry] = {}
    for path in _files()[: len(DOMAINS)]:
        table = read_toml(path)
        for name, note in table["notes"].items():
            if name in notes:
                raise RealignError(f"{path}: the note '{name}' occurs twice")
            notes[name] = {"problems": [], "related": [], **note, "domain": table["domain"]}
    return notes


@lru_cache(maxsize=1)
def functions() -> Mapping[str, Entry]:
    """Library functions by qualified name, with their summary and the tasks they solve or merely touch.

    Raises:
        RealignError: the installed version of a library has no such function on the evaluation side.
    """
    table = _files()[-1]
    known = {f"{f.module}.{f.name}": code.summary(f) for f in corpus.functions("eval")}
    functions: dict[str, Entry] = {}
    for entry in read_toml(table)["functions"]:
        name = entry["name"]
        if name not in known:
            raise RealignError(
                f"{table}: no documented function {name} on the evaluation side; install requirements.lock"
            )
        functions[name] = {"problems": [], "related": [], **entry, "text": known[name]}
    return functions


def _by_task(entries: Mapping[str, Entry], field: str) -> dict[str, list[str]]:
    """Turn ``problems`` or ``related`` of each entry around: names of entries by task."""
    names: dict[str, list[str]] = {}
    for name, entry in entries.items():
        for task in entry[field]:
            names.setdefault(task, []).append(name)
    return names


def _ask(tasks: list[str], n: int, entries: Mapping[str, Entry], others: list[str]) -> Corpus:
    """Problems of ``tasks`` (``n`` in all, as many of each) with all entries and ``others`` as documents."""
    gold, touched = _by_task(entries, "problems"), _by_task(entries, "related")
    tasks = draw(tasks, n, str, "bright")
    each = -(-n // len(tasks))
    asked = [
        (task, i, text) for task in tasks for i, (text, _) in enumerate(problems(task, each, CHARACTERS))
    ]
    asked = sorted(asked, key=lambda q: q[1])[:n]
    return Corpus(
        queries={f"{task}-{i}": text for task, i, text in asked},
        documents={name: entry["text"] for name, entry in entries.items()}
        | {f"other-{i}": text for i, text in enumerate(others)},
        relevant={f"{task}-{i}": dict.fromkeys(gold[task], 1) for task, i, _ in asked},
        excluded={
            f"{task}-{i}": [x for x in touched.get(task, []) if x not in gold[task]] for task, i, _ in asked
        },
    )


def techniques(domain: str, n: int) -> Corpus:
    """Problems of one domain as queries, the notes of all domains as documents."""
    mine = {name: note for name, note in notes().items() if note["domain"] == domain}
    return _ask(sorted(_by_task(mine, "problems")), n, notes(), [])


def library_functions(n: int) -> Corpus:
    """Problems as queries; summaries of the functions that solve one, and of others, as documents."""
    others = [code.summary(f) for f in code.described(max(n, code.N))]
    return _ask(sorted(_by_task(functions(), "problems")), n, functions(), others)


def worked_examples(n: int) -> Corpus:
    """From a problem to solved problems of another kind that need the same technique."""
    pairs = draw(TWINS, n, "/".join, "twins")
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for one, two in pairs:
        solved = {
            f"{two}-{i}": f"{clip(question, CHARACTERS)}\nAnswer: {clip(answer, 60)}"
            for i, (question, answer) in enumerate(problems(two, 2, CHARACTERS))
        }
        documents |= solved
        for i, (question, _) in enumerate(problems(one, 2, CHARACTERS)):
            queries[f"q-{one}-{i}"] = question
            relevant[f"q-{one}-{i}"] = dict.fromkeys(solved, 1)
    return Corpus(queries, documents, relevant)


_problem_task = partial(
    TaskSpec,
    type="Retrieval",
    smoke_n=6,
    license="mit",
    domains=("Academic", "Written"),
    subtypes=("Reasoning as Retrieval",),
    packages=("reasoning_gym",),
)


def _domain_task(domain: str, about: str) -> TaskSpec:
    return _problem_task(
        name=f"Technique{domain.title()}Retrieval",
        build=partial(techniques, domain),
        n=20,
        description=f"Find the note on the technique that solves {about}.",
        source="reasoning_gym problems; 93 technique notes in data/techniques",
        gold="which technique solves which kind of problem, decided when the notes were written; arguable notes "
        "are excluded for the query",
        weakness="problems of one kind share a template, so queries are not independent; one author's judgement",
    )


SPECS = (
    _domain_task("arithmetic", "a problem on numbers"),
    _domain_task("mathematics", "a problem of algebra, calculus, geometry or chance"),
    _domain_task("algorithms", "a problem on grids, graphs, strings or processes"),
    _domain_task("logic", "a logic problem or puzzle"),
    _problem_task(
        name="WorkedExampleRetrieval",
        build=worked_examples,
        n=12,
        description="Find solved problems of another kind that need the same technique as the given one.",
        source="reasoning_gym, twelve of eighteen pairs of tasks",
        gold="pairs of tasks chosen by hand for their common technique",
        weakness="some pairs share words beyond the technique; templates repeat",
    ),
    _problem_task(
        name="LibraryFunctionRetrieval",
        build=library_functions,
        n=30,
        description="Find the library function that would solve a problem, by the first sentence of its documentation.",
        source="reasoning_gym problems; functions of installed libraries, evaluation side",
        gold="chosen by hand for each kind of problem, in data/techniques/functions.toml; arguable functions are "
        "excluded for the query",
        weakness="22 kinds of problems; one author's judgement; other functions of the libraries are of other fields",
        license=code.LIBRARY_LICENSE,
        domains=("Academic", "Programming", "Written"),
        packages=("reasoning_gym", *code.FUNCTION_PACKAGES),
    ),
)
