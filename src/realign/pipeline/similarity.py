"""HRSA comparisons: each model reads the texts once, every pair is computed from what was kept."""

from __future__ import annotations

from collections import Counter, OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from realign import backbones, hardware, progress, texts
from realign import config as cfg
from realign.errors import RealignError, UsageError
from realign.pipeline.graph import Graph, Node, request, text_sources
from realign.pipeline.models import Models, Reader
from realign.store import canonical

# States of so many models stay in memory: the base, one sibling, and one to spare.
KEPT = 3
FEWEST = 10
# Padded tokens of one forward pass: the states of all layers are returned at once, so few at a time.
READ_TOKENS = 1024
# What a drift node asks of HRSA, beside the defaults of a full comparison.
DRIFT: dict[str, Any] = {"metrics": ("correlation", "cka", "knn", "procrustes", "probe"), "detail": "summary"}


class Similarity:
    """Reports of model pairs: backbones, embedding models, checkpoints."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models
        self._states: OrderedDict[str, tuple[Any, Any]] = OrderedDict()

    def nodes(self) -> list[Node]:
        """Every comparison that the chapters show."""
        ceiling = self.ceiling_node()
        return [
            *self.pair_nodes("backbone").values(),
            # Final models first: their states are still in memory.
            *sorted(self.drift_nodes().values(), key=lambda n: "-step" in n.request.slug),
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
        first, second = (self.models.read_embedding("base", seed) for seed in self.profile.seeds[:2])
        return self.node(first, second)

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
            (first, tokenizer), (second, other) = self._read(a), self._read(b)
            backbones.check_same_tokenizer(tokenizer, other, (a.slug, b.slug))
            try:
                report = hrsa.compare_activations(
                    first,
                    second,
                    settings,
                    labels=[
                        f"{s.name}: {label}" for s in self.sets for label in s.labels or [""] * len(s.texts)
                    ],
                    probes=self._probes(first, second),
                    device=compute.device,
                    **(DRIFT if stage == "drift" else {}),
                )
            except ValueError as error:  # the array functions know no model names
                raise RealignError(f"{a.slug} and {b.slug} cannot be compared: {error}") from error
            report.save(folder)
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": settings.seed}

        return Node(
            request(
                stage,
                f"{self.models.family.name}-{a.slug}-{b.slug}",
                {"hrsa": settings.model_dump(mode="json")},
                {"a": a.identity, "b": b.identity},
                {key: value for name in settings.texts for key, value in text_sources(name).items()},
            ),
            build,
            (*a.needs, *b.needs),
        )

    @cached_property
    def sets(self) -> list[texts.TextSet]:
        """The text sets that are read."""
        settings = self.profile.hrsa
        return [texts.load(name, settings.n_texts, seed=settings.seed) for name in settings.texts]

    def _probes(self, a: Any, b: Any) -> dict[str, Any]:
        """Labelled text embeddings (mean-pooled last layer) of every text set that has classes.

        Classes with fewer than FEWEST texts are left out: the paper's split has ten folds.
        """
        from realign import hrsa

        found, start = {}, 0
        for each in self.sets:
            counts = Counter(each.labels)
            kept = [i for i, label in enumerate(each.labels) if counts[label] >= FEWEST]
            rows = [start + i for i in kept]
            start += len(each.texts)
            if len({each.labels[i] for i in kept}) > 1:
                found[each.name] = hrsa.Probe(
                    a.pooled[-1][rows],
                    b.pooled[-1][rows],
                    [each.labels[i] for i in kept],
                    [each.groups[i] for i in kept] if each.groups else None,
                )
        return found

    def _read(self, reader: Reader) -> tuple[Any, Any]:
        """States and tokenizer: one pass over the texts per model, of which the last few stay in memory."""
        from realign import hrsa

        key = canonical(reader.identity)
        if key not in self._states:
            settings = self.profile.hrsa
            read = [text for each in self.sets for text in each.texts]
            model, tokenizer = reader.open()
            while len(self._states) >= KEPT:
                self._states.popitem(last=False)
            states = hrsa.collect(
                model,
                tokenizer,
                read,
                tokens=max(settings.cka_tokens, settings.knn_tokens),
                seed=settings.seed,
                max_tokens=settings.max_tokens,
                token_budget=READ_TOKENS,
                progress=lambda batches, total, desc: progress.track(
                    batches, total, f"read {reader.slug}", "batch"
                ),
            )
            self._states[key] = states, tokenizer
        self._states.move_to_end(key)
        return self._states[key]

    def _report(self, node: Node) -> Any:
        from realign import hrsa

        return hrsa.Report.load(self.graph.run(node).path)
