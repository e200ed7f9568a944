"""The parts of the site that numbers make: verdicts, configuration, tasks, environment, run times.

The book's pages are static, so these are written as Markdown into book/_generated before each build and
included by the home page, the methods and the appendix. Nothing here is kept in git. Every number is of
the chapters as they were executed, with their parameters: pages and chapters cannot disagree.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch

import realign
from realign import paths
from realign.book.chapters import CHAPTERS, Chapter
from realign.display import figures, tables
from realign.display.format import EMPTY, Text, number
from realign.display.markdown import code, escape, table
from realign.display.verdicts import sentences
from realign.evaluation import suites
from realign.findings import claims
from realign.hrsa import demonstration
from realign.hrsa.metrics import METRICS
from realign.study import Study, open_study

PACKAGES = (
    *("torch", "transformers", "sentence-transformers", "peft", "trl", "mteb", "datasets", "reasoning-gym"),
    *("numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "papermill", "jupyter-book"),
)

# Packages with a page of reference, in the order of the layers.
REFERENCE = (
    *("hrsa", "stats", "models", "texts", "behaviour", "tuning", "training", "evaluation", "study"),
    *("findings", "display"),
)


def generate() -> None:
    """Write the generated pages of the chapters as they were executed.

    Raises:
        FileNotFoundError: a chapter was not executed yet.
        RealignError: what a chapter has read is not in the store any more.
    """
    folder = paths.root() / "book" / "_generated"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in generated_pages(executed_studies()).items():
        temporary = folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)


def executed_studies() -> dict[str, Study]:
    """Return the study behind each executed chapter, by its name; chapters of one configuration share one.

    They compute nothing: a page shows what its chapter has read.
    """
    opened: dict[str, Study] = {}
    studies = {}
    for chapter in CHAPTERS:
        study = open_study(**chapter.executed_with())
        study.graph.compute = False
        studies[chapter.name] = opened.setdefault(json.dumps(study.configuration()), study)
    return studies


def generated_pages(studies: Mapping[str, Study]) -> dict[str, str]:
    """Return every generated page by file name.

    Args:
        studies: the study behind each chapter, by the chapter's name.
    """
    first = studies[CHAPTERS[0].name]
    verdicts = pd.concat(
        [claims.claims(studies[chapter.name], chapter.claims) for chapter in CHAPTERS], ignore_index=True
    )
    pages = {
        "chapters.md": chapters_markdown(CHAPTERS),
        "parameters.md": parameters_markdown(CHAPTERS),
        "verdicts.md": verdicts_markdown(verdicts, {study.profile.name for study in studies.values()}),
        "criteria.md": criteria_markdown(verdicts, claims.amendments()),
        "configuration.md": configuration_markdown(
            {name: study.configuration() for name, study in studies.items()}
        ),
        "environment.md": pairs_markdown(environment().items(), ("what", "value")),
        "sweep.md": sweep_markdown(paths.data() / "sweeps" / "laptop-recipe.csv"),
        "tasks.md": tasks_markdown(first.profile.suites),
        "reading.md": table(tables.reading(first.evaluate.reading()).frame) + "\n",
        "metrics.md": metrics_markdown(),
        "metrics_seen.svg": metrics_seen_svg(),
        "growth.md": growth_markdown(paths.data() / "benchmarks" / "hrsa.jsonl"),
    }
    read = pd.concat([study.provenance() for study in studies.values()])
    reference = {f"api_{name}.md": reference_markdown(name) for name in REFERENCE}
    return pages | reference | {"run_times.md": run_times_markdown(read)}


def chapters_markdown(chapters: Sequence[Chapter]) -> str:
    """Render the home page's table of chapters and their questions."""
    rows = [(Text(f"{{doc}}`{each.page}`"), each.question) for each in chapters]
    return table(pd.DataFrame(rows, columns=["chapter", "question"])) + "\n"


