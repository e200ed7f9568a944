"""The generated pages: what numbers make is written as Markdown, and what comes from a file stays text."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pandas as pd
import pytest
from book_frames import study
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from realign import paths
from realign.book import pages
from realign.book.chapters import CHAPTERS
from realign.display import markdown
from realign.display.format import Text
from realign.evaluation import suites
from realign.findings import claims
from realign.hrsa.metrics import METRICS

SCRIPT = "<script>alert(1)</script>"
NASTY = [
    SCRIPT,
    "a | b",
    "two\nlines",
    "`` ` ``",
    "*b* _i_ [l](u) $x$ {{name}} {cite:p}`x` &amp; <!-- c",
    "# h",
    "~~s~~",
]


def rendered(text: str) -> str:
    """HTML of a page as MyST reads Markdown: tables, raw HTML allowed."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


def shown(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_shows_a_text_from_a_file_as_it_is(text: str) -> None:
    page = rendered(markdown.table(pd.DataFrame({"head": [text], "next": ["plain"]})))
    assert f"<td>{html.escape(shown(text), quote=False)}</td>" in page.replace("&quot;", '"')
    assert "<td>plain</td>" in page


@pytest.mark.parametrize("text", NASTY)
def test_a_code_span_in_a_cell_shows_a_text_from_a_file_as_it_is(text: str) -> None:
    page = rendered(markdown.table(pd.DataFrame({"head": [Text(markdown.code(text))], "next": ["plain"]})))
    assert f"<td><code>{html.escape(shown(text), quote=False)}</code></td>" in page.replace("&quot;", '"')
    assert "<td>plain</td>" in page


@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs", "Cf", "Co", "Cn")), min_size=1)
)
def test_any_text_is_one_cell_and_itself(text: str) -> None:
    for cell, left, right in ((text, "", ""), (Text(markdown.code(text)), "<code>", "</code>")):
        page = rendered(markdown.table(pd.DataFrame({"head": [cell]})))
        assert f"<td>{left}{html.escape(shown(text), quote=False)}{right}</td>" in page.replace("&quot;", '"')


def test_no_page_lets_markup_of_a_profile_or_a_claim_through() -> None:
    fake = study()
    verdicts = claims.claims(fake)
    for column in ("title", "statement", "criterion"):
        verdicts[column] = SCRIPT
    made = [
        pages.verdicts_markdown(verdicts, {"laptop"}),
        pages.criteria_markdown(verdicts, claims.amendments()),
        pages.configuration_markdown({"rq1": {"about": f"x` {SCRIPT} `", SCRIPT: SCRIPT}}),
        pages.tasks_markdown([f"tasks:{SCRIPT}"]),
        pages.pairs_markdown([("torch", SCRIPT)], ("what", "value")),
    ]
    for page in made:
        assert SCRIPT not in rendered(page)
        assert html.escape(SCRIPT) in rendered(page)


def test_the_methods_page_has_every_metric_that_sees_something_of_its_own() -> None:
    page = pages.metrics_markdown()
    for metric in METRICS.values():
        assert (f"| {metric.title} | {metric.sees} | {metric.misses} |" in page) is bool(metric.sees)


@pytest.mark.parametrize("package", pages.REFERENCE)
def test_every_module_of_a_package_has_its_reference(package: str) -> None:
    page = pages.reference_markdown(package)
    for file in (paths.root() / "src" / "realign" / package).rglob("[!_]*.py"):
        module = ".".join(file.relative_to(paths.root() / "src").with_suffix("").parts)
        assert f".. automodule:: {module}\n   :members:" in page
    prose = (paths.root() / "book" / "api" / f"{package}.md").read_text(encoding="utf-8")
    assert f"_generated/api_{package}.md" in prose


def test_a_chapter_with_settings_of_its_own_is_named() -> None:
    page = pages.configuration_markdown({"rq1": {"hrsa": {"k": [5]}}, "rq2": {"hrsa": {"k": [5, 20]}}})
    assert "| `hrsa.k` | `5` |" in page
    assert "Chapter rq2 was executed with `hrsa.k` `5, 20`." in page


def test_parameters_are_those_of_the_notebooks() -> None:
    page = pages.parameters_markdown(CHAPTERS)
    for chapter in CHAPTERS:
        for parameter in chapter.parameters().values():
            assert f"| `{parameter.name}` |" in page
    assert "| `profile` | all |" in page


def test_generated_pages_hold_verdicts_criteria_configuration_and_environment() -> None:
    made = pages.generated_pages({chapter.name: study() for chapter in CHAPTERS})
    assert {f"api_{name}.md" for name in pages.REFERENCE} <= set(made)
    assert {name for name in made if not name.startswith("api_")} - {"metrics_seen.svg"} == {
        f"{n}.md"
        for n in (
            "chapters",
            "parameters",
            "metrics",
            "verdicts",
            "criteria",
            "configuration",
            "environment",
            "run_times",
            "sweep",
            "tasks",
            "reading",
            "growth",
        )
    }
    assert made["metrics_seen.svg"].lstrip().startswith("<?xml")
    assert made["verdicts.md"].count("](chapters/rq") == 7
    assert "| `hrsa.k` | `5, 10` |" in made["configuration.md"]
    assert "torch" in made["environment.md"]
    assert "1.50" in made["run_times.md"]
    means = [row.split("|")[-2].strip() for row in made["sweep.md"].strip().splitlines()[2:]]
    known = [float(mean) for mean in means if mean != "–"]
    assert known == sorted(known, reverse=True)
    assert means[: len(known)] == [f"{mean:g}" for mean in known]  # rows without a mean come last
    assert "| untrained | – |" in made["sweep.md"]
    assert "| A | Do A | 20 | 25 | 0 | 300 |" in made["reading.md"]


def test_the_methods_page_describes_every_task_with_an_example_of_today() -> None:
    made = pages.tasks_markdown(["smoke", "MTEB(Code, v1)"])
    for row in suites.describe("smoke"):
        assert f"**{row['task']}**" in made
        example = markdown.code(row["example"]).replace("|", "\\|")
        assert f"| example | {example} |" in made
        for fact in ("source", "gold", "weakness", "metric"):
            assert markdown.escape(row[fact]) in made
    assert "data from the hub" in made


def test_an_example_cannot_end_its_own_code_span() -> None:
    assert markdown.code("a `b`\n``c``") == "``` a `b` ``c`` ```"


def test_growth_has_a_row_for_each_number_of_tokens(tmp_path: Path) -> None:
    recorded = tmp_path / "hrsa.jsonl"
    lines = [
        {"work": f"{work}, n={n}", "ours": n / 1000, "unit": unit, "target": None, "machine": "a machine"}
        for n in (1024, 4096)
        for work, unit in (("reading", "s"), ("peak memory", "MiB"))
    ]
    lines.append({"work": "neighbours, n=20000", "ours": 1.0, "unit": "s", "target": 1.0, "machine": "x"})
    recorded.write_text("\n".join(map(json.dumps, lines)))
    made = pages.growth_markdown(recorded)
    assert made.splitlines()[0] == "| tokens | reading | peak memory |"
    assert "| 4096 | 4.10 s | 4.10 MiB |" in made
    assert "20000" not in made
    assert "on a machine" in made


def test_smoke_verdicts_carry_a_warning() -> None:
    frame = claims.claims(study(), ["C1"])
    assert "{warning}" in pages.verdicts_markdown(frame, {"smoke"})
    assert "{warning}" not in pages.verdicts_markdown(frame, {"laptop"})
