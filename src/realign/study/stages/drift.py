"""HRSA by the metrics that are quick to compute: along tuning, by attention mode, and of noise ceilings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import pandas as pd

from realign import config as cfg
from realign.study.graph import Node
from realign.study.stage import concatenate
from realign.study.stages.compare import Pairs

if TYPE_CHECKING:
    from realign import hrsa


class Drift(Pairs):
    """Reports without grids: base against checkpoints, against siblings in either mode, against itself."""

    name = "drift"
    version = 5
    published = True
    options: ClassVar[dict[str, Any]] = {
        "metrics": ("correlation", "cka", "knn", "r2", "probe_transfer"),
        "detail": "summary",
    }

    def nodes(self) -> list[Node]:
        """Every attention mode, then every checkpoint; the ceilings belong to the stage 'compare'."""
        modes = [node for pairs in self.by_mode().values() for node in pairs.values()]
        return [*modes, *self.by_step().values()]

    def by_step(self) -> dict[tuple[str, int], Node]:
        """Base against every checkpoint, by (role, step)."""
        base = self.models.read_backbone(self.models.base)
        return {
            place: self.node(base, self.models.read_backbone(model))
            for place, model in self.models.trajectory().items()
        }

    def frame(self) -> pd.DataFrame:
        """Representation drift along tuning: role, step, metric (id), at, value, low, high."""
        frames = [
            self.report(node).summary().assign(role=role, step=step)
            for (role, step), node in self.by_step().items()
        ]
        return concatenate(frames, ["metric", "at", "value", "low", "high", "role", "step"])

    def by_mode(self) -> dict[cfg.Attention, dict[tuple[str, str], Node]]:
        """Base against each sibling's backbone, by attention mode and pair of roles."""
        models = {role: self.models.model(role) for role in ("base", *self.models.siblings)}
        nodes: dict[cfg.Attention, dict[tuple[str, str], Node]] = {}
        for mode in get_args(cfg.Attention):
            # The profile's own mode is read anyway, under its plain name.
            asked = None if mode == self.profile.hrsa.attention else mode
            read = {role: self.models.read_backbone(model, asked) for role, model in models.items()}
            nodes[mode] = {
                ("base", role): self.node(read["base"], read[role]) for role in self.models.siblings
            }
        return nodes

    def modes(self) -> dict[str, dict[tuple[str, str], hrsa.Report]]:
        """Reports by attention mode and pair of roles."""
        return {
            mode: {pair: self.report(node) for pair, node in nodes.items()}
            for mode, nodes in self.by_mode().items()
        }

    def ceilings(self) -> dict[str, Node]:
        """Noise ceilings of backbones: base in the other precision, and base with another batch size."""
        base = self.models.read_backbone(self.models.base)
        precision: cfg.DType = "float32" if self.profile.hrsa.dtype == "bfloat16" else "bfloat16"
        cast = self.models.read_backbone(self.models.base, dtype=precision)
        small = replace(base, slug=f"{base.slug}-small-batches", batch_tokens=base.batch_tokens // 4)
        return {precision: self.node(base, cast), "another batch size": self.node(base, small)}
