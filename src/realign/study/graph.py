"""Nodes and how they are run: found in the store, or computed after what they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from realign import texts
from realign.study.store import Artifact, Request, Store

# A stage's number goes up when its code changes what it computes: old artifacts are then not found.
VERSIONS = {
    "backbone": 1,
    "tune": 1,
    "tuning-log": 1,
    "policy": 1,
    "train": 1,
    "training-log": 1,
    "evaluate": 2,
    "read": 1,
    "compare": 3,
    "drift": 3,
    "languages": 1,
    "map": 1,
    "updates": 1,
    "landscape": 1,
    "domains": 1,
}
# Small results, which a profile publishes under data/results; the other stages hold weights.
PUBLISHED = (
    "tuning-log",
    "policy",
    "training-log",
    "evaluate",
    "compare",
    "drift",
    "languages",
    "map",
    "updates",
    "landscape",
    "domains",
)

text_sources = cache(texts.sources)  # reads package metadata, and is asked for by many nodes


def request(stage: str, slug: str, config: dict[str, Any], inputs: dict[str, Any],
            outside: dict[str, str] | None = None) -> Request:  # fmt: skip
    """Build a stage's request with its current version."""
    return Request(stage, VERSIONS[stage], slug, config, inputs, outside or {})


@dataclass(frozen=True)
class Node:
    """One stage: its request, how to compute it into a folder, and what has to exist before."""

    request: Request
    build: Callable[[Path], dict[str, Any] | None] = field(compare=False, repr=False)
    needs: tuple[Node, ...] = field(default=(), compare=False, repr=False)

    @property
    def label(self) -> str:
        """Stage and slug, for progress and errors."""
        return f"{self.request.stage} {self.request.slug}"


class Graph:
    """Runs nodes against a store and remembers what was read."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: dict[str, Artifact] = {}

    def run(self, node: Node) -> Artifact:
        """Return a node's artifact, computing what is missing below it first."""
        key = node.request.key
        if key not in self._read:
            found = self.store.find(node.request)
            if found is None:
                for need in node.needs:
                    self.run(need)
                found = self.store.get(node.request, node.build)
            self._read[key] = found
        return self._read[key]

    def missing(self, nodes: Sequence[Node]) -> list[Node]:
        """Return the nodes that have to be computed for ``nodes``, needs before what needs them."""
        order: dict[str, Node] = {}
        found: set[str] = set()

        def visit(node: Node) -> None:
            key = node.request.key
            if key in order or key in found:
                return
            if self.store.find(node.request) is not None:
                found.add(key)
                return
            for need in node.needs:
                visit(need)
            order[key] = node

        for node in nodes:
            visit(node)
        return list(order.values())

    def provenance(self) -> pd.DataFrame:
        """What was read so far: artifact, stage, key, layer, and how it was computed."""
        rows = []
        for key, artifact in self._read.items():
            manifest = artifact.manifest
            rows.append(
                {
                    "artifact": manifest["slug"],
                    "stage": manifest["stage"],
                    "key": key[:12],
                    "source": artifact.layer,
                    "seconds": manifest["used"].get("wall_seconds", manifest["wall_seconds"]),
                    "device": manifest["used"].get("device", ""),
                    "dtype": str(manifest["used"].get("dtype", "")).removeprefix("torch."),
                    "code": manifest["code"],
                    "started": manifest["started"],
                }
            )
        return pd.DataFrame(rows)
