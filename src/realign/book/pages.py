"""The parts of the site that numbers make: verdicts, configuration, environment, run times; and MathJax.

The book's pages are static, so these are written as Markdown into book/_generated before each build and
included by the home page and the appendix. Nothing here is kept in git.
"""

from __future__ import annotations

import io
import json
import platform
import re
import shutil
from collections.abc import Iterable, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from realign import paths
from realign.display import figures, tables
from realign.display.format import EMPTY, markdown, number
from realign.errors import RealignError
from realign.evaluation import suites
from realign.findings import claims as rules
from realign.hrsa import demonstration

PACKAGES = (
    *("torch", "transformers", "sentence-transformers", "peft", "trl", "mteb", "datasets", "reasoning-gym"),
    *("numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "papermill", "jupyter-book"),
)
CHAPTERS = {
    "RQ1": "chapters/rq1_null_effect",
    "RQ2": "chapters/rq2_backbone_geometry",
    "RQ3": "chapters/rq3_realignment",
    "RQ4": "chapters/rq4_mechanism",
}
# What TeX on our pages needs of MathJax: a fifth of the package.
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def generated_pages(study: Any) -> dict[str, str]:
    """Return every generated page of a study by file name."""
    verdicts = rules.claims(study)
    return {
        "verdicts.md": verdicts_markdown(verdicts, study.profile.name),
        "criteria.md": criteria_markdown(verdicts),
        "configuration.md": configuration_markdown(study.configuration()),
        "environment.md": environment_markdown(environment()),
        "run_times.md": run_times_markdown(study.provenance()),
        "sweep.md": sweep_markdown(paths.data() / "sweeps" / "laptop-recipe.csv"),
        "tasks.md": tasks_markdown(study.profile.suites),
        "reading.md": markdown(tables.reading(study.reading())) + "\n",
        "metrics_seen.svg": metrics_seen_svg(),
        "growth.md": growth_markdown(),
    }


def tasks_markdown(names: Iterable[str]) -> str:
    """Render every task of the laptop or smoke suites among ``names``: what it is, with one example.

    The data are built from the installed packages here and now; suites of mteb are only named.
    """
    parts = []
    for name in names:
        parts.append(f"### {name}\n\n{suites.about(name)}.")
        for row in suites.describe(name):
            facts = {k: row[k] for k in ("type", "metric", "texts", "source", "gold", "weakness", "license")}
            facts |= {"example": _quoted(row["example"]), "its gold": _quoted(row["example_gold"])}
            cells = markdown(pd.DataFrame(facts.items(), columns=[f"**{row['task']}**", row["description"]]))
            parts.append(cells)
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    """Show a text of a data set as it is, on one line, in a code span that its own backticks cannot end."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {' '.join(text.split())} {fence}"


def metrics_seen_svg() -> str:
    """Draw what each metric sees of known changes, for the methods page."""
    buffer = io.StringIO()
    with figures.style():
        drawn = figures.metrics_seen(demonstration.demonstration())
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def growth_markdown(path: Path | None = None) -> str:
    """Render the recorded growth of time and memory with the number of tokens (data/benchmarks/hrsa.jsonl)."""
    path = path or paths.data() / "benchmarks" / "hrsa.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    table: dict[int, dict[str, str]] = {}
    for line in lines:
        work, found, tokens = line["work"].rpartition(", n=")
        if found and line["target"] is None:
            shown = f"{number(line['ours'], 2)} {line['unit']}"
            table.setdefault(int(tokens), {})[work] = shown
    frame = pd.DataFrame.from_dict(table, orient="index").rename_axis("tokens").reset_index()
    return f"{markdown(frame)}\n\nRecorded by `benchmarks/hrsa.py` on {lines[0]['machine']}.\n"


def verdicts_markdown(verdicts: pd.DataFrame, profile: str = "") -> str:
    """Render today's verdicts as a table of claim, statement, verdict and chapter.

    Args:
        verdicts: the frame of :func:`realign.findings.claims.claims`.
        profile: the profile behind the numbers; 'smoke' gets a warning that they mean nothing.
    """
    rows = [
        (
            f"**{r.claim}**",
            f"{r.title}. {r.statement}",
            f"**{r.verdict}**",
            f"[{r.rq}]({CHAPTERS[str(r.rq)]})",
        )
        for r in verdicts.itertuples()
    ]
    table = markdown(pd.DataFrame(rows, columns=["", "claim of the paper", "verdict here", "chapter"]))
    if profile != "smoke":
        return table + "\n"
    warning = "These verdicts come from tiny untrained models and test the machinery, not the claims."
    return f":::{{warning}}\n{warning}\n:::\n\n{table}\n"


def criteria_markdown(verdicts: pd.DataFrame) -> str:
    """Render, for every claim, the criterion that was set in advance and the evidence it met."""
    parts = []
    for row in verdicts.itertuples():
        evidence = "\n".join(f"- {line}" for line in str(row.evidence).splitlines())
        parts.append(f"**{row.claim}, {row.title}: {row.verdict}.** {row.criterion}\n\n{evidence}")
    return "\n\n".join(parts) + "\n"


def environment() -> dict[str, str]:
    """Return the machine and the versions that this process sees."""
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    facts = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    facts |= {"threads": str(torch.get_num_threads()), "accelerator": device}
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def configuration_markdown(configuration: Mapping[str, Any]) -> str:
    """Render a resolved profile as a two-column Markdown table, nested settings dotted."""
    rows = [(f"`{key}`", f"`{_plain(value)}`") for key, value in _flatten(configuration)]
    return markdown(pd.DataFrame(rows, columns=["setting", "value"]))


def environment_markdown(facts: Mapping[str, Any]) -> str:
    """Render what the book was built with (machine, device, versions) as a Markdown table."""
    rows = [(str(key), str(value)) for key, value in _flatten(facts)]
    return markdown(pd.DataFrame(rows, columns=["what", "value"]))


def run_times_markdown(provenance: pd.DataFrame, pages: Mapping[str, float] | None = None) -> str:
    """Render the time behind the book: seconds by stage and, if given, seconds each page took.

    Args:
        provenance: rows of ``study.provenance()`` of all chapters; the same key counts once.
        pages: seconds that executing each chapter took in this build.
    """
    parts = []
    if not provenance.empty:
        once = provenance.drop_duplicates("key")
        groups = once.groupby(["stage", "source"], as_index=False)
        table = groups.agg(artifacts=("key", "size"), minutes=("seconds", lambda s: number(s.sum() / 60, 2)))
        parts.append(markdown(table))
    if pages:
        rows = [(name, number(seconds, 1)) for name, seconds in pages.items()]
        parts.append(markdown(pd.DataFrame(rows, columns=["chapter", "seconds in this build"])))
    return "\n\n".join(parts) or "Nothing was timed."


def sweep_markdown(table: Path) -> str:
    """Render a recorded sweep over recipes as a Markdown table: best mean first, rows without one last."""
    frame = pd.read_csv(table, comment="#", dtype=str, keep_default_na=False)
    frame = frame.sort_values("mean", key=lambda column: -pd.to_numeric(column))
    dropped = {"seconds", "tokens_per_second", "padding_share", "memory_gib", "last_loss"}
    shown = frame[[c for c in frame.columns if c not in dropped]].replace("", EMPTY)
    return markdown(shown.rename(columns=lambda name: name.replace("_", " "))) + "\n"


def _flatten(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in data.items():
        nested = isinstance(value, Mapping) and value
        rows += _flatten(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or EMPTY
    return EMPTY if value in (None, "", {}) else str(value)


def copy_mathjax(book: Path) -> None:
    """Copy MathJax from its wheel to book/_extra, so that no page asks another host for it.

    Raises:
        RealignError: if the package is missing or laid out differently.
    """
    target = book / "_extra" / "mathjax"
    spec = find_spec("mathjax")
    if spec is None or spec.origin is None:
        raise RealignError("MathJax is missing: install the locked requirements (django-static-mathjax)")
    source = Path(spec.origin).parent / "static" / "mathjax" / "es5"
    for name in MATHJAX:
        place = target / name
        if place.exists():
            continue
        if not (source / name).exists():
            raise RealignError(f"no {name} in {source}: install the locked version of django-static-mathjax")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, place)
        else:
            shutil.copyfile(source / name, place)
