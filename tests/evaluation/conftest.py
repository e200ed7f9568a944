"""A tiny random model for the evaluation tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from realign.config import Backbone
from realign.models import loading
from realign.models.embedder import Embedder


@pytest.fixture(scope="session")
def tiny() -> Embedder:
    return Embedder(*loading.load(Backbone(source="random:1/qwen3"), attention="bidirectional"))


@pytest.fixture(scope="session", autouse=True)
def shared_corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Parse the function corpus once for this process and those it starts."""
    patch = pytest.MonkeyPatch()
    if not os.environ.get("REALIGN_CACHE"):
        patch.setenv("REALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
