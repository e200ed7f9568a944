"""A chapter is a notebook with parameters: checked, executed by papermill, compiled into the book.

papermill reads .ipynb only, ignores unknown parameters and marks every cell completed on an
interrupt. So sources are converted first, parameters are checked against the tagged cell before
anything runs, and an executed notebook takes its place only after every cell is seen to have run.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from realign import paths
from realign.errors import RealignError, UsageError, unknown

CHAPTERS = {
    "rq1": "rq1_null_effect",
    "rq2": "rq2_backbone_geometry",
    "rq3": "rq3_realignment",
    "rq4": "rq4_mechanism",
}


def notebook_name(chapter: str) -> str:
    """Return a chapter's notebook name; ``rq2`` and ``rq2_backbone_geometry`` are the same."""
    name = chapter.removesuffix(".py").removesuffix(".ipynb")
    if name in CHAPTERS:
        return CHAPTERS[name]
    if name in CHAPTERS.values():
        return name
    raise unknown("chapter", chapter, CHAPTERS)


def convert(chapter: str, folder: Path) -> Path:
    """Write a chapter's .ipynb (outputs empty, tags kept) into ``folder`` and return its path."""
    import jupytext

    name = notebook_name(chapter)
    notebook = jupytext.read(paths.root() / "notebooks" / f"{name}.py")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{name[:3]}-{number:03d}"  # stable: the same source gives the same file
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.ipynb"
    jupytext.write(notebook, target, fmt="ipynb")
    return target


def parse_value(text: str) -> Any:
    """Read a parameter from the command line: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)


def check_parameters(chapter: str, parameters: dict[str, Any]) -> None:
    """Check names and types against the notebook's tagged cell.

    Raises:
        UsageError: for an unknown name (with the nearest one) or a value of another type.
    """
    defaults = default_parameters(chapter)
    for name, value in parameters.items():
        if name not in defaults:
            raise unknown(f"parameter of chapter {chapter}", name, defaults)
        expected = type(defaults[name])
        fits = isinstance(value, expected) or (expected is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and expected is not bool):
            raise UsageError(
                f"parameter '{name}' of chapter {chapter} must be {_kind(expected)}, "
                f"like {defaults[name]!r}, got {value!r}"
            )


def _kind(kind: type) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    return names.get(kind, kind.__name__)


def default_parameters(chapter: str) -> dict[str, Any]:
    """Return the defaults in a chapter's ``parameters`` cell, by name."""
    import jupytext

    notebook = jupytext.read(paths.root() / "notebooks" / f"{notebook_name(chapter)}.py")
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise RealignError(f"notebook {notebook_name(chapter)}.py must have one cell tagged 'parameters'")
    found = {}
    for line in ast.parse(cells[0].source).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            found[line.targets[0].id] = ast.literal_eval(line.value)
    return found


def execute(chapter: str, parameters: dict[str, Any], output: Path | None = None) -> Path:
    """Execute a chapter with parameters and return the finished notebook.

    Args:
        chapter: ``rq1`` to ``rq4``.
        parameters: values for the notebook's tagged cell.
        output: where the executed notebook goes; None is book/chapters/.

    Raises:
        UsageError: for an unknown chapter or parameter.
        RealignError: when a cell fails; names the cell and the error, keeps the failed notebook.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    check_parameters(chapter, parameters)
    name = notebook_name(chapter)
    output = output or paths.root() / "book" / "chapters" / f"{name}.ipynb"
    work = paths.artifacts() / ".tmp" / f"chapter-{name}-{os.getpid()}"
    source = convert(chapter, work)
    temporary = work / "executed.ipynb"
    try:
        papermill.execute_notebook(
            str(source),
            str(temporary),
            parameters=parameters,
            kernel_name="python3",
            cwd=str(paths.root()),
            progress_bar=sys.stderr.isatty(),
            log_output=False,
        )
        _check_executed(temporary, name)
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(output)
    except PapermillExecutionError as error:
        failed = paths.artifacts() / "failed" / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.ipynb"
        failed.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(failed)
        raise RealignError(
            f"chapter {chapter}: cell {error.exec_count} failed with {error.ename}: {error.evalue} "
            f"(the notebook as far as it ran: {failed})"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return output


def _check_executed(path: Path, name: str) -> None:
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        if cell.get("execution_count") is None:
            raise RealignError(f"chapter {name}: cell {number} did not run; execute the chapter again")
        if any(out["output_type"] == "error" for out in cell["outputs"]):
            raise RealignError(f"chapter {name}: cell {number} ended in an error")


def generate_pages(study: Any) -> None:
    """Write the pages that numbers make (verdicts, configuration, tasks, environment, run times)."""
    from realign.book import pages

    folder = paths.root() / "book" / "_generated"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.generated_pages(study).items():
        temporary = folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)


def build_site(*, strict: bool = True, output: Path | None = None) -> Path:
    """Compile book/ into HTML and return index.html. Needs no network.

    Raises:
        RealignError: on any warning (``strict``) or error, with the last lines of the log.
    """
    root = paths.root()
    output = output or root / "book"
    missing = [n for n in CHAPTERS.values() if not (root / "book" / "chapters" / f"{n}.ipynb").is_file()]
    if missing:
        raise RealignError(f"chapters not executed yet: {', '.join(missing)}; run 'realign book'")
    from realign.book import pages

    pages.copy_mathjax(root / "book")
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(root / "book")]
    command += ["--config", str(root / "_config.yml"), "--path-output", str(output), "-n", "--keep-going"]
    command += ["-W"] if strict else []
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    index = output / "_build" / "html" / "index.html"
    if done.returncode != 0 or not index.is_file():
        lines = [s for s in (done.stdout + done.stderr).splitlines() if "WARNING" in s or "ERROR" in s]
        shown = "\n".join(lines[-20:] or (done.stdout + done.stderr).splitlines()[-20:])
        raise RealignError(f"jupyter-book could not build the site:\n{shown}")
    return index
