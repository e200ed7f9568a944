"""The README's examples run as they stand (with the smoke profile as the default one)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from realign import config, paths
from realign.models import sources

README = (paths.root() / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def shell_commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("make ")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A copy of the project's files in a directory of its own, with its own store."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("data", "_config.yml", "requirements.lock"):
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


def test_readme_has_examples():
    assert len(shell_commands()) >= 8
    assert len(blocks("python")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", shell_commands())
def test_shell_example_runs(workplace, command):
    folder, environment = workplace
    words = shlex.split(command)
    if words[0] == "papermill":
        words += ["-p", "profile", "smoke"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_python_example_runs(tmp_path):
    for name, seed in (("base", 0), ("tuned", 1)):
        (tmp_path / "my" / name).mkdir(parents=True)
        source = config.Backbone(source=f"random:{seed}/llama")
        sources.materialize(source, tmp_path / "my" / name, cache=tmp_path / "cache")
    (tmp_path / "example.py").write_text(blocks("python")[0])
    environment = {**os.environ, "REALIGN_ROOT": str(paths.root())}
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cka" in done.stdout
    assert (tmp_path / "my" / "report").is_dir()


def test_toml_example_is_a_family(tmp_path):
    (tmp_path / "families.toml").write_text(blocks("toml")[0])
    assert set(config.load_families(tmp_path / "families.toml")["mine"].roles) == {"base", "reason", "sft"}


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (paths.root() / "Makefile").read_text(), flags=re.M))
    named = re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", README, flags=re.M)
    assert {"book", "test"} <= {one or other for one, other in named} <= targets
    assert {"lab", "reproduce", "verify", "publish", "lint", "bench", "clean", "help"} <= targets


def test_every_place_of_the_layout_table_exists():
    table = README.partition("## Layout")[2].partition("## How")[0]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    places = [re.findall("`([^`]+)`", cell) for cell in first]
    named = {name.removeprefix("src/realign/") for row in places for name in row}
    for row in places:
        folder = paths.root() / "src" / "realign" if row[0].startswith("src/realign/") else paths.root()
        for name in row:
            place = folder / name.removeprefix("src/realign/")
            assert place.exists() or place.with_suffix(".py").is_file(), name
    package = (paths.root() / "src" / "realign").iterdir()
    modules = {
        p.name.removesuffix(".py") for p in package if not p.name.startswith(("_", "py.typed", "profiles"))
    }
    assert modules <= named, "a package is missing in the table"
