"""The map of models: distances between all that the chapters read, and their places on a plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from realign.study.graph import Node
from realign.study.models import Reader
from realign.study.stage import Stage

PARTS = 10  # of the texts, left out in turn; fewer where there are fewer texts


class Map(Stage):
    """Places of all models on a plane."""

    name = "map"
    version = 2
    published = True

    def results(self) -> dict[str, Node]:
        """One map of all models."""
        return {"": self.node()}

    def readers(self) -> list[tuple[str, str, int, Reader]]:
        """Every model that is placed: role, kind, number and how it is read, each model once.

        The number is the tuning step of a 'backbone' (-1: unknown), the seed of an 'embedding' model, and
        the training step of one 'kept' on the way (``recipe.save_steps``, first seed).
        """
        models, seeds = self.models, self.profile.seeds
        rows = [("base", "backbone", 0, models.read_backbone(models.base))]
        for (role, step), model in models.trajectory().items():
            rows.append((role, "backbone", step, models.read_backbone(model)))
        for role in models.siblings:  # a final model whose steps nobody recorded
            rows.append((role, "backbone", -1, models.read_backbone(models.model(role))))
        trained = [*(("base", seed) for seed in seeds[:2]), *((role, seeds[0]) for role in models.siblings)]
        for role, seed in trained:
            rows.append((role, "embedding", seed, models.read_embedding(role, seed)))
        for role in ("base", *models.siblings):
            for step in self.profile.recipe.save_steps:
                rows.append((role, "kept", step, models.read_embedding(role, seeds[0], step)))
        first: dict[str, tuple[str, str, int, Reader]] = {}
        for row in rows:
            first.setdefault(row[-1].slug, row)
        return list(first.values())

    def node(self) -> Node:
        """Return the node that draws the map."""
        rows, read = self.readers(), self.study.read
        seed, count = self.profile.hrsa.seed, self.profile.hrsa.layers
        nodes = {reader.slug: read.node(reader) for *_, reader in rows}

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa
            from realign.hrsa.pair import evenly

            first, *others = nodes
            for other in others:
                read.check_paired(nodes[first], nodes[other], (first, other))
            states = {name: read.states(node) for name, node in nodes.items()}
            parts = min(PARTS, len(states[first].text_keys))
            layers = evenly(len(states[first].states), count)
            drawn = hrsa.models_map(states, layers=layers, parts=parts, seed=seed)
            about = pd.DataFrame([row[:3] for row in rows], columns=["role", "kind", "number"])
            drawn.places.join(about).to_csv(folder / "places.csv", index=False, float_format="%.8g")
            drawn.distances.to_csv(folder / "distances.csv", index=False, float_format="%.8g")
            return {"seed": seed, "explained": drawn.explained}

        inputs = {name: node.request.key for name, node in nodes.items()}
        return Node(
            self.request(self.slug(), {"seed": seed, "layers": count}, inputs), build, tuple(nodes.values())
        )

    def frame(self) -> pd.DataFrame:
        """Model, x, y, x_error, y_error, role, kind, number; see :meth:`readers`.

        ``attrs`` holds 'explained', the share of squared distances that the plane shows.
        """
        artifact = self.graph.run(self.node())
        places = pd.read_csv(artifact.path / "places.csv")
        places.attrs["explained"] = artifact.manifest["used"]["explained"]
        return places
