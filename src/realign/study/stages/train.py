"""Contrastive learning of one embedding model for every role and seed, and the logs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from realign import hardware
from realign.study.graph import Node
from realign.study.stage import Stage, concatenate, text_versions
from realign.study.stages.tune import RunLog
from realign.training.run import Run, seeds_of


class Train(Stage):
    """An embedding model of one backbone, trained by the profile's recipe with one seed."""

    name = "train"
    version = 1

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every (role, seed) that is trained."""
        return [(role, seed) for role in self.profile.roles for seed in self.profile.seeds]

    def node(self, role: str, seed: int) -> Node:
        """Return the node that trains one model.

        Raises:
            UsageError: an unknown role, or a seed that is not a whole number in the range of seeds.
        """
        seeds_of(seed)
        model, recipe = self.models.model(role), self.profile.recipe
        request = self.request(
            self.slug(role, f"seed{seed}"),
            {"recipe": recipe.model_dump(mode="json"), "seed": seed},
            {"backbone": model.identity},
            text_versions(recipe.data),
        )

        def build(folder: Path) -> dict[str, Any]:
            from realign.training import parallel

            compute = hardware.resolve(self.profile.device, recipe.dtype)
            work, local = self.graph.store.work(request), self.models.local(model)
            backbone = self.models.backbone(model)
            parallel.train(Run(backbone, recipe, seed, folder, work, local, self.profile.device))
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": seed}

        return Node(request, build, model.needs)


class TrainingLog(RunLog):
    """Step logs of contrastive learning."""

    name = "training-log"
    version = 1
    published = True

    def nodes(self) -> list[Node]:
        """The log of every training run."""
        return [self.copy(self.study.train.node(*run), "log.csv") for run in self.study.train.runs]

    def frame(self) -> pd.DataFrame:
        """Role, seed, step, loss and what else was logged."""
        frames = [
            pd.read_csv(self.graph.run(node).path / "log.csv").assign(role=role, seed=seed)
            for (role, seed), node in zip(self.study.train.runs, self.nodes(), strict=True)
        ]
        return concatenate(frames, ["role", "seed", "step", "loss"])
