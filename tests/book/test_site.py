"""Executing chapters and building the site: only what is whole takes its place, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from realign.book import site
from realign.book.chapters import CHAPTERS
from realign.errors import RealignError, UsageError

HEAD = '# %% tags=["parameters"]\nprofile = "smoke"  # what\nn = 2  # how many\nk = [1]  # sizes\n'
CHAPTER = CHAPTERS[0]


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


def test_parameters_reach_the_notebook_and_the_result_takes_its_place(project):
    root = project("# %%\nprint(n * k[0], profile)\n")
    done = site.execute(CHAPTER, {"n": 3, "k": [7]})
    assert done == root / "book" / "chapters" / "rq1_null_effect.ipynb"
    cells = json.loads(done.read_text())["cells"]
    assert [c["outputs"][0]["text"] for c in cells if c.get("outputs")] == [["21 smoke\n"]]
    assert not list((root / "artifacts" / ".tmp").iterdir())
    assert CHAPTER.executed_with() == {"profile": "smoke", "n": 3, "k": [7]}


def test_a_failing_cell_is_one_sentence_and_the_old_chapter_stays(project):
    root = project("# %%\nprint(1)\n")
    done = site.execute(CHAPTER, {})
    before = done.read_bytes()
    project("# %%\nraise ValueError('no such thing')\n")
    with pytest.raises(RealignError, match=r"chapter rq1: cell \d+ failed with ValueError: no such thing"):
        site.execute(CHAPTER, {})
    assert done.read_bytes() == before
    assert len(list((root / "artifacts" / "failed").glob("*.ipynb"))) == 1


@pytest.mark.parametrize("parameters", [{"m": 1}, {"n": "two"}, {"k": 5}])
def test_wrong_parameters_are_refused_before_anything_runs(project, parameters):
    root = project("# %%\nopen('ran', 'w')\n")
    with pytest.raises(UsageError):
        site.execute(CHAPTER, parameters)
    assert not (root / "ran").exists()


def test_an_executed_chapter_does_not_say_where_and_when_it_ran(project, capfd):
    root = project(
        "# %%\nimport sys, warnings\nwarnings.warn('here')\nprint('x', file=sys.stderr)\nprint(1)\n"
    )
    done = site.execute(CHAPTER, {"n": 3})
    text = done.read_text()
    assert str(root) not in text
    notebook = json.loads(text)
    assert notebook["metadata"]["papermill"] == {"parameters": {"n": 3}}
    assert not any({"papermill", "execution"} & set(cell["metadata"]) for cell in notebook["cells"])
    assert "Kernel is running" not in capfd.readouterr().err


def test_what_killed_runs_left_is_removed_and_a_running_one_is_not(project):
    root = project("# %%\nprint(1)\n")
    temporary = root / "artifacts" / ".tmp"
    for name in ("chapter-rq1-12", "chapter-rq2-34", "another"):
        (temporary / name).mkdir(parents=True)
    with FileLock(f"{temporary / 'chapter-rq2-34'}.lock"):
        site.execute(CHAPTER, {})
        assert sorted(each.name for each in temporary.iterdir() if each.is_dir()) == [
            "another",
            "chapter-rq2-34",
        ]
    site.execute(CHAPTER, {})
    assert [each.name for each in temporary.iterdir()] == ["another"]


def test_building_without_chapters_says_what_is_missing(project):
    project("")
    with pytest.raises(RealignError, match="chapters not executed yet: rq1_null_effect"):
        site.build()


def test_mathjax_is_copied_from_its_wheel(tmp_path: Path) -> None:
    site.copy_mathjax(tmp_path)
    script = tmp_path / "_extra" / "mathjax" / "tex-mml-chtml.js"
    assert script.stat().st_size > 1_000_000
    assert any((script.parent / "output/chtml/fonts/woff-v2").iterdir())
    written = script.stat().st_mtime_ns
    site.copy_mathjax(tmp_path)  # again: nothing to do
    assert script.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["half a script", "a font is missing", "a folder is missing", "killed"])
def test_a_copy_of_mathjax_that_is_not_whole_is_made_again(tmp_path: Path, damage: str) -> None:
    site.copy_mathjax(tmp_path)
    target = tmp_path / "_extra" / "mathjax"
    whole = {file: file.read_bytes() for file in target.rglob("*") if file.is_file()}
    if damage == "half a script":
        (target / "tex-mml-chtml.js").write_bytes(whole[target / "tex-mml-chtml.js"][:1000])
    elif damage == "a font is missing":
        next(target.rglob("*.woff")).unlink()
    elif damage == "a folder is missing":
        shutil.rmtree(target / "input")
    else:
        target.rename(tmp_path / ".mathjax.tmp")
        next((tmp_path / ".mathjax.tmp").rglob("*.woff")).unlink()
    site.copy_mathjax(tmp_path)
    assert {file: file.read_bytes() for file in target.rglob("*") if file.is_file()} == whole
    assert not (tmp_path / ".mathjax.tmp").exists()
