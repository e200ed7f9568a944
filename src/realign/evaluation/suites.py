"""Named lists of tasks. Everything here except ``load`` is cheap and imports no mteb.

A suite of our own is one line of :data:`SUITES` and a module that builds its tasks; it exists in up to three
sizes, ``study-NAME``, ``laptop-NAME`` and ``smoke-NAME``: those at which a task of it has a size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from typing import TYPE_CHECKING

from realign.errors import UsageError, unknown
from realign.evaluation import bright, cldr, code, instructions, messages
from realign.evaluation import specs as specs_module
from realign.evaluation.specs import SIZES, Size, TaskSpec

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

BUILDER_VERSION = 2
"""Raised when a builder makes other data from the same packages: part of every store key."""

BENCHMARKS = {
    "MTEB(Multilingual, v2)": "131 tasks in more than 250 languages; data from the hub",
    "MTEB(Code, v1)": "12 code retrieval tasks; data from the hub",
    "BRIGHT(v1.1)": "12 reasoning-intensive retrieval tasks, short documents, excluded ids; data from the hub",
}


@dataclass(frozen=True)
class Suite:
    """A suite of our own: its tasks, and the benchmark that it stands for (if any).

    ``files`` gives digests of further files that its data are made of, for store keys.
    """

    name: str
    specs: tuple[TaskSpec, ...]
    stands_for: str = ""
    files: Callable[[], Mapping[str, str]] = dict

    def sized(self, size: Size) -> list[tuple[TaskSpec, int]]:
        """Return the tasks that a suite of this size has, each with its own size."""
        return [(spec, spec.size(size)) for spec in self.specs if spec.size(size)]


SUITES = (
    Suite("multilingual", (*cldr.SPECS, *messages.SPECS), stands_for="MTEB(Multilingual, v2)"),
    Suite("code", code.SPECS, stands_for="MTEB(Code, v1)"),
    Suite("bright", bright.SPECS, stands_for="BRIGHT(v1.1)", files=bright.files),
)
SMOKE = Suite(
    "smoke", tuple(s for s in cldr.SPECS if s.name in ("CLDRKindClassification", "CLDRCurrencyRetrieval"))
)
"""One classification and one retrieval task, the least that runs every path."""


def names() -> list[str]:
    """Suites by name; ``load`` also takes any mteb benchmark and ``tasks:NAME,NAME``."""
    own = [f"{size}-{suite.name}" for size in SIZES for suite in SUITES if suite.sized(size)]
    return [*own, SMOKE.name, *BENCHMARKS]


def _suite(name: str) -> tuple[Suite, Size] | None:
    """Return the suite and size of a name like ``laptop-code``; None for what only mteb may know."""
    if name == SMOKE.name:
        return SMOKE, "smoke"
    prefix, _, kind = name.partition("-")
    size = next((each for each in SIZES if each == prefix), None)
    if size is None or not kind:
        return None
    suite = next((s for s in SUITES if s.name == kind and s.sized(size)), None)
    if suite is None:
        raise unknown("suite", name, names())
    return suite, size


def specs(name: str) -> list[tuple[TaskSpec, int]]:
    """Specifications and sizes of a suite of our own; empty for suites of mteb."""
    known = _suite(name)
    return known[0].sized(known[1]) if known else []


def about(name: str) -> str:
    """One line about a suite."""
    known = _suite(name)
    if known is None:
        return BENCHMARKS.get(name, "tasks of mteb; data from the hub")
    suite, size = known
    stands = f"stands for {suite.stands_for}; " if suite.stands_for else ""
    tasks = suite.sized(size)
    public = " and public archives" if any(spec.archives for spec, _ in tasks) else ""
    return f"{len(tasks)} tasks; {stands}data built from installed packages{public}"


def task_names(name: str) -> list[str]:
    """Task names of a suite (for an mteb benchmark this imports mteb)."""
    return [spec.name for spec, _ in specs(name)] or [task.metadata.name for task in load(name)]


def describe(name: str) -> list[dict[str, str]]:
    """One row for each task of a suite of our own, for the methods page (builds the data)."""
    rows = []
    for spec, n in specs(name):
        row = {"task": spec.name, "metric": spec.main_score}
        row |= {f: getattr(spec, f) for f in ("type", "description", "source", "gold", "weakness", "license")}
        row["texts"] = str(len(set(specs_module.texts(spec.data(n)))))
        row["example"], row["example_gold"] = specs_module.example(spec.data(n), spec.labels)
        rows.append(row)
    return rows


def texts(name: str) -> list[str]:
    """Every text of a suite of our own (builds the data); empty for suites of mteb."""
    return [text for spec, n in specs(name) for text in specs_module.texts(spec.data(n))]


def sources(name: str, task: str | None = None) -> dict[str, str]:
    """What a suite's data are made of, for store keys: versions, digests of archives, and the builder's version.

    With ``task``, of this task alone. No data are built and no archive is needed. A hub suite depends on mteb, whose task
    definitions pin data revisions.
    """
    known = _suite(name)
    chosen = [(s, n) for s, n in specs(name) if task in (None, s.name)]
    packages = {"mteb"} | {p for spec, _ in chosen for p in spec.packages}
    versions = {p: metadata.version(p).partition("+")[0] for p in sorted(packages)}
    if known is None or not chosen:
        return versions
    sizes = ",".join(f"{s.name}={n}" for s, n in chosen)
    archives = {archive.file: archive.sha256 for spec, _ in chosen for archive in spec.archives}
    return {**versions, **archives, "builder": f"{BUILDER_VERSION}", "sizes": sizes, **known[0].files()}


def task_instructions(name: str, *, strict: bool = False) -> Mapping[str, str]:
    """Resolved instruction by task: part of store keys, so a changed prompt never meets an old score."""
    table = instructions.load(strict=strict)
    if own := specs(name):
        return {spec.name: table(spec.name, spec.type) for spec, _ in own}
    return {t.metadata.name: table(t.metadata.name, t.metadata.type) for t in load(name)}


def load(name: str) -> list[AbsTask]:
    """Return new mteb task objects of a suite, in a fixed order.

    Args:
        name: one of :func:`names`, an mteb benchmark, or ``tasks:NAME,NAME`` for tasks of mteb.

    Raises:
        UsageError: no such suite, benchmark or task (the nearest name is given).
    """
    if own := specs(name):
        return [specs_module.make(spec, n) for spec, n in own]
    import mteb

    if name.startswith("tasks:"):
        wanted = list(dict.fromkeys(t.strip() for t in name.removeprefix("tasks:").split(",") if t.strip()))
        if not wanted:  # (mteb would take an empty list for all of its tasks)
            raise UsageError(f"suite '{name}' names no task: give tasks:NAME or tasks:NAME,NAME")
        known = {t.metadata.name for t in mteb.get_tasks(exclude_superseded=False)}
        for task in wanted:
            if task not in known:
                raise _unknown_task(task, known)
        return list(mteb.get_tasks(tasks=wanted, exclude_superseded=False))
    benchmarks = {b.name: b for b in mteb.get_benchmarks()}
    if name not in benchmarks:
        raise unknown("suite", name, [*names(), *(n for n in benchmarks if n not in BENCHMARKS)][:40])
    of_mteb = list(benchmarks[name].tasks)
    if name == "BRIGHT(v1.1)":
        # mteb's list has the long-document variants too; the paper uses the short ones
        of_mteb = [t for t in of_mteb if not t.metadata.name.endswith("LongRetrieval")]
    return of_mteb


def _unknown_task(name: str, known: set[str]) -> UsageError:
    """Error for an unknown mteb task: the nearest names only, there are more than a thousand."""
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    return UsageError(f"unknown mteb task '{name}'; nearest: {', '.join(near) or 'none'}")