def parameters_markdown(chapters: Sequence[Chapter]) -> str:
    """Render the table of parameters: name, the chapters that take it, its comment in the notebook."""
    takers: dict[str, list[str]] = {}
    comments: dict[str, str] = {}
    for chapter in chapters:
        for parameter in chapter.parameters().values():
            takers.setdefault(parameter.name, []).append(chapter.title)
            comments.setdefault(parameter.name, parameter.help)
    rows = [
        (Text(code(name)), "all" if len(titles) == len(chapters) else ", ".join(titles), comments[name])
        for name, titles in takers.items()
    ]
    return table(pd.DataFrame(rows, columns=["parameter", "chapters", "what it does"])) + "\n"


def tasks_markdown(names: Iterable[str]) -> str:
    """Render every task of the laptop or smoke suites among ``names``: what it is, with one example.

    The data are built from the installed packages here and now; suites of mteb are only named.
    """
    parts = []
    for name in names:
        parts.append(f"### {escape(name)}\n\n{escape(suites.about(name))}.")
        for row in suites.describe(name):
            facts = {
                key: row[key] for key in ("type", "metric", "texts", "source", "gold", "weakness", "license")
            }
            examples = {"example": Text(code(row["example"])), "its gold": Text(code(row["example_gold"]))}
            columns = [Text(f"**{escape(row['task'])}**"), row["description"]]
            parts.append(table(pd.DataFrame((facts | examples).items(), columns=columns)))
    return "\n\n".join(parts) + "\n"


def metrics_markdown() -> str:
    """Render what each metric sees and misses, from the registry; companions of another metric are left out."""
    rows = [(each.level, each.title, each.sees, each.misses) for each in METRICS.values() if each.sees]
    columns = ["level", "metric", "what it sees", "what it does not see"]
    return table(pd.DataFrame(rows, columns=columns)) + "\n"


def reference_markdown(package: str) -> str:
    """List the modules of a package for sphinx autodoc, which writes their docstrings."""
    folder = Path(realign.__file__).parent / package
    lines = [
        f".. automodule:: realign.{package}",
        "   :members:",
        "   :ignore-module-all:",
        "",
    ]  # only its own
    for file in sorted(folder.rglob("*.py")):
        name = ".".join(("realign", package, *file.relative_to(folder).with_suffix("").parts))
        if not name.endswith(".__init__"):
            lines += [name, "-" * len(name), "", f".. automodule:: {name}", "   :members:", ""]
    return "\n".join(["```{eval-rst}", *lines, "```", ""])


