"""Where things lie: relative to the project, at home, and nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from realign import paths
from realign.errors import UsageError


def test_a_relative_location_is_relative_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALIGN_ROOT", str(tmp_path))
    assert paths.resolve("data/x") == tmp_path / "data" / "x"
    assert paths.resolve("/data/x") == Path("/data/x")


def test_a_tilde_is_the_home_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REALIGN_STORE", "~/store")
    assert paths.artifacts() == tmp_path / "store"
    assert paths.resolve("~/model") == tmp_path / "model"


def test_the_home_of_nobody_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="'~nobody-of-that-name/x' begins with the home of a user"):
        paths.resolve("~nobody-of-that-name/x")
