"""HRSA comparisons: every pair is computed from what each model's one pass over the texts has left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from realign import config as cfg
from realign import hardware
from realign.errors import RealignError, UsageError
from realign.study.graph import Graph, Node, request
from realign.study.models import Models, Reader
from realign.study.stages.read import Reading

# What a drift node asks of HRSA, beside the defaults of a full comparison.
DRIFT: dict[str, Any] = {"metrics": ("correlation", "cka", "knn", "procrustes", "probe"), "detail": "summary"}
# The settings that a comparison of two readings depends on.
COMPARED = {"cka_tokens", "knn_tokens", "k", "resamples", "seed"}


class Similarity:
    """Reports of model pairs: backbones, embedding models, checkpoints, and a model with itself."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models
        self.reading = Reading(graph, profile, models.family.name)

    def nodes(self) -> list[Node]:
        """Every comparison that the chapters show."""
        return [
            *self.pair_nodes("backbone").values(),
            *self.ceiling_nodes("backbone").values(),
            *(node for pairs in self.mode_nodes().values() for node in pairs.values()),
            *self.drift_nodes().values(),
            *self.pair_nodes("embedding").values(),
            *self.ceiling_nodes("embedding").values(),
            self.map_node(),
        ]

    def _reader(self, kind: str, role: str) -> Reader:
        if kind == "backbone":
            return self.models.read_backbone(self.models.model(role))
        if kind == "embedding":
            return self.models.read_embedding(role, self.profile.seeds[0])
        raise UsageError(f"unknown kind of comparison '{kind}' (use 'backbone' or 'embedding')")

    def pair_nodes(self, kind: str) -> dict[tuple[str, str], Node]:
        """Base against each sibling, before ('backbone') or after ('embedding') contrastive learning."""
        base = self._reader(kind, "base")
        return {("base", role): self.node(base, self._reader(kind, role)) for role in self.models.siblings}

    def comparisons(self, kind: str) -> dict[tuple[str, str], Any]:
        """Reports by pair of roles."""
        return {pair: self._report(node) for pair, node in self.pair_nodes(kind).items()}

    def ceiling_nodes(self, kind: str) -> dict[str, Node]:
        """What stands between a model and itself, by name: how alike two models can be found at all.

        Of backbones: base in the other precision, and base with another batch size. Of embedding
        models: the same recipe from base under two seeds (nothing with one seed).
        """
        base = self._reader(kind, "base")
        if kind == "embedding":
            if len(self.profile.seeds) < 2:
                return {}
            other = self.models.read_embedding("base", self.profile.seeds[1])
            return {"another seed": self.node(base, other)}
        precision: cfg.DType = "float32" if self.profile.hrsa.dtype == "bfloat16" else "bfloat16"
        slow = replace(base, slug=f"{base.slug}-small-batches", batch_tokens=base.batch_tokens // 4)
        cast = self.models.read_backbone(self.models.base, dtype=precision)
        return {
            precision: self.node(base, cast, stage="drift"),
            "another batch size": self.node(base, slow, stage="drift"),
        }

    def ceilings(self, kind: str) -> dict[str, Any]:
        """Reports of the noise ceilings of 'backbone' or 'embedding' models, by name."""
        return {name: self._report(node) for name, node in self.ceiling_nodes(kind).items()}

    def mode_nodes(self) -> dict[cfg.Attention, dict[tuple[str, str], Node]]:
        """Base against each sibling's backbone under either attention mode, cheap metrics."""
        models = {role: self.models.model(role) for role in ("base", *self.models.siblings)}
        found: dict[cfg.Attention, dict[tuple[str, str], Node]] = {}
        for mode in get_args(cfg.Attention):
            # The profile's own mode is read anyway, under its plain name.
            asked = None if mode == self.profile.hrsa.attention else mode
            read = {role: self.models.read_backbone(model, asked) for role, model in models.items()}
            found[mode] = {
                ("base", role): self.node(read["base"], read[role], stage="drift")
                for role in self.models.siblings
            }
        return found

    def modes(self) -> dict[str, dict[tuple[str, str], Any]]:
        """Reports by attention mode and pair of roles."""
        return {
            mode: {pair: self._report(node) for pair, node in nodes.items()}
            for mode, nodes in self.mode_nodes().items()
        }

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
        first, second = self.reading.node(a), self.reading.node(b)

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa

            device = hardware.resolve(self.profile.device).device
            self.reading.check_paired(first, second, (a.slug, b.slug))
            one, two = self.reading.states(first), self.reading.states(second)
            try:
                report = hrsa.compare_activations(
                    one,
                    two,
                    settings,
                    labels=self.reading.labels,
                    probes=self.reading.probes(one, two),
                    device=device,
                    **(DRIFT if stage == "drift" else {}),
                )
            except ValueError as error:  # the array functions know no model names
                raise RealignError(f"{a.slug} and {b.slug} cannot be compared: {error}") from error
            report.save(folder)
            dtypes = " and ".join(dict.fromkeys(report.meta["dtypes"]))
            return {"device": str(device), "dtype": dtypes, "seed": settings.seed}

        return Node(
            request(
                stage,
                f"{self.models.family.name}-{a.slug}-{b.slug}",
                {"hrsa": settings.model_dump(mode="json", include=COMPARED)},
                {"a": first.request.key, "b": second.request.key},
            ),
            build,
            (first, second),
        )

    def map_node(self) -> Node:
        """Distances between all models that the chapters read, and their places on a map."""
        found: list[tuple[str, str, int, Reader]] = []

        def add(role: str, kind: str, number: int, reader: Reader) -> None:
            if all(reader.slug != other.slug for *_, other in found):
                found.append((role, kind, number, reader))

        add("base", "backbone", 0, self.models.read_backbone(self.models.base))
        for (role, step), model in self.models.trajectory().items():
            add(role, "backbone", step, self.models.read_backbone(model))
        for role in self.models.siblings:  # a final model whose steps nobody recorded
            add(role, "backbone", -1, self.models.read_backbone(self.models.model(role)))
        trained = [("base", seed) for seed in self.profile.seeds[:2]]
        for role, seed in [*trained, *((role, self.profile.seeds[0]) for role in self.models.siblings)]:
            add(role, "embedding", seed, self.models.read_embedding(role, seed))
        for role in ("base", *self.models.siblings):
            for step in self.profile.recipe.save_steps:
                add(role, "kept", step, self.models.read_embedding(role, self.profile.seeds[0], step))
        readers = [reader for *_, reader in found]
        nodes = [self.reading.node(reader) for reader in readers]
        settings = self.profile.hrsa

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa

            for reader, node in zip(readers[1:], nodes[1:], strict=True):
                self.reading.check_paired(nodes[0], node, (readers[0].slug, reader.slug))
            states = {r.slug: self.reading.states(n) for r, n in zip(readers, nodes, strict=True)}
            drawn = hrsa.models_map(states, seed=settings.seed)
            facts = pd.DataFrame([place[:3] for place in found], columns=["role", "kind", "number"])
            drawn.places.join(facts).to_csv(folder / "places.csv", index=False, float_format="%.8g")
            drawn.distances.to_csv(folder / "distances.csv", index=False, float_format="%.8g")
            return {"seed": settings.seed, "explained": drawn.explained}

        return Node(
            request(
                "map",
                self.models.family.name,
                {"seed": settings.seed},
                {reader.slug: node.request.key for reader, node in zip(readers, nodes, strict=True)},
            ),
            build,
            tuple(nodes),
        )

    def models_map(self) -> pd.DataFrame:
        """Places of all models on a plane: model, x, y, x_error, y_error, role, kind, number.

        ``number`` is the tuning step of a backbone (-1: unknown), the seed of an embedding model, and the
        training step of one 'kept' on the way (``recipe.save_steps``, first seed); ``attrs`` holds
        'explained', the share of squared distances that the plane shows.
        """
        artifact = self.graph.run(self.map_node())
        places = pd.read_csv(artifact.path / "places.csv")
        places.attrs["explained"] = artifact.manifest["used"]["explained"]
        return places

    def _report(self, node: Node) -> Any:
        from realign import hrsa

        return hrsa.Report.load(self.graph.run(node).path)