def metrics_seen_svg() -> str:
    """Draw what each metric sees of known changes, for the methods page."""
    buffer = io.StringIO()
    with figures.style():
        drawn = figures.metrics_seen(demonstration.demonstration())
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def growth_markdown(path: Path) -> str:
    """Render the recorded growth of time and memory with the number of tokens (data/benchmarks/hrsa.jsonl)."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    columns: dict[int, dict[str, str]] = {}
    for line in lines:
        work, sized, tokens = line["work"].rpartition(", n=")
        if sized and line["target"] is None:
            shown = f"{number(line['ours'], 2)} {line['unit']}"
            columns.setdefault(int(tokens), {})[work] = shown
    frame = pd.DataFrame.from_dict(columns, orient="index").rename_axis("tokens").reset_index()
    machine = escape(lines[0]["machine"])
    return f"{table(frame)}\n\nRecorded by `benchmarks/hrsa.py` on {machine}.\n"


def verdicts_markdown(verdicts: pd.DataFrame, profiles: Collection[str]) -> str:
    """Render today's verdicts as a table of claim, statement, verdict and chapter.

    Args:
        verdicts: the frame of :func:`realign.findings.claims.claims`.
        profiles: those behind the numbers; 'smoke' gets a warning that they mean nothing.
    """
    places = {claim: chapter for chapter in CHAPTERS for claim in chapter.claims}
    rows = [
        (
            Text(f"**{escape(row.claim)}**"),
            f"{row.title}. {row.statement}",
            Text(f"**{escape(row.verdict)}**"),
            Text(f"[{places[str(row.claim)].title}]({places[str(row.claim)].page})"),
        )
        for row in verdicts.itertuples()
    ]
    page = table(pd.DataFrame(rows, columns=["", "claim of the paper", "verdict here", "chapter"])) + "\n"
    if "smoke" not in profiles:
        return page
    warning = "These verdicts come from tiny untrained models and test the machinery, not the claims."
    return f":::{{warning}}\n{warning}\n:::\n\n{page}"


def criteria_markdown(verdicts: pd.DataFrame, changes: Sequence[claims.Amendment]) -> str:
    """Render, for every claim, its criterion and the evidence it met, then the changes of rules after results were seen."""
    parts = []
    for row in verdicts.itertuples():
        head = f"**{escape(row.claim)}, {escape(row.title)}: {escape(row.verdict)}.** {escape(row.criterion)}"
        parts.append("\n".join([head, "", *(f"- {escape(line)}" for line in sentences(row.evidence))]))
    if changes:
        parts.append("Rules that were changed after results had been seen:")
        parts.append("\n".join(f"- {escape(_amendment(change))}" for change in changes))
    return "\n\n".join(parts) + "\n"


def _amendment(change: claims.Amendment) -> str:
    names = ", ".join(change.claims)
    return f"{change.date}, {names}: {change.what} Why: {change.why} Known then: {change.known}"


def environment() -> dict[str, str]:
    """Return the machine and the versions that this process sees."""
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    facts = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    facts |= {"threads": str(torch.get_num_threads()), "accelerator": device}
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def configuration_markdown(configurations: Mapping[str, Mapping[str, object]]) -> str:
    """Render the resolved profile of the first chapter, nested settings dotted, and where others differ.

    Args:
        configurations: resolved profiles by the chapter's name.
    """
    flat = {name: dict(_flatten(configuration)) for name, configuration in configurations.items()}
    first = next(iter(flat.values()))
    parts = [pairs_markdown([(Text(code(k)), Text(code(v))) for k, v in first.items()], ("setting", "value"))]
    for name, settings in flat.items():
        own = [f"{code(k)} {code(v)}" for k, v in settings.items() if first.get(k) != v]
        parts += [f"Chapter {name} was executed with {', '.join(own)}.\n"] if own else []
    return "\n".join(parts)


def pairs_markdown(pairs: Iterable[tuple[object, object]], columns: tuple[str, str]) -> str:
    """Render names and values as a Markdown table."""
    return table(pd.DataFrame(list(pairs), columns=columns)) + "\n"


def run_times_markdown(provenance: pd.DataFrame) -> str:
    """Render the time behind the book: artifacts and minutes by stage.

    Args:
        provenance: rows of ``study.provenance()`` of all chapters; the same key counts once.
    """
    if provenance.empty:
        return "Nothing was timed.\n"
    groups = provenance.drop_duplicates("key").groupby(["stage", "source"], as_index=False)
    frame = groups.agg(artifacts=("key", "size"), minutes=("seconds", lambda s: number(s.sum() / 60, 2)))
    return table(frame) + "\n"


def sweep_markdown(path: Path) -> str:
    """Render a recorded sweep over recipes as a Markdown table: best mean first, rows without one last."""
    frame = pd.read_csv(path, comment="#", dtype=str, keep_default_na=False)
    frame = frame.sort_values("mean", key=lambda column: -pd.to_numeric(column))
    dropped = {"seconds", "tokens_per_second", "padding_share", "memory_gib", "last_loss"}
    shown = frame[[c for c in frame.columns if c not in dropped]].replace("", EMPTY)
    return table(shown.rename(columns=lambda name: name.replace("_", " "))) + "\n"


def _flatten(data: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(map(str, value)) or EMPTY
        else:
            yield f"{prefix}{key}", EMPTY if value in (None, "", {}) else str(value)
