"""Drift by domain of text: problems of the kind that tuning trains on, against other texts."""

from __future__ import annotations

from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from realign import hardware, progress, texts
from realign.config import TASK
from realign.study.graph import Node
from realign.study.models import READ_TOKENS, Model
from realign.study.stage import Stage, text_versions

if TYPE_CHECKING:
    from realign import hrsa

# Probes need more texts than a domain has, and drift along tuning has the other metrics.
METRICS = ("correlation", "cka", "knn")
OWN_SETTINGS = {"domains", "n_texts", "max_tokens", "seed"}
HRSA_SETTINGS = {"cka_tokens", "knn_tokens", "k", "layers", "attention", "dtype", "seed"}


class Domains(Stage):
    """Similarity to base by domain of text, of the siblings' final models."""

    name = "domains"
    version = 4
    published = True

    def results(self) -> dict[str, Node]:
        """One result of every sibling, by role; no controls, as each would have to read five text sets."""
        return {role: self.node(self.models.model(role)) for role in self.models.siblings}

    def frame(self) -> pd.DataFrame:
        """Role, domain, metric (id), at, value, low, high."""
        return self.table("domains.csv", "role")

    def node(self, model: Model) -> Node:
        """Return the node that compares a model with the base on every domain."""
        settings, read, base = self.profile.mechanism, self.profile.hrsa, self.models.base

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa
            from realign.hrsa import geometry

            compute = hardware.resolve(self.profile.device, read.dtype)
            tuned = self._states(model)
            frames = []
            for domain, states in self._base.items():
                report = hrsa.compare_activations(
                    states,
                    tuned[domain],
                    read,
                    metrics=METRICS,
                    detail="summary",
                    sinks=geometry.sink_rows(states),  # of the base, as in every comparison of a study
                    device=compute.device,
                )
                frames.append(report.summary().assign(domain=domain))
            pd.concat(frames, ignore_index=True).to_csv(folder / "domains.csv", index=False)
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": settings.seed}

        config = {
            "mechanism": settings.model_dump(mode="json", include=OWN_SETTINGS),
            "hrsa": read.model_dump(mode="json", include=HRSA_SETTINGS),
            "task": self.profile.policy.task,
            "task_options": self.profile.policy.task_options,
        }
        outside = {
            "reasoning-gym": metadata.version("reasoning-gym"),
            **text_versions(domain for domain in settings.domains if domain != TASK),
        }
        inputs = {"base": base.identity, "model": model.identity}
        request = self.request(self.slug(model.slug), config, inputs, outside)
        return Node(request, build, (*base.needs, *model.needs))

    @cached_property
    def _base(self) -> dict[str, hrsa.Activations]:
        return self._states(self.models.base)

    def _states(self, model: Model) -> dict[str, hrsa.Activations]:
        from realign import hrsa

        settings, read = self.profile.mechanism, self.profile.hrsa
        loaded, tokenizer = self.models.open(model, read.attention, read.dtype)
        return {
            domain: hrsa.collect(
                loaded,
                tokenizer,
                self._texts(domain),
                tokens=max(read.cka_tokens, read.knn_tokens),
                seed=settings.seed,
                max_tokens=settings.max_tokens,
                token_budget=READ_TOKENS,
            )
            for domain in progress.track(
                settings.domains, len(settings.domains), f"domains {model.slug}", "domain"
            )
        }

    def _texts(self, domain: str) -> list[str]:
        from realign.behaviour import problems

        settings, policy = self.profile.mechanism, self.profile.policy
        if domain != TASK:
            return texts.load(domain, settings.n_texts, seed=settings.seed).texts
        asked = problems.load(policy.task, policy.task_options, "test", settings.n_texts, settings.seed)
        return [f"{problem.question} {problem.answer}" for problem in asked]
