"""Tuning of the siblings that the registry does not have, and the logs of it."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from realign import paths
from realign.study.graph import Node
from realign.study.stage import Stage, concatenate


class Tune(Stage):
    """Adapters of a sibling, made as the family's ``tuning`` says."""

    name = "tune"
    version = 1

    def node(self, role: str) -> Node:
        """Return the node that tunes a role from the base."""
        settings, base = self.models.tuning(role), self.models.base
        request = self.request(
            self.slug(role),
            {"settings": settings.model_dump(mode="json")},
            {"base": base.identity},
            {"reasoning-gym": metadata.version("reasoning-gym")},
        )

        def build(folder: Path) -> dict[str, Any]:
            from realign import tuning

            assert base.backbone is not None
            work = self.graph.store.work(request)  # outlives a kill
            tuning.run(base.backbone, settings, work, local=self.models.local(base))
            shutil.copytree(work, folder, dirs_exist_ok=True)
            return {"seed": settings.seed}

        return Node(request, build, base.needs)


class RunLog(Stage):
    """Tables of a run, kept apart from its weights so that they can be published."""

    def copy(self, run: Node, *files: str) -> Node:
        """Return the node that copies the tables of another node."""

        def build(folder: Path) -> dict[str, Any]:
            artifact = self.graph.run(run)
            for file in files:
                if (artifact.path / file).is_file():
                    shutil.copyfile(artifact.path / file, folder / file)
            cost = {name: artifact.manifest[name] for name in ("wall_seconds", "peak_memory_gib")}
            return {**json.loads(json.dumps(artifact.manifest["used"])), **cost}

        return Node(self.request(run.request.slug, {}, {"run": run.request.key}), build, (run,))


class TuningLog(RunLog):
    """How the siblings were tuned; an adapter of the registry comes with tables of its own."""

    name = "tuning-log"
    version = 1
    published = True

    def results(self) -> dict[str, Node]:
        """The logs of every role that is tuned in this study, by role."""
        return {
            role: self.copy(self.study.tune.node(role), "log.csv", "validation.csv")
            for role in self.models.followed
            if role not in self.models.family.roles
        }

    def frame(self, table: str = "log") -> pd.DataFrame:
        """Role, step, and what was logged.

        Args:
            table: "log" (every step) or "validation" (accuracies on validation problems).
        """
        frames = []
        tuned_here = self.results()
        for role in self.models.followed:
            if role in tuned_here:
                file = self.graph.run(tuned_here[role]).path / f"{table}.csv"
            else:
                backbone = self.models.family.backbone(role)
                file = paths.resolve(backbone.location) / f"{table}.csv"
                if backbone.kind != "adapter" or not file.is_file():
                    continue
            frames.append(pd.read_csv(file).assign(role=role))
        return concatenate(frames, ["role", "step"])
