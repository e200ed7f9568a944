"""Chapters: parameters are checked before anything runs, and a failed notebook never takes the place of a good one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from realign import paths
from realign.book import chapters
from realign.errors import RealignError, UsageError

HEAD = '# %% tags=["parameters"]\nprofile = "smoke"  # what\nn = 2  # how many\nk = [1]  # sizes\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A project whose rq1 is a notebook of a few lines; gives a function that writes its body."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "families.toml").write_text("")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("REALIGN_ROOT", str(tmp_path))
    monkeypatch.setenv("REALIGN_STORE", str(tmp_path / "artifacts"))

    def write(body: str) -> Path:
        (tmp_path / "notebooks" / "rq1_null_effect.py").write_text(HEAD + body)
        return tmp_path

    return write


def test_every_chapter_has_a_notebook_with_readable_defaults():
    for chapter, name in chapters.CHAPTERS.items():
        assert (paths.root() / "notebooks" / f"{name}.py").is_file()
        assert chapters.default_parameters(chapter)["profile"] == "laptop"


def test_converting_twice_gives_the_same_file(tmp_path):
    first = chapters.convert("rq2", tmp_path / "a").read_bytes()
    assert first == chapters.convert("rq2_backbone_geometry", tmp_path / "b").read_bytes()
    assert all(not cell.get("outputs") for cell in json.loads(first)["cells"])


@pytest.mark.parametrize(
    ("text", "value"), [("[5,20]", [5, 20]), ("3", 3), ("smollm2-135m", "smollm2-135m"), ("true", True)]
)
def test_values_from_the_command_line_are_python_literals_or_text(text, value):
    assert chapters.parse_value(text) == value


def test_parameters_reach_the_notebook_and_the_result_takes_its_place(project):
    root = project("# %%\nprint(n * k[0], profile)\n")
    done = chapters.execute("rq1", {"n": 3, "k": [7]})
    assert done == root / "book" / "chapters" / "rq1_null_effect.ipynb"
    cells = json.loads(done.read_text())["cells"]
    assert [c["outputs"][0]["text"] for c in cells if c.get("outputs")] == [["21 smoke\n"]]
    assert not list((root / "artifacts" / ".tmp").iterdir())


def test_a_failing_cell_is_one_sentence_and_the_old_chapter_stays(project):
    root = project("# %%\nprint(1)\n")
    done = chapters.execute("rq1", {})
    before = done.read_bytes()
    project("# %%\nraise ValueError('no such thing')\n")
    with pytest.raises(RealignError, match=r"chapter rq1: cell \d+ failed with ValueError: no such thing"):
        chapters.execute("rq1", {})
    assert done.read_bytes() == before
    assert len(list((root / "artifacts" / "failed").glob("*.ipynb"))) == 1


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"m": 1}, "unknown parameter of chapter rq1 'm'"),
        ({"n": "two"}, "must be a whole number, like 2, got 'two'"),
        ({"n": True}, "must be a whole number"),
        ({"k": 5}, "must be a list"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(project, parameters, sentence):
    root = project("# %%\nopen('ran', 'w')\n")
    with pytest.raises(UsageError, match=sentence):
        chapters.execute("rq1", parameters)
    assert not (root / "ran").exists()


def test_unknown_chapter_names_the_known_ones():
    with pytest.raises(UsageError, match="rq1, rq2, rq3, rq4"):
        chapters.execute("rq7", {})


def test_building_without_chapters_says_what_is_missing(project):
    project("")
    with pytest.raises(RealignError, match="chapters not executed yet: rq1_null_effect"):
        chapters.build_site()
