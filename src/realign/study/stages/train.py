"""Contrastive learning of one embedding model for every role and seed, and the logs of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from realign import config as cfg
from realign import hardware
from realign.errors import unknown
from realign.study.graph import Node
from realign.study.stage import Stage, text_versions
from realign.study.stages.tune import RunLog
from realign.training.run import Run, public_recipe, public_set, seeds_of

if TYPE_CHECKING:
    from realign.models.embedder import Embedder


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
            {"recipe": public_recipe(recipe), "seed": seed},
            {"backbone": model.identity},
            {public_set(name): version for name, version in text_versions(recipe.data).items()},
        )

        def build(folder: Path) -> dict[str, Any]:
            from realign.training import parallel

            compute = hardware.resolve(self.profile.device, recipe.dtype)
            work, local = self.graph.store.work(request), self.models.local(model)
            backbone = self.models.backbone(model)
            parallel.train(Run(backbone, recipe, seed, folder, work, local, self.profile.device))
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": seed}

        return Node(request, build, model.needs)

    def place(self, role: str, seed: int, step: int | None = None) -> tuple[Node, str]:
        """Return the run that trains a model and the model's folder in there, at its end or at a kept step.

        Raises:
            UsageError: an unknown role, or a step that the recipe does not keep.
        """
        run, kept = self.node(role, seed), self.profile.recipe.save_steps
        if step is not None and step not in kept:
            raise unknown("kept step of training", str(step), map(str, kept))
        return run, "model" if step is None else f"step-{step}"

    def open(self, directory: Path, dtype: cfg.DType) -> Embedder:
        """Open a sentence-transformers directory on this hardware."""
        from realign.models.embedder import Embedder

        compute = hardware.resolve(self.profile.device, dtype)
        return Embedder.from_directory(directory, device=str(compute.device), dtype=compute.dtype)


class TrainingLog(RunLog):
    """Step logs of contrastive learning."""

    name = "training-log"
    version = 1
    published = True

    def results(self) -> dict[tuple[str, int], Node]:
        """The log of every training run, by (role, seed)."""
        return {run: self.copy(self.study.train.node(*run), "log.csv") for run in self.study.train.runs}

    def frame(self) -> pd.DataFrame:
        """Role, seed, step, loss and what else was logged."""
        return self.table("log.csv", "role", "seed")
