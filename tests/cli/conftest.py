"""A place in which documented commands run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from realign import paths


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A copy of the project's files in a directory of its own, with its own store, and smoke as the default profile."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("data", "_config.yml", "requirements.lock", "Makefile", "pyproject.toml", "src"):
        (folder / name).symlink_to(paths.root() / name)
    # As in a clean clone: what was executed and built here does not count.
    made = shutil.ignore_patterns("_build", "_generated", "_extra", "chapters", "*.ipynb")
    for name in ("notebooks", "book"):
        shutil.copytree(paths.root() / name, folder / name, ignore=made)
    scripts = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "REALIGN_ROOT": str(folder),
        "REALIGN_STORE": str(folder / "artifacts"),
        "REALIGN_FRESH": "1",
        "REALIGN_PROFILE": "smoke",
        "PATH": scripts + os.pathsep + os.environ["PATH"],
    }
    return folder, environment
