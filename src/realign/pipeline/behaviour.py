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
from realign.pipeline.graph import Graph, Node, request
from realign.pipeline.models import Model, Models


class Behaviour:
    """Accuracy, entropy and KL to base of every checkpoint, on problems never trained on."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models

    def nodes(self) -> dict[tuple[str, int], Node]:
        """One measurement per (role, step); base is step 0."""
        places = {("base", 0): self.models.base, **self.models.trajectory()}
        return {place: self._node(model) for place, model in places.items()}

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

    def _node(self, model: Model) -> Node:
        settings, base = self.profile.policy, self.models.base
        if model.role in self.models.family.tuning:
            settings = settings.for_tuning(self.models.family.tuning[model.role])

        def build(folder: Path) -> dict[str, Any]:
            from realign.tuning import policy

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
                f"{self.models.family.name}-{model.slug}",
                {"policy": settings.model_dump(mode="json"), "dtype": self.profile.dtype},
                {"backbone": model.identity, "reference": base.identity},
                {"reasoning-gym": metadata.version("reasoning-gym")},
            ),
            build,
            (*base.needs, *model.needs),
        )
