"""What travels (models, cards, adapters, manifests, tables) names no place of the machine that made it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from realign import config, paths
from realign.errors import UsageError
from realign.models import sources
from realign.study import open_study
from realign.study.export import export_model
from realign.texts import pairs
from realign.training.run import public_set

PROFILE = """
extends = "smoke"
family = "mine"
roles = ["base", "sft"]
seeds = [0]
suites = ["smoke-code"]
[recipe]
data = ["{data}"]
queries = 16
lora = {{ rank = 2 }}
"""
FAMILY = """
[mine.roles]
base.source = "path:{base}"
[mine.tuning]
sft = {{ method = "sft", steps = 2, batch_size = 4, lora = {{ rank = 2, alpha = 4 }} }}
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project and a store in two places, and a model and a training set in a third."""
    project, place = tmp_path / "project", tmp_path / "outside"
    (project / "data").mkdir(parents=True)
    for file in (paths.data()).glob("*"):
        if file.name not in ("families.toml", "results"):
            (project / "data" / file.name).symlink_to(file)
    base = place / "base"
    base.mkdir(parents=True)
    sources.materialize(config.Backbone(source="random:0/llama"), base, cache=tmp_path / "cache")
    pairs.write(pairs.load("docs").take(24, 0), place / "mine.jsonl")
    (project / "data" / "families.toml").write_text(FAMILY.format(base=base))
    (project / "mine.toml").write_text(PROFILE.format(data=f"file:{place / 'mine.jsonl'}"))
    monkeypatch.setenv("REALIGN_ROOT", str(project))
    monkeypatch.setenv("REALIGN_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("REALIGN_FRESH", "1")
    return place


def naming(folder: Path, places: list[str]) -> list[str]:
    """Files of a folder in which one of the places stands."""
    named = []
    for file in (file for file in folder.rglob("*") if file.is_file()):
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
        named += [f"{file}: {place}" for place in places if place.encode() in content]
    return named


@pytest.mark.slow
def test_models_tuned_trained_and_exported_name_no_place_of_this_machine(
    outside: Path, tmp_path: Path
) -> None:
    study = open_study(str(tmp_path / "project" / "mine.toml"))
    export_model(study, "sft:0", tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "`adapter:tune/mine-sft-" in card
    assert "file:mine.jsonl (sha256 " in card
    adapters = list((tmp_path / "store" / "tune").rglob("README.md"))
    assert len(adapters) == 1
    assert "on `path:base (sha256 " in adapters[0].read_text()
    for folder in (tmp_path / "store", tmp_path / "exported"):
        assert naming(folder, [str(tmp_path), f"{Path.home()}/"]) == []


def test_a_training_set_is_known_by_its_content_wherever_it_lies(outside: Path, tmp_path: Path) -> None:
    def key(name: str) -> str:
        text = PROFILE.format(data=f"file:{name}")
        (tmp_path / "project" / "mine.toml").write_text(text)
        return open_study(str(tmp_path / "project" / "mine.toml")).train.node("base", 0).request.key

    first = key(str(outside / "mine.jsonl"))
    (tmp_path / "elsewhere").mkdir()
    moved = (outside / "mine.jsonl").rename(tmp_path / "elsewhere" / "mine.jsonl")
    assert key(str(moved)) == first
    moved.write_text(moved.read_text() + "\n")
    assert key(str(moved)) != first


@pytest.mark.parametrize(
    ("place", "name"), [("project/a/x.jsonl", "a/x.jsonl"), ("store/x.jsonl", "x.jsonl")]
)
def test_a_file_of_the_project_or_store_is_named_by_its_place_in_there(
    outside: Path, tmp_path: Path, place: str, name: str
) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    assert public_set(f"file:{file}") == f"file:{name}"
    assert public_set("docs") == "docs"


def test_base_alone_is_refused_before_anything_is_computed(outside: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="base alone has nothing to be compared with"):
        open_study("smoke", family="mine", roles=["base"])
    (tmp_path / "project" / "alone.toml").write_text('extends = "smoke"\nfamily = "mine"\nroles = ["base"]')
    study = open_study(str(tmp_path / "project" / "alone.toml"))
    with pytest.raises(UsageError, match="known: base, sft"):
        study.compare.reports("backbone")
    assert not (tmp_path / "store").exists()
