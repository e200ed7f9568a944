"""What a backbone does as a policy, at every checkpoint of its tuning."""

from __future__ import annotations

import json
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from realign import config as cfg
from realign import hardware
from realign.study.graph import Graph, Node, request
from realign.study.models import Model, Models


class Behaviour:
    """Accuracy, entropy and KL to base of every checkpoint, on problems never trained on."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models

    def nodes(self) -> dict[tuple[str, int], Node]:
        """One measurement per (role, step); base is step 0.

        A sibling that was tuned in another style has a step 0 too: the base, asked in that style.
        """
        found = {("base", 0): self._node(self.models.base, self.profile.policy)}
        for (role, step), model in self.models.trajectory().items():
            settings = self._settings(role)
            if settings.style != self.profile.policy.style and (role, 0) not in found:
                found[role, 0] = self._node(self.models.base, settings)
            found[role, step] = self._node(model, settings)
        return found

    def policy(self) -> pd.DataFrame:
        """Rows of role, step, accuracies with 95% intervals, entropy and KL (nats per token), n."""
        rows = []
        for (role, step), node in self.nodes().items():
            facts = json.loads((self.graph.run(node).path / "policy.json").read_text(encoding="utf-8"))
            rows.append({"role": role, "step": step, **facts})
        return pd.DataFrame(rows)

    @cached_property
    def _reference(self) -> Any:
        """The base as a policy, loaded once for all measurements."""
        return self.models.policy(self.models.base, kernel="eager")[0]

    def _settings(self, role: str) -> cfg.PolicySettings:
        """How a sibling is measured: in the style that it was tuned in, as far as that is known."""
        tuning = self.models.family.tuning.get(role)
        return self.profile.policy if tuning is None else self.profile.policy.for_tuning(tuning)

    def _node(self, model: Model, settings: cfg.PolicySettings) -> Node:
        base = self.models.base

        def build(folder: Path) -> dict[str, Any]:
            from realign.behaviour import policy

            compute = hardware.resolve(self.profile.device, self.profile.dtype)
            result = policy.measure(
                self.models.backbone(model),
                settings,
                local=self.models.local(model),
                reference=self._reference,
                compute=compute,
            )
            pd.DataFrame(result.pop("rows")).to_csv(folder / "problems.csv", index=False)
            text = json.dumps(result, indent=1, sort_keys=True) + "\n"
            (folder / "policy.json").write_text(text, encoding="utf-8")
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": settings.seed}

        return Node(
            request(
                "policy",
                f"{self.models.family.name}-{model.slug}"
                + (f"-{settings.style}" if settings.style != self.profile.policy.style else ""),
                {"policy": settings.model_dump(mode="json"), "dtype": self.profile.dtype},
                {"backbone": model.identity, "reference": base.identity},
                {"reasoning-gym": metadata.version("reasoning-gym")},
            ),
            build,
            (*base.needs, *model.needs),
        )
