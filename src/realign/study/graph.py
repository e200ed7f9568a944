"""Nodes and how they are run: looked up in the store, or computed after what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from realign.errors import RealignError
from realign.study.artifact import Artifact, Request
from realign.study.store import Build, Store


@dataclass(frozen=True)
class Node:
    """One result: its request, how to compute it into a folder, and what has to exist before."""

    request: Request
    build: Build = field(compare=False, repr=False)
    needs: tuple[Node, ...] = field(default=(), compare=False, repr=False)

    @property
    def label(self) -> str:
        """Stage and slug, for progress and errors."""
        return f"{self.request.stage} {self.request.slug}"


class Graph:
    """Runs nodes against a store and remembers what was read.

    Attributes:
        compute: whether a missing result is computed; False makes it an error.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.compute = True
        self._read: dict[str, Artifact] = {}

    def run(self, node: Node) -> Artifact:
        """Return a node's artifact, computing what is missing below it first.

        Raises:
            RealignError: it is missing, and ``compute`` is off.
        """
        key = node.request.key
        if key not in self._read:
            artifact = self.store.find(node.request)
            if artifact is None:
                if not self.compute:
                    raise RealignError(f"{node.label} is not in the store: run 'realign book' to compute it")
                for need in node.needs:
                    self.run(need)
                artifact = self.store.get(node.request, node.build)
            self._read[key] = artifact
        return self._read[key]

    def missing(self, nodes: Sequence[Node]) -> list[Node]:
        """Return the nodes that have to be computed for ``nodes``, needs before what needs them."""
        order: dict[str, Node] = {}
        stored: set[str] = set()

        def visit(node: Node) -> None:
            key = node.request.key
            if key in order or key in stored:
                return
            if self.store.find(node.request) is not None:
                stored.add(key)
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
