"""Chapters: declared once, and their parameters are checked before anything runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from realign import paths
from realign.book import chapters
from realign.book.chapters import CHAPTERS, Chapter
from realign.errors import RealignError, UsageError
from realign.findings import claims

HEAD = '# %% tags=["parameters"]\nprofile = "smoke"  # what\nn = 2  # how many\nk = [1]  # sizes\n'
each = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)


@pytest.fixture
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chapter:
    """rq1 of a project of its own, with a notebook of a few lines."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "families.toml").write_text("")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "rq1_null_effect.py").write_text(HEAD)
    monkeypatch.setenv("REALIGN_ROOT", str(tmp_path))
    return CHAPTERS[0]


@each
def test_every_chapter_has_a_notebook_with_readable_defaults(chapter: Chapter) -> None:
    assert chapter.source.is_file()
    parameters = chapter.parameters()
    assert parameters["profile"].default == "laptop"
    assert all(len(parameter.help) > 10 for parameter in parameters.values())


def test_every_notebook_is_a_chapter() -> None:
    assert sorted(chapter.source for chapter in CHAPTERS) == sorted((paths.root() / "notebooks").glob("*.py"))


def test_the_table_of_contents_has_the_chapters_in_order() -> None:
    contents = yaml.safe_load((paths.root() / "book" / "_toc.yml").read_text(encoding="utf-8"))
    files = [
        page["file"]
        for part in contents["parts"]
        for chapter in part["chapters"]
        for page in (chapter, *chapter.get("sections", []))
    ]
    assert [file for file in files if file.startswith("chapters/")] == [chapter.page for chapter in CHAPTERS]
    for file in set(files) - {chapter.page for chapter in CHAPTERS}:
        assert (paths.root() / "book" / f"{file}.md").is_file(), file


@each
def test_a_chapter_judges_the_claims_that_it_declares(chapter: Chapter) -> None:
    judged = re.findall(r'"(C\d+)"', chapter.source.read_text(encoding="utf-8"))
    assert sorted(judged) == sorted(chapter.claims)
    assert {claims.load()[claim].rq for claim in chapter.claims} == {chapter.title}


def test_every_claim_has_one_chapter() -> None:
    assert sorted(claim for chapter in CHAPTERS for claim in chapter.claims) == sorted(claims.load())


@each
def test_a_chapter_can_be_named_by_its_file(chapter: Chapter) -> None:
    for name in (chapter.name, chapter.file, f"{chapter.file}.py", f"{chapter.file}.ipynb"):
        assert chapters.find(name) is chapter


def test_unknown_chapter_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="rq1, rq2, rq3, rq4"):
        chapters.find("rq7")


def test_converting_twice_gives_the_same_file(tmp_path: Path) -> None:
    first = CHAPTERS[1].convert(tmp_path / "a").read_bytes()
    assert first == CHAPTERS[1].convert(tmp_path / "b").read_bytes()
    assert all(not cell.get("outputs") for cell in json.loads(first)["cells"])


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"m": 1}, "unknown parameter of chapter rq1 'm'"),
        ({"n": "two"}, "must be a whole number, like 2, got 'two'"),
        ({"n": True}, "must be a whole number"),
        ({"n": 2.0}, "must be a whole number"),
        ({"k": 5}, "must be a list"),
        ({"profile": None}, "must be text"),
    ],
)
def test_wrong_parameters_are_refused(chapter: Chapter, parameters: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        chapter.complete(parameters)


def test_defaults_complete_the_parameters(chapter: Chapter) -> None:
    assert chapter.complete({"n": 3}) == {"profile": "smoke", "n": 3, "k": [1]}


def test_a_notebook_without_parameters_is_refused(chapter: Chapter) -> None:
    chapter.source.write_text("# %%\nprint(1)\n")
    with pytest.raises(RealignError, match=r"rq1_null_effect\.py must have a cell tagged 'parameters'"):
        chapter.parameters()
