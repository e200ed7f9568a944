"""The chapters of the book, declared once: file, title, question, claims; parameters come from the notebook.

A chapter is a notebook in notebooks/ with a cell tagged ``parameters``. The table of contents, the home
page and the tests are derived from this list or checked against it, so a new chapter starts here.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from realign import paths
from realign.errors import RealignError, UsageError, unknown

Values = dict[str, Any]  # parameters by name; their types are checked against the defaults
KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a chapter: its default, which also sets the type, and its comment."""

    name: str
    default: object
    help: str

    def check(self, value: object, chapter: str) -> None:
        """Check the type of a value.

        Raises:
            UsageError: for a value of another type than the default's.
        """
        kind = type(self.default)
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise UsageError(
                f"parameter '{self.name}' of chapter {chapter} must be {KINDS.get(kind, kind.__name__)}, "
                f"like {self.default!r}, got {value!r}"
            )


@dataclass(frozen=True)
class Chapter:
    """One chapter.

    Args:
        name: how commands name it, ``rq1``.
        file: the notebook's name without its ending, ``rq1_null_effect``.
        title: its name on a page, ``RQ1``.
        question: the question that it answers, as the home page asks it.
        claims: names in data/claims.toml that it judges.
    """

    name: str
    file: str
    title: str
    question: str
    claims: tuple[str, ...]

    @property
    def source(self) -> Path:
        """The notebook as it is written, jupytext's py:percent."""
        return paths.root() / "notebooks" / f"{self.file}.py"

    @property
    def executed(self) -> Path:
        """The notebook as the book shows it, with outputs."""
        return paths.root() / "book" / "chapters" / f"{self.file}.ipynb"

    @property
    def page(self) -> str:
        """The page's name in the book."""
        return f"chapters/{self.file}"

    def notebook(self) -> nbformat.NotebookNode:
        """Read the source as a notebook without outputs; the same source gives the same notebook."""
        notebook = jupytext.read(self.source)
        notebook.metadata["kernelspec"] = {
            "display_name": "Python 3", "language": "python", "name": "python3",
        }  # fmt: skip
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"{self.name}-{number:03d}"
        return notebook

    def convert(self, folder: Path) -> Path:
        """Write the source as .ipynb into a folder (outputs empty, tags kept) and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self.file}.ipynb"
        jupytext.write(self.notebook(), target, fmt="ipynb")
        return target

    def parameters(self) -> dict[str, Parameter]:
        """Return the parameters by name, as papermill reads them from the tagged cell.

        Raises:
            RealignError: if the notebook has no cell tagged ``parameters``.
        """
        import papermill

        with tempfile.TemporaryDirectory(prefix="realign-") as folder:
            inferred = papermill.inspect_notebook(str(self.convert(Path(folder))))
        if not inferred:
            raise RealignError(f"notebook {self.source.name} must have a cell tagged 'parameters'")
        return {
            name: Parameter(name, ast.literal_eval(row["default"]), row["help"].strip())
            for name, row in inferred.items()
        }

    def complete(self, values: Mapping[str, object]) -> Values:
        """Check names and types of parameters and add the defaults of the others.

        Raises:
            UsageError: for an unknown name (with the nearest one) or a value of another type.
        """
        known = self.parameters()
        for name, value in values.items():
            if name not in known:
                raise unknown(f"parameter of chapter {self.name}", name, known)
            known[name].check(value, self.name)
        return {name: parameter.default for name, parameter in known.items()} | dict(values)

    def executed_with(self) -> Values:
        """Return all parameters that the executed notebook was run with, defaults included."""
        metadata = nbformat.read(self.executed, as_version=4).metadata
        return self.complete(metadata.get("papermill", {}).get("parameters", {}))


CHAPTERS = (
    Chapter(
        "rq1", "rq1_null_effect", "RQ1",
        "Does RLVR give a gain in embedding quality under an identical recipe?",
        ("C1",),
    ),
    Chapter(
        "rq2", "rq2_backbone_geometry", "RQ2",
        "What changes in the latent space, and do RLVR and SFT differ?",
        ("C2", "C3", "C4", "C5"),
    ),
    Chapter("rq3", "rq3_realignment", "RQ3", "Does contrastive learning realign the models?", ("C6",)),
    Chapter("rq4", "rq4_mechanism", "RQ4", "Why is there no gain?", ("C7",)),
)  # fmt: skip


def find(name: str) -> Chapter:
    """Return the chapter of that name; ``rq2`` and ``rq2_backbone_geometry`` are the same.

    Raises:
        UsageError: for an unknown name.
    """
    wanted = name.removesuffix(".py").removesuffix(".ipynb")
    for chapter in CHAPTERS:
        if wanted in (chapter.name, chapter.file):
            return chapter
    raise unknown("chapter", name, [chapter.name for chapter in CHAPTERS])
