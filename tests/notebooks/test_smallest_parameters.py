"""Every chapter renders at the smallest value of each of its parameters, or refuses it before anything is computed."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import jupytext
import pytest
from matplotlib.figure import Figure

from realign.book.chapters import CHAPTERS, Chapter
from realign.errors import UsageError
from realign.findings.similarity import NO_PROBE
from realign.study import open_study

SMALLEST: dict[str, Any] = {
    "profile": "smoke",
    "family": "tiny-llama",
    "roles": ["base", "sft"],
    "seeds": [0],
    "texts": ["messages"],
    "n_texts": 4,
    "k": [1],
    "attention": "causal",
    "controls": ["sft"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all chapters: what one has trained, the next one reads."""
    return tmp_path_factory.mktemp("store")


def rendered(chapter: Chapter, values: dict[str, Any]) -> list[str]:
    """Run the cells of a chapter with parameters; what each cell that ends in a value shows."""
    scope: dict[str, Any] = {}
    shown = []
    for cell in jupytext.read(chapter.source).cells:
        if cell.cell_type != "code":
            continue
        if "parameters" in cell.metadata.get("tags", []):
            scope.update(chapter.complete(values))
            continue
        tree = ast.parse(cell.source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, chapter.file, "exec"), scope)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), chapter.file, "eval"), scope)
            if isinstance(value, Figure):
                value.savefig(io.BytesIO(), format="svg")
                shown.append(" ".join(text.get_text() for text in value.texts))
            else:
                html = getattr(value, "_repr_html_", None) or getattr(value, "_repr_markdown_", str)
                shown.append(html() or "")
    return shown


def test_every_parameter_has_a_smallest_value_here() -> None:
    assert {name for chapter in CHAPTERS for name in chapter.parameters()} == set(SMALLEST)


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
def test_a_chapter_renders_with_all_parameters_at_their_smallest(
    chapter: Chapter, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALIGN_STORE", str(store))
    monkeypatch.setenv("REALIGN_FRESH", "1")
    known = chapter.parameters()
    shown = rendered(chapter, {name: value for name, value in SMALLEST.items() if name in known})
    assert len(shown) > 5
    if "probes(" in chapter.source.read_text(encoding="utf-8"):
        assert any(NO_PROBE in each for each in shown)


@pytest.mark.parametrize(
    ("name", "value"),
    [("roles", ["base"]), ("n_texts", 3), ("k", [0]), ("seeds", [-1]), ("texts", [""]), ("attention", "x")],
)
def test_what_is_below_the_smallest_is_refused_before_anything_is_computed(
    own_store: Path, name: str, value: object
) -> None:
    with pytest.raises(UsageError) as caught:
        open_study(**{**SMALLEST, name: value})
    assert "\n" not in str(caught.value)
    assert not own_store.exists()
