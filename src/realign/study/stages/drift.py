"""HRSA by all metrics in brief: along tuning, and by attention mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, get_args

import pandas as pd

from realign import config as cfg
from realign.study.graph import Node
from realign.study.stage import concatenate
from realign.study.stages.compare import Extent, Pairs

if TYPE_CHECKING:
    from realign import hrsa


class Drift(Pairs):
    """Reports without grids: base against checkpoints, and against siblings in either mode."""

    name = "drift"
    version = 6
    published = True
    extent: ClassVar[Extent] = "quick"

    def nodes(self) -> list[Node]:
        """Every attention mode, then every checkpoint."""
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
