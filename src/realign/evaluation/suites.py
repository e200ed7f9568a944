"""Named lists of tasks. Everything here except ``load`` is cheap and imports no mteb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from realign.errors import RealignError, unknown
from realign.evaluation import bright, cldr, code, instructions, messages
from realign.evaluation import specs as specs_module
from realign.evaluation.specs import TaskSpec

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

BUILDER_VERSION = 2
"""Raised when a builder makes other data from the same packages: part of every store key."""

BENCHMARKS = {
    "MTEB(Multilingual, v2)": "131 tasks in more than 250 languages; data from the hub",
    "MTEB(Code, v1)": "12 code retrieval tasks; data from the hub",
    "BRIGHT(v1.1)": "12 reasoning-intensive retrieval tasks, short documents, excluded ids; data from the hub",
}
_LAPTOP: dict[str, tuple[TaskSpec, ...]] = {
    "multilingual": (*cldr.SPECS, *messages.SPECS),
    "code": code.SPECS,
    "bright": bright.SPECS,
}
_STANDS_FOR = dict(zip(_LAPTOP, BENCHMARKS, strict=True))


@dataclass(frozen=True)
class Suite:
    """A suite ready to run: new mteb task objects, in a fixed order."""

    name: str
    tasks: list[AbsTask]
    about: str


def names() -> list[str]:
    """Suites by name; ``load`` also takes any mteb benchmark and ``tasks:NAME,NAME``."""
    return [f"{size}-{kind}" for size in ("laptop", "smoke") for kind in _LAPTOP] + ["smoke", *BENCHMARKS]


def specs(name: str) -> list[tuple[TaskSpec, int]]:
    """Specifications and sizes of a laptop or smoke suite; empty for suites of mteb.

    ``smoke`` is one classification and one retrieval task, the least that runs every path.
    """
    if name == "smoke":
        wanted = ("CLDRKindClassification", "CLDRCurrencyRetrieval")
        return [(s, s.smoke_n) for s in cldr.SPECS if s.name in wanted]
    size, _, kind = name.partition("-")
    if size not in ("laptop", "smoke") or not kind:
        return []
    if kind not in _LAPTOP:
        raise unknown("suite", name, names())
    return [(s, s.n if size == "laptop" else s.smoke_n) for s in _LAPTOP[kind]]


def about(name: str) -> str:
    """One line about a suite."""
    found = specs(name)
    if not found:
        return BENCHMARKS.get(name, "tasks of mteb; data from the hub")
    kind = name.partition("-")[2]
    stands = f"stands for {_STANDS_FOR[kind]}; " if kind in _STANDS_FOR else ""
    return f"{len(found)} tasks; {stands}data built from installed packages"


def task_names(name: str) -> list[str]:
    """Task names of a suite (for an mteb benchmark this imports mteb)."""
    found = specs(name)
    return [s.name for s, _ in found] if found else [t.metadata.name for t in load(name).tasks]


def describe(name: str) -> list[dict[str, str]]:
    """One row for each task of a laptop or smoke suite, for the methods page (builds the data)."""
    rows = []
    for spec, n in specs(name):
        left, right = specs_module.example(spec.data(n), spec.labels)
        rows.append(
            {
                "task": spec.name,
                "type": spec.type,
                "description": spec.description,
                "metric": spec.main_score,
                "texts": str(len(set(specs_module.texts(spec.data(n))))),
                "source": spec.source,
                "gold": spec.gold,
                "weakness": spec.weakness,
                "license": spec.license,
                "example": left,
                "example_gold": right,
            }
        )
    return rows


def texts(name: str) -> list[str]:
    """Every text of a laptop or smoke suite (builds the data); empty for suites of mteb."""
    return [text for spec, n in specs(name) for text in specs_module.texts(spec.data(n))]


def sources(name: str, task: str | None = None) -> dict[str, str]:
    """What a suite's data are made of, for store keys: package versions and the builder's version.

    With ``task``, of this task alone. No data are built. A hub suite depends on mteb, whose task
    definitions pin data revisions.
    """
    found = [(s, n) for s, n in specs(name) if task in (None, s.name)]
    packages = {"mteb"} | {p for spec, _ in found for p in spec.packages}
    versions = {p: metadata.version(p).partition("+")[0] for p in sorted(packages)}
    if not found:
        return versions
    sizes = ",".join(f"{s.name}={n}" for s, n in found)
    return {**versions, "builder": f"{BUILDER_VERSION}", "sizes": sizes, **bright.sources(name)}


def task_instructions(name: str, *, strict: bool = False) -> Mapping[str, str]:
    """Resolved instruction by task: part of store keys, so a changed prompt never meets an old score."""
    table = instructions.load(strict=strict)
    found = specs(name)
    if found:
        return {s.name: table(s.name, s.type) for s, _ in found}
    return {t.metadata.name: table(t.metadata.name, t.metadata.type) for t in load(name).tasks}


def load(name: str) -> Suite:
    """Return a suite with new mteb task objects.

    Args:
        name: one of :func:`names`, an mteb benchmark, or ``tasks:NAME,NAME`` for tasks of mteb.

    Raises:
        UsageError: no such suite, benchmark or task (the nearest name is given).
    """
    found = specs(name)
    if found:
        from realign.evaluation.tasks import make

        return Suite(name, [make(spec, n) for spec, n in found], about(name))
    import mteb

    if name.startswith("tasks:"):
        wanted = [t.strip() for t in name.removeprefix("tasks:").split(",") if t.strip()]
        known = {t.metadata.name for t in mteb.get_tasks(exclude_superseded=False)}
        for task in wanted:
            if task not in known:
                raise unknown_task(task, known)
        return Suite(name, list(mteb.get_tasks(tasks=wanted, exclude_superseded=False)), about(name))
    benchmarks = {b.name: b for b in mteb.get_benchmarks()}
    if name not in benchmarks:
        raise unknown("suite", name, [*names(), *(n for n in benchmarks if n not in BENCHMARKS)][:40])
    tasks = list(benchmarks[name].tasks)
    if (
        name == "BRIGHT(v1.1)"
    ):  # mteb's list has the long-document variants too; the paper uses the short ones
        tasks = [t for t in tasks if not t.metadata.name.endswith("LongRetrieval")]
    return Suite(name, tasks, about(name))


def unknown_task(name: str, known: set[str]) -> RealignError:
    """Error for an unknown mteb task: the nearest names only, there are more than a thousand."""
    from difflib import get_close_matches

    from realign.errors import UsageError

    near = get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    return UsageError(f"unknown mteb task '{name}'; nearest: {', '.join(near) or 'none'}")
