"""A family's members are compared with its base before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from realign.config import Backbone, Family
from realign.models import compatibility, sources


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    monkeypatch.setenv("REALIGN_CACHE", str(tmp_path / "cache"))
    for name in ("base", "other"):
        sources.materialize(Backbone(source="random:0/llama"), tmp_path / name, cache=tmp_path / "cache")
    roles = {
        "base": Backbone(source=f"path:{tmp_path / 'base'}"),
        "reason": Backbone(source=f"path:{tmp_path / 'other'}"),
    }
    return Family(name="mine", roles=roles)


def test_two_directories_of_one_kind_agree(two: Family) -> None:
    assert [row[:2] for row in compatibility.check(two, hub=False)] == [("reason", True)]


def test_another_width_is_named(two: Family) -> None:
    file = Path(two.roles["reason"].location) / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "hidden_size": 2 * config["hidden_size"]}))
    [(role, agrees, why)] = compatibility.check(two, hub=False)
    assert (role, agrees) == ("reason", False)
    assert why.startswith(f"hidden_size is {2 * config['hidden_size']}, and {config['hidden_size']} in base")


def test_another_vocabulary_is_named(two: Family) -> None:
    file = Path(two.roles["reason"].location) / "tokenizer.json"
    data = json.loads(file.read_text())
    words = data["model"]["vocab"]
    first, second = list(words)[:2]
    words[first], words[second] = words[second], words[first]
    file.write_text(json.dumps(data))
    [(_, agrees, why)] = compatibility.check(two, hub=False)
    assert agrees is False
    assert "tokenizers of base and reason disagree" in why


def test_what_cannot_be_had_is_not_called_agreement(two: Family) -> None:
    roles = {"base": Backbone(source="hub:some/base"), "reason": Backbone(source="hub:some/other")}
    assert list(compatibility.check(Family(name="far", roles=roles), hub=False)) == [
        ("reason", None, "the hub is not reachable")
    ]
    gone = {**two.roles, "reason": Backbone(source="path:/no/such/place")}
    [(_, agrees, why)] = compatibility.check(Family(name="gone", roles=gone), hub=False)
    assert agrees is None
    assert "/no/such/place" in why
