"""Text sets and training pairs, built offline from installed packages or loaded from the hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from realign import paths
from realign.errors import RealignError, UsageError, unknown
from realign.texts import corpus, hub, leakage, pairs, splits
from realign.texts.splits import Split, digest
from realign.texts.worked import WorkedProblem, problems

__all__ = [
    "TextSet",
    "WorkedProblem",
    "corpus",
    "digest",
    "hub",
    "leakage",
    "load",
    "names",
    "pairs",
    "problems",
    "sources",
    "splits",
]

OFFLINE = {
    "docs": corpus.FUNCTION_PACKAGES,
    "code": corpus.FUNCTION_PACKAGES,
    "messages": corpus.CATALOGUE_PACKAGES,
    "problems": ("reasoning_gym",),
}


@dataclass(frozen=True)
class TextSet:
    """Texts with one label each; texts of one group are variants of one thing (module, message, story)."""

    name: str
    texts: list[str]
    labels: list[str]
    groups: list[str]


def names() -> list[str]:
    """Return the names that :func:`load` knows."""
    return [*OFFLINE, *hub.SETS]


def sources(name: str) -> dict[str, str]:
    """Return package -> version (or data set -> hub path) that a set is built from, for store keys."""
    name = hub.canonical(name)
    if name in hub.SETS:
        return {name: hub.SETS[name].path}
    if name.startswith(pairs.PREFIX):
        entry = pairs.hub_entry(name)
        return {name: f"{entry['path']}@{entry.get('revision', 'main')}"}
    if name.startswith(pairs.FILE):
        file = paths.resolve(name.removeprefix(pairs.FILE))
        return {name: hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"}
    if name not in OFFLINE:
        raise unknown("text set", name, [*names(), *pairs.names()])
    own = {"realign.texts": str(corpus.CORPUS_VERSION)}
    return {**corpus.versions(OFFLINE[name]), **own}


def load(name: str, n: int | None, *, split: Split = "eval", seed: int = 0) -> TextSet:
    """Return ``n`` texts of a set, labels in turn so that classes are about balanced.

    Args:
        name: ``docs`` (docstring prose; label: package), ``code`` (sources; package), ``messages``
            (translated interface messages; language), ``problems`` (problem and worked answer; task
            type), or a hub set such as ``hub:math-500``.
        n: how many; all (in seeded order) if None.
        split: side of the train/evaluation split; hub sets have one side only, theirs is ``eval``.
        seed: of the sample.

    Raises:
        UsageError: an unknown name or a split that a set does not have.
        RealignError: fewer than ``n`` texts, a missing package, or no hub.
    """
    name = hub.canonical(name)
    if name in hub.SETS:
        if split != "eval":
            raise UsageError(f"text set {name} is for evaluation only; ask for split='eval'")
        items = [(text, label, label) for text, label in hub.load(name)]
    elif name == "docs":
        functions = corpus.functions(split)
        items = [(f"{f.summary} {f.description}".strip(), f.package, f.module) for f in functions]
        items = [item for item in items if len(item[0].split()) >= 8]
    elif name == "code":
        functions = corpus.functions(split)
        items = [(f.source, f.package, f.module) for f in functions if f.source.count("\n") >= 3]
    elif name == "messages":
        messages = corpus.catalogues(split)
        items = [(t, language, m.key) for m in messages for language, t in m.translations.items()]
    elif name == "problems":
        items = [(f"{p.text}\n{p.answer}", p.task, p.template) for p in problems(split)]
    else:
        raise unknown("text set", name, names())
    chosen = splits.balanced(items, n, lambda item: item[0], lambda item: item[1], seed)
    if n is not None and len(chosen) < n:
        raise RealignError(
            f"text set {name} ({split}) has {len(chosen)} texts, fewer than {n}: ask for fewer"
        )
    texts, labels, groups = (list(column) for column in zip(*chosen, strict=True))
    return TextSet(name, texts, labels, groups)
