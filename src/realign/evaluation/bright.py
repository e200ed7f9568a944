"""Reasoning-intensive retrieval: from a problem to a note on the technique that solves it.

Queries are reasoning_gym problems; documents are the notes in data/techniques, written for this
project without the words of the problems, or worked examples of another kind of problem with the
same technique. As in BRIGHT, notes that are arguable for a problem are excluded from its ranking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from realign import paths
from realign.config import read_toml
from realign.errors import RealignError
from realign.evaluation.specs import Corpus, TaskSpec, clip, sample
from realign.texts import worked

DOMAINS = ("arithmetic", "mathematics", "algorithms", "logic")
SEED = 20260
CHARACTERS = 240
# pairs of reasoning_gym tasks that need one technique and look different
TWINS = (
    ("gcd", "fraction_simplification"),
    ("maze", "shortest_path"),
    ("countdown", "puzzle24"),
    ("mini_sudoku", "futoshiki"),
    ("rotate_matrix", "manipulate_matrix"),
    ("knights_knaves", "self_reference"),
    ("count_bits", "base_conversion"),
    ("simple_integration", "intermediate_integration"),
    ("word_sorting", "number_sorting"),
    ("spell_backward", "word_sequence_reversal"),
    ("syllogism", "propositional_logic"),
    ("coin_flip", "dice"),
    ("simple_equations", "polynomial_equations"),
    ("string_manipulation", "string_insertion"),
    ("kakurasu", "survo"),
    ("simple_geometry", "advanced_geometry"),
    ("aiw", "family_relationships"),
    ("lcm", "prime_factorization"),
)


def _files() -> list[Path]:
    found = [paths.data() / "techniques" / f"{domain}.toml" for domain in DOMAINS]
    for path in found:
        if not path.is_file():
            raise RealignError(f"the technique notes {path} are missing: restore them from the repository")
    return found


def sources(suite: str) -> dict[str, str]:
    """Digest of the notes, for the store keys of the suites that use them."""
    if not suite.endswith("-bright"):
        return {}
    total = hashlib.sha256(b"".join(path.read_bytes() for path in _files()))
    return {"techniques": total.hexdigest()}


@lru_cache(maxsize=1)
def notes() -> Mapping[str, Mapping[str, Any]]:
    """All notes by id, with domain, text, and the tasks they solve or merely touch."""
    found: dict[str, dict[str, Any]] = {}
    for path in _files():
        table = read_toml(path)
        for name, note in table["notes"].items():
            if name in found:
                raise RealignError(f"{path}: the note '{name}' occurs twice")
            found[name] = {"problems": [], "related": [], **note, "domain": table["domain"]}
    return found


@lru_cache(maxsize=256)
def problems(task: str, n: int) -> tuple[tuple[str, str], ...]:
    """``n`` different (question, answer) pairs of a reasoning_gym task, none of them a training text.

    A task that training uses gives problems of its evaluation side; of the others training has none.
    Long questions keep their start and their end, where the instance is: 240 characters in all.
    """
    if task in worked.WORKED:
        pool = sample(worked.problems("eval", (task,)), n, key=lambda p: p.text, salt="bright")
        return tuple((shorten(p.text), p.answer) for p in pool)
    import reasoning_gym

    found: dict[str, str] = {}
    for entry in reasoning_gym.create_dataset(task, size=4 * n, seed=SEED):
        found.setdefault(shorten(entry["question"]), str(entry["answer"]))
        if len(found) == n:
            break
    return tuple(found.items())


def shorten(question: str) -> str:
    """Cut the middle out of a long question; short ones stand on one line, long ones keep their lines."""
    question = question.strip()
    if len(question) <= CHARACTERS:
        return " ".join(question.split())
    start, end = question[: CHARACTERS // 2], question[-CHARACTERS // 2 :]
    return f"{start[: start.rfind(' ')]} ... {end[end.find(' ') + 1 :]}"


def techniques(domain: str, n: int) -> Corpus:
    """Problems of one domain as queries (``n`` in all, spread over its tasks), all notes as documents."""
    known = notes()
    gold: dict[str, list[str]] = {}
    touched: dict[str, list[str]] = {}
    for name, note in known.items():
        for task in note["problems"]:
            gold.setdefault(task, []).append(name)
        for task in note["related"]:
            touched.setdefault(task, []).append(name)
    tasks = sorted(t for t, ids in gold.items() if known[ids[0]]["domain"] == domain)
    tasks = sample(tasks, n, key=str, salt="bright")
    each = -(-n // len(tasks))
    queries: dict[str, str] = {}
    for task in tasks:
        queries |= {f"{task}-{i}": question for i, (question, _) in enumerate(problems(task, each))}
    queries = dict(sorted(queries.items(), key=lambda q: int(q[0].rpartition("-")[2]))[:n])
    task_of = {q: q.rpartition("-")[0] for q in queries}
    return Corpus(
        queries=queries,
        documents={name: note["text"] for name, note in known.items()},
        relevant={q: dict.fromkeys(gold[task_of[q]], 1) for q in queries},
        excluded={q: [x for x in touched.get(task_of[q], []) if x not in gold[task_of[q]]] for q in queries},
    )


def worked_examples(n: int) -> Corpus:
    """From a problem to solved problems of another kind that need the same technique."""
    pairs = sample(TWINS, n, key="/".join, salt="twins")
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for one, two in pairs:
        solved = {
            f"{two}-{i}": f"{clip(question, 200)}\nAnswer: {clip(answer, 60)}"
            for i, (question, answer) in enumerate(problems(two, 2))
        }
        documents |= solved
        for i, (question, _) in enumerate(problems(one, 2)):
            queries[f"q-{one}-{i}"] = question
            relevant[f"q-{one}-{i}"] = dict.fromkeys(solved, 1)
    return Corpus(queries, documents, relevant)


def _domain_spec(domain: str, about: str) -> TaskSpec:
    def build(n: int) -> Corpus:
        return techniques(domain, n)

    return TaskSpec(
        name=f"Technique{domain.title()}Retrieval",
        type="Retrieval",
        build=build,
        n=32,
        smoke_n=6,
        main_score="ndcg_at_10",
        description=f"Find the note on the technique that solves {about}.",
        source="reasoning_gym problems; 93 technique notes in data/techniques",
        gold="which technique solves which kind of problem, decided when the notes were written; arguable notes "
        "are excluded for the query",
        weakness="problems of one kind share a template, so queries are not independent; one author's judgement",
        license="mit",
        domains=("Academic", "Written"),
        subtypes=("Reasoning as Retrieval",),
        packages=("reasoning_gym",),
    )


SPECS = (
    _domain_spec("arithmetic", "a problem on numbers"),
    _domain_spec("mathematics", "a problem of algebra, calculus, geometry or chance"),
    _domain_spec("algorithms", "a problem on grids, graphs, strings or processes"),
    _domain_spec("logic", "a logic problem or puzzle"),
    TaskSpec(
        name="WorkedExampleRetrieval",
        type="Retrieval",
        build=worked_examples,
        n=20,
        smoke_n=6,
        main_score="ndcg_at_10",
        description="Find solved problems of another kind that need the same technique as the given one.",
        source="reasoning_gym, eighteen pairs of tasks",
        gold="pairs of tasks chosen by hand for their common technique",
        weakness="some pairs share words beyond the technique; templates repeat",
        license="mit",
        domains=("Academic", "Written"),
        subtypes=("Reasoning as Retrieval",),
        packages=("reasoning_gym",),
    ),
)
