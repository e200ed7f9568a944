"""The README's examples run as they stand; its commands are run in test_documented_commands.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from realign import config, paths
from realign.models import sources

README = (paths.root() / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def test_readme_has_examples():
    assert len(blocks("bash")) == 3
    assert len(blocks("python")) == 1


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
