"""What the backbones do as policies, at every checkpoint of tuning."""

from __future__ import annotations

import json
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from realign import config as cfg
from realign import hardware, texts
from realign.study.graph import Node
from realign.study.models import Model
from realign.study.stage import Stage, text_versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


NEUTRAL = "docs"
"""The text set that is far from the problems."""


class Policy(Stage):
    """Accuracy, entropy and KL to base of every checkpoint, on problems never trained on."""

    name = "policy"
    version = 2
    published = True

    def results(self) -> dict[tuple[str, int], Node]:
        """One measurement of every checkpoint, by (role, step); base is step 0.

        A sibling that was tuned in another style has a step 0 too: the base, asked in that style.
        """
        nodes = {("base", 0): self.node(self.models.base, self.profile.policy)}
        for (role, step), model in self.models.trajectory().items():
            settings = self._settings(role)
            if settings.style != self.profile.policy.style and (role, 0) not in nodes:
                nodes[role, 0] = self.node(self.models.base, settings)
            nodes[role, step] = self.node(model, settings)
        return nodes

    def frame(self) -> pd.DataFrame:
        """Role, step, accuracies with 95% intervals, entropy and KL to base (nats per token), n, divergence on common texts."""
        rows = []
        for (role, step), node in self.results().items():
            measured = json.loads((self.graph.run(node).path / "policy.json").read_text(encoding="utf-8"))
            rows.append({"role": role, "step": step, **measured})
        return pd.DataFrame(rows)

    @cached_property
    def _reference(self) -> PreTrainedModel:
        """The base as a policy, loaded once for all measurements."""
        return self.models.open_policy(self.models.base, kernel="eager")[0]

    def _settings(self, role: str) -> cfg.PolicySettings:
        """How a role is measured: in the style that it was tuned in, where the family says which."""
        settings = self.models.family.tuning.get(role)
        return self.profile.policy if settings is None else self.profile.policy.for_tuning(settings)

    def node(self, model: Model, settings: cfg.PolicySettings) -> Node:
        """Return the node that measures one model."""
        base = self.models.base

        def build(folder: Path) -> dict[str, Any]:
            from realign.behaviour import divergence, policy

            compute = hardware.resolve(self.profile.device, self.profile.dtype)
            opened, tokenizer = self.models.open_policy(model, kernel="eager")
            problems = policy.problems_of(settings, tokenizer, "test", settings.problems)
            result = policy.measure_model(opened, tokenizer, problems, settings, base=self._reference)
            common = {
                "task": [(p.prompt, p.solution) for p in problems[: settings.common]],
                "neutral": [
                    ("", text) for text in texts.load(NEUTRAL, settings.common, seed=settings.seed).texts
                ],
            }
            result |= divergence.divergence(opened, self._reference, tokenizer, common)
            pd.DataFrame(result.pop("rows")).to_csv(folder / "problems.csv", index=False)
            text = json.dumps(result, indent=1, sort_keys=True) + "\n"
            (folder / "policy.json").write_text(text, encoding="utf-8")
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": settings.seed}

        other_style = [settings.style] * (settings.style != self.profile.policy.style)
        request = self.request(
            self.slug(model.slug, *other_style),
            {"policy": settings.model_dump(mode="json"), "dtype": self.profile.dtype},
            {"backbone": model.identity, "reference": base.identity},
            {"reasoning-gym": metadata.version("reasoning-gym"), **text_versions([NEUTRAL])},
        )
        return Node(request, build, (*base.needs, *model.needs))
