"""The notebooks are thin and can be changed from outside: checked on their sources, without running them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import Any

import jupytext
import pytest

from realign.display import figures, tables, verdicts
from realign.findings import claims

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("rq*.py"))
WORDS_OF_OURS = {"figures": figures, "tables": tables, "verdicts": verdicts}


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in jupytext.read(path).cells if cell.cell_type == kind]


def parameters(path: Path) -> Any:
    tagged = [c for c in cells(path, "code") if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    return tagged[0]


def test_there_is_a_notebook_for_each_question() -> None:
    assert [path.stem[:3] for path in NOTEBOOKS] == ["rq1", "rq2", "rq3", "rq4"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_source_survives_the_round_trip_through_ipynb(path: Path, tmp_path: Path) -> None:
    notebook = jupytext.read(path)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    jupytext.write(notebook, tmp_path / "x.ipynb")
    back = jupytext.reads(
        jupytext.writes(jupytext.read(tmp_path / "x.ipynb"), fmt="py:percent"), "py:percent"
    )
    assert [c.source for c in back.cells] == [c.source for c in notebook.cells]
    assert [c.metadata.get("tags") for c in back.cells] == [c.metadata.get("tags") for c in notebook.cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_has_a_plain_default_and_a_comment(path: Path) -> None:
    source = parameters(path).source
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and len(token.string) > 10
    }
    statements = ast.parse(source).body
    assert len(statements) >= 3
    for statement in statements:
        assert isinstance(statement, ast.Assign)
        value = ast.literal_eval(statement.value)
        assert value is not None, "papermill needs a default that shows its type"
        assert statement.lineno in comments, ast.unparse(statement)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_is_used(path: Path) -> None:
    rest = "\n".join(c.source for c in cells(path, "code") if c is not parameters(path))
    tree = ast.parse("\n".join(c.source for c in cells(path, "code")))
    loads = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for statement in ast.parse(parameters(path).source).body:
        assert isinstance(statement, ast.Assign)
        assert isinstance(statement.targets[0], ast.Name)
        assert statement.targets[0].id in loads, rest


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_thin(path: Path) -> None:
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) < 12
        tree = ast.parse(cell.source)
        loops = (ast.For, ast.While, ast.FunctionDef, ast.ClassDef)
        assert not any(isinstance(node, loops) for node in ast.walk(tree)), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_everything_called_exists(path: Path) -> None:
    for module, name in re.findall(r"\b(figures|tables|verdicts)\.(\w+)\(", path.read_text()):
        assert callable(getattr(WORDS_OF_OURS[module], name)), f"{module}.{name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_has_a_description_of_its_own(path: Path) -> None:
    drawn = [c for c in cells(path, "code") if re.search(r"^figures\.(?!setup)", c.source, re.MULTILINE)]
    described = [c.metadata.get("mystnb", {}).get("image", {}).get("alt", "") for c in drawn]
    assert len(drawn) >= 3
    assert all(len(text) > 15 for text in described)
    assert len(set(described)) == len(described)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_names_claims_that_exist_and_states_no_measured_number(path: Path) -> None:
    prose = "\n".join(c.source for c in cells(path, "markdown"))
    assert "**The paper's claim" in prose
    assert {f"C{n}" for n in re.findall(r"\bC(\d)\b", prose)} <= set(claims.load())
    judged = set(re.findall(r'"(C\d)"', path.read_text()))
    assert judged, "no verdict"
    # A result belongs in an output; prose that quotes one would stay when the result changes.
    assert not re.findall(r"\b\d+\.\d+\b", re.sub(r"\{cite:p\}`[^`]*`", "", prose))


def test_each_claim_is_judged_in_exactly_one_chapter() -> None:
    judged = [name for path in NOTEBOOKS for name in re.findall(r'"(C\d)"', path.read_text())]
    assert sorted(judged) == sorted(claims.load())
