"""Landscape and trajectories: how tuned models read the base's texts, and where their own texts go."""

from __future__ import annotations

import gc
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from realign import hardware, progress
from realign.study.graph import Node
from realign.study.models import Model
from realign.study.stage import Stage, concatenate, text_versions

if TYPE_CHECKING:
    from realign.behaviour.trajectories import BaseOnMap

NATURAL = "docs"  # the text set whose beginnings are continued, beside the problems


class Landscape(Stage):
    """Landscape and trajectories of every followed role's final model, against the base."""

    name = "landscape"
    version = 1
    published = True

    def results(self) -> dict[str, Node]:
        """One result of every followed role, by role."""
        return {role: self.node(model) for role, model in self.models.finals.items()}

    def frame(self, table: str = "measures") -> pd.DataFrame:
        """What was measured, with a column role.

        Args:
            table: "measures" (domain, measure, value, low, high, null) or "points" (domain, text, token,
                x, y, on the first two axes of the map; roles 'base' and 'fixed texts' too).
        """
        frames = []
        for role, node in self.results().items():
            frame = pd.read_csv(self.graph.run(node).path / f"{table}.csv")
            frames.append(frame.assign(role=role) if "role" not in frame else frame)
        return concatenate(frames, ["role", "domain"]).drop_duplicates(ignore_index=True)

    def node(self, model: Model) -> Node:
        """Return the node that measures one model."""
        settings, policy, base = self.profile.mechanism, self.profile.policy, self.models.base

        def build(folder: Path) -> dict[str, Any]:
            from realign.behaviour import trajectories

            base_on_map = self._base
            tuned, _ = self.models.open_policy(model)
            measures, points = trajectories.compare(
                base_on_map,
                tuned,
                settings,
                name=model.slug,
                progress=lambda domains: progress.track(
                    domains, len(domains), f"landscape {model.slug}", "domain"
                ),
            )
            del tuned
            gc.collect()
            measures.to_csv(folder / "measures.csv", index=False)
            points.round(4).to_csv(folder / "points.csv", index=False)
            compute = hardware.resolve(self.profile.device, self.profile.dtype)
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": settings.seed}

        config = {
            "mechanism": settings.model_dump(mode="json", exclude={"domains", "n_texts"}),
            "task": policy.task,
            "task_options": policy.task_options,
            "dtype": self.profile.dtype,
        }
        outside = {**text_versions([NATURAL]), "reasoning-gym": metadata.version("reasoning-gym")}
        inputs = {"base": base.identity, "model": model.identity}
        request = self.request(self.slug(model.slug), config, inputs, outside)
        return Node(request, build, (*base.needs, *model.needs))

    @cached_property
    def _base(self) -> BaseOnMap:
        """The base on its own map, computed once for all models."""
        from realign.behaviour import trajectories

        model, tokenizer = self.models.open_policy(self.models.base)
        settings, policy = self.profile.mechanism, self.profile.policy
        material = trajectories.material(tokenizer, settings, policy, natural=NATURAL)
        return trajectories.base_on_map(model, tokenizer, material, settings)
