"""HRSA comparisons: each model reads the texts once, every pair is computed from what was kept."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pandas as pd

from realign import config as cfg
from realign import hardware, texts
from realign.errors import UsageError
from realign.pipeline.graph import Graph, Node, request
from realign.pipeline.models import Models, Reader
from realign.store import canonical

# States of so many models stay in memory: the base, one sibling, and one to spare.
KEPT = 3


class Similarity:
    """Reports of model pairs: backbones, embedding models, checkpoints."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models
        self._states: OrderedDict[str, Any] = OrderedDict()

    def nodes(self) -> list[Node]:
        """Every comparison that the chapters show."""
        ceiling = self.ceiling_node()
        return [
            *self.pair_nodes("backbone").values(),
            *self.drift_nodes().values(),
            *self.pair_nodes("embedding").values(),
            *([ceiling] if ceiling else []),
        ]

    def pair_nodes(self, kind: str) -> dict[tuple[str, str], Node]:
        """Base against each sibling, before ('backbone') or after ('embedding') contrastive learning."""
        if kind not in ("backbone", "embedding"):
            raise UsageError(f"unknown kind of comparison '{kind}' (use 'backbone' or 'embedding')")

        def reader(role: str) -> Reader:
            if kind == "backbone":
                return self.models.read_backbone(self.models.model(role))
            return self.models.read_embedding(role, self.profile.seeds[0])

        return {("base", role): self.node(reader("base"), reader(role)) for role in self.models.siblings}

    def comparisons(self, kind: str) -> dict[tuple[str, str], Any]:
        """Reports by pair of roles."""
        return {pair: self._report(node) for pair, node in self.pair_nodes(kind).items()}

    def ceiling_node(self) -> Node | None:
        """Base-Emb under two seeds: how far the same recipe lands from itself (None with one seed)."""
        if len(self.profile.seeds) < 2:
            return None
        return self.node(*(self.models.read_embedding("base", seed) for seed in self.profile.seeds[:2]))

    def noise_ceiling(self) -> Any:
        """Report of the same recipe under two seeds, or None when there is one seed."""
        node = self.ceiling_node()
        return None if node is None else self._report(node)

    def drift_nodes(self) -> dict[tuple[str, int], Node]:
        """The cheap metrics of base against every checkpoint, by (role, step)."""
        base = self.models.read_backbone(self.models.base)
        return {
            place: self.node(base, self.models.read_backbone(model), stage="drift")
            for place, model in self.models.trajectory().items()
        }

    def drift(self) -> pd.DataFrame:
        """Representation drift along tuning: role, step, metric, value, low, high."""
        from realign import hrsa

        frames = [
            hrsa.drift_summary(self._report(node)).assign(role=role, step=step)
            for (role, step), node in self.drift_nodes().items()
        ]
        return pd.concat(frames, ignore_index=True)

    def node(self, a: Reader, b: Reader, stage: str = "compare") -> Node:
        """HRSA of two readers; stage 'drift' computes the cheap metrics only."""
        settings = self.profile.hrsa

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa

            compute = hardware.resolve(self.profile.device, settings.dtype)
            metrics = hrsa.DRIFT_METRICS if stage == "drift" else None
            report = hrsa.compare_activations(self._read(a), self._read(b), settings, metrics=metrics)
            report.save(folder)
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": settings.seed}

        names = sorted({*settings.texts, settings.probe_set})
        return Node(
            request(
                stage,
                f"{self.models.family.name}-{a.slug}-{b.slug}",
                {"hrsa": settings.model_dump(mode="json")},
                {"a": a.identity, "b": b.identity},
                {key: value for name in names for key, value in texts.sources(name).items()},
            ),
            build,
            (*a.needs, *b.needs),
        )

    def _read(self, reader: Reader) -> Any:
        """One pass over the texts per model; the states of the last few models stay in memory."""
        from realign import hrsa

        key = canonical(reader.identity)
        if key not in self._states:
            settings = self.profile.hrsa
            sets = [texts.load(name, settings.n_texts, seed=settings.seed) for name in settings.texts]
            probe = texts.load(settings.probe_set, settings.probe_texts, seed=settings.seed)
            model, tokenizer = reader.open()
            while len(self._states) >= KEPT:
                self._states.popitem(last=False)
            self._states[key] = hrsa.collect(model, tokenizer, sets, probe, settings, desc=reader.slug)
        self._states.move_to_end(key)
        return self._states[key]

    def _report(self, node: Node) -> Any:
        from realign import hrsa

        return hrsa.Report.load(self.graph.run(node).path)
