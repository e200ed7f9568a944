"""JupyterLab: opening, running and saving a chapter leaves its file as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class
from nbformat import v4

from realign import paths
from realign.book.chapters import CHAPTERS, Chapter

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {
    "name": "python",
    "version": "3.13.1",
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "codemirror_mode": {"name": "ipython", "version": 3},
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}


@pytest.mark.parametrize("start", ["", "notebooks"])
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
def test_saving_in_jupyterlab_leaves_the_file_as_it_was(chapter: Chapter, start: str, tmp_path: Path) -> None:
    shutil.copytree(
        paths.root() / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("*.ipynb")
    )
    file = tmp_path / "notebooks" / chapter.source.name
    before = file.read_bytes()
    # As `make lab` starts it (in notebooks/), and from the root of a clone.
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)(root_dir=str(tmp_path / start))
    place = file.relative_to(tmp_path / start).as_posix()
    model = manager.get(place, type="notebook")
    assert "formats" not in model["content"]["metadata"]["jupytext"], "paired with another file"
    assert model["content"]["metadata"]["jupytext"]["text_representation"]["format_name"] == "percent"
    model["content"]["metadata"] |= {"kernelspec": KERNEL, "language_info": LANGUAGE}
    for cell in model["content"]["cells"]:
        cell["metadata"] |= {
            "execution": {"shell.execute_reply": "2026-01-01"},
            "editable": True,
            "trusted": True,
        }
        if cell["cell_type"] == "code":
            cell["execution_count"] = 1
            cell["outputs"] = [v4.new_output("stream", text="ran\n")]
    manager.save(model, place)
    assert file.read_bytes() == before
