"""What tuning did to the weights: the update of every linear layer of every followed role."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from realign import progress
from realign.models import loading
from realign.models.sources import existing_directory
from realign.study.graph import Node
from realign.study.models import Model
from realign.study.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class Updates(Stage):
    """Updates of all followed roles together, as their directions are compared."""

    name = "updates"
    version = 1
    published = True

    def results(self) -> dict[str, Node]:
        """One result of all siblings, if there is any."""
        return {"": self.node()} if self.models.finals else {}

    def node(self) -> Node:
        """Return the node that compares the weights of every final model with the base's."""
        finals = self.models.finals
        models = {"base": self.models.base, **finals}

        def build(folder: Path) -> dict[str, Any]:
            from realign.behaviour import updates

            base = self._state(self.models.base)
            by_role = {
                role: updates.updates(base, self._state(model), rank=self._rank(model))
                for role, model in progress.track(finals.items(), len(finals), "updates", "model")
            }
            tables = [updates.table(each).assign(role=role) for role, each in by_role.items()]
            pd.concat(tables).to_csv(folder / "updates.csv", index=False)
            pairs = [
                updates.agreement(by_role[a], by_role[b]).assign(a=a, b=b)
                for a, b in combinations(by_role, 2)
            ]
            if pairs:
                pd.concat(pairs).to_csv(folder / "agreement.csv", index=False)
            return {}

        identities = {role: model.identity for role, model in models.items()}
        request = self.request(self.slug(), {"roles": list(finals)}, identities)
        return Node(request, build, tuple(need for model in models.values() for need in model.needs))

    def frame(self) -> pd.DataFrame:
        """Updates by role and matrix; see :func:`realign.behaviour.updates.table`."""
        return pd.read_csv(self.graph.run(self.node()).path / "updates.csv")

    def agreement(self) -> pd.DataFrame:
        """Agreement of the directions of two roles' updates (a, b) by matrix; empty for one sibling."""
        file = self.graph.run(self.node()).path / "agreement.csv"
        return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["a", "b", "left", "right"])

    def _state(self, model: Model) -> dict[str, Tensor]:
        loaded, _ = loading.load_lm(self.models.backbone(model), local=self.models.local(model))
        state: dict[str, Tensor] = loaded.state_dict()
        return state

    def _rank(self, model: Model) -> int | None:
        """The rank of an adapter; None for a model that was tuned in full or elsewhere."""
        backbone = self.models.backbone(model)
        if backbone.kind != "adapter":
            return None
        written = (existing_directory(backbone) / "adapter_config.json").read_text(encoding="utf-8")
        return int(json.loads(written)["r"])
