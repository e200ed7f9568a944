"""RQ4: how far tuning moves the reading of texts like those it trains on, and of others."""

from __future__ import annotations

from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from realign import config as cfg
from realign import hardware, progress, texts
from realign.study.graph import Graph, Node, request, text_sources
from realign.study.models import READ_TOKENS, Model, Models

TASK = "task"  # the domain of the problems that tuning trains on
# The summary of a domain: global, local and basis; probes need more texts than a domain has.
METRICS = ("correlation", "cka", "knn")


class Domains:
    """Similarity to base by domain of text, of the siblings' final models."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models

    def nodes(self) -> dict[str, Node]:
        """Drift by domain of text, of every sibling; controls are left out, a reading of five sets each."""
        return {role: self._node(self.models.model(role)) for role in self.models.siblings}

    def frame(self) -> pd.DataFrame:
        """Similarity to base by domain of text: role, domain, metric, value, low, high."""
        frames = [
            pd.read_csv(self.graph.run(node).path / "domains.csv").assign(role=role)
            for role, node in self.nodes().items()
        ]
        return pd.concat(frames, ignore_index=True)

    def _node(self, model: Model) -> Node:
        settings, read, base = self.profile.mechanism, self.profile.hrsa, self.models.base

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa

            compute = hardware.resolve(self.profile.device, read.dtype)
            other = self._states(model)
            frames = []
            for domain, states in self._base.items():
                report = hrsa.compare_activations(
                    states,
                    other[domain],
                    read.model_copy(update={"resamples": settings.resamples}),
                    metrics=METRICS,
                    detail="summary",
                    device=compute.device,
                )
                frames.append(hrsa.drift_summary(report).assign(domain=domain))
            pd.concat(frames, ignore_index=True).to_csv(folder / "domains.csv", index=False)
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": settings.seed}

        return Node(
            request(
                "domains",
                f"{self.models.family.name}-{model.slug}",
                {
                    "mechanism": settings.model_dump(
                        mode="json", include={"domains", "n_texts", "max_tokens", "resamples", "seed"}
                    ),
                    "hrsa": read.model_dump(
                        mode="json", include={"cka_tokens", "knn_tokens", "k", "attention", "dtype", "seed"}
                    ),
                    "task": self.profile.policy.task,
                    "task_options": self.profile.policy.task_options,
                },
                {"base": base.identity, "model": model.identity},
                {
                    "reasoning-gym": metadata.version("reasoning-gym"),
                    **{k: v for d in settings.domains if d != TASK for k, v in text_sources(d).items()},
                },
            ),
            build,
            (*base.needs, *model.needs),
        )

    @cached_property
    def _base(self) -> dict[str, Any]:
        return self._states(self.models.base)

    def _states(self, model: Model) -> dict[str, Any]:
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
        from realign.behaviour import problems as problem_sets

        settings, policy = self.profile.mechanism, self.profile.policy
        if domain != TASK:
            return texts.load(domain, settings.n_texts, seed=settings.seed).texts
        found = problem_sets.load(policy.task, policy.task_options, "test", settings.n_texts, settings.seed)
        return [f"{p.question} {p.answer}" for p in found]
