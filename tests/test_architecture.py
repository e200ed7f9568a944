"""Data flows one way: the imports of src/realign, read from the sources, point down and never up."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import realign

ROOT = Path(realign.__file__).parent
# Lowest first; packages of one layer do not import one another.
LAYERS = (
    {"errors"},
    {"paths", "config", "hardware", "progress"},
    {"hrsa", "stats"},
    {"models", "texts"},
    {"behaviour"},
    {"tuning", "training", "evaluation"},
    {"study"},
    {"findings"},
    {"display"},
    {"book"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ALONE = {"hrsa", "stats"}  # usable on plain arrays: nothing else of realign
# The single modules know one another: paths are read from errors, configuration from paths.
SINGLE = LAYERS[0] | LAYERS[1]
# Keys of a study are made, and commands listed, without torch: what builds and runs is imported when it does.
LATE = ("study/stages/", "cli/")


class Import(NamedTuple):
    """One import of a module of realign: where it stands, what it names, and whether inside a function."""

    file: str
    line: int
    target: str
    inside: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports realign.{self.target}"


def imports(source: str, file: str) -> Iterator[Import]:
    """Yield the imports of realign's own modules in a source, those for type checking too."""

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "realign" else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("realign."):
                yield Import(file, node.lineno, name.removeprefix("realign."), inside)  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            yield from visit(
                child, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            )

    yield from visit(ast.parse(source), False)


def all_imports() -> list[Import]:
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 60
    return [
        each
        for file in files
        if file != ROOT / "__init__.py"
        for each in imports(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix())
    ]


def package(dotted_or_path: str) -> str:
    return dotted_or_path.replace("/", ".").split(".")[0]


def points_up(each: Import) -> bool:
    here, there = package(each.file), package(each.target)
    if here == there or there == "__version__":
        return False
    if here in ALONE:
        return True
    if here in SINGLE and there in SINGLE:
        return False
    return LEVEL[there] >= LEVEL[here]


def test_every_module_has_a_layer() -> None:
    names = {
        path.name.removesuffix(".py")
        for path in ROOT.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert names - {"__init__"} == set(LEVEL)


def test_no_arrow_points_up() -> None:
    assert [str(each) for each in all_imports() if points_up(each)] == []


def test_imports_of_our_own_stand_at_the_top() -> None:
    hidden = [str(each) for each in all_imports() if each.inside and not each.file.startswith(LATE)]
    assert hidden == []


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("hrsa/report.py", "from realign.errors import RealignError", True),
        ("stats/paired.py", "from realign import hrsa", True),
        ("texts/pairs.py", "def f():\n    from realign.training import data", True),
        ("training/data.py", "import realign.evaluation.suites", True),
        ("tuning/rlvr.py", "from realign.behaviour import policy", False),
        ("behaviour/policy.py", "from realign.tuning import sft", True),
        ("findings/claims.py", "from realign.display import tables", True),
        ("display/tables.py", "from realign.findings import claims", False),
        ("paths.py", "from realign.errors import RealignError", False),
    ],
)
def test_the_guard_sees_an_arrow(file: str, source: str, wrong: bool) -> None:
    (each,) = imports(source, file)
    assert points_up(each) is wrong


def test_fields_of_named_tuples_are_described_in_prose() -> None:
    """Sphinx lists them by itself: a section Attributes would describe each twice, which fails the site."""
    twice = [
        f"{file.relative_to(ROOT)}: {node.name}"
        for file in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(getattr(base, "id", "") == "NamedTuple" for base in node.bases)
        and "Attributes:" in (ast.get_docstring(node) or "")
    ]
    assert twice == []


@pytest.mark.parametrize(
    "code", ["import realign.cli", "from realign.study import open_study; open_study('smoke').nodes()"]
)
def test_commands_are_listed_and_keys_are_made_without_torch(code: str) -> None:
    program = f"{code}\nimport sys\nassert not {{'torch', 'transformers', 'mteb'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
