"""Evaluation: one stored result per (model, task, prompt, precision policy, data, mteb version)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from realign import backbones, hardware
from realign import config as cfg
from realign.evaluation import suites
from realign.pipeline.graph import Graph, Node, request
from realign.pipeline.models import Model, Models

BASELINES = ("bm25", "random")
RANKING = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")

data_sources = cache(suites.sources)  # reads the metadata of a dozen packages, for hundreds of nodes


class Scoring:
    """Scores of baselines, untrained backbones and trained models on the profile's suites."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models
        self._encoder: tuple[str, Any] | None = None
        self._suites: dict[str, Any] = {}
        self._prompts: dict[str, Mapping[str, str]] = {}

    def nodes(self) -> list[Node]:
        """Every (model, task) result that the profile asks for."""
        return [node for node, _ in self._wanted()]

    def scores(self) -> pd.DataFrame:
        """Scores (0-100): model, role, seed, suite, task, type, subset, metric, score."""
        frames = [
            pd.read_csv(self.graph.run(node).path / "scores.csv").assign(**labels)
            for node, labels in self._wanted()
        ]
        return pd.concat(frames, ignore_index=True)

    def evaluate(self, reference: str, suite: str) -> pd.DataFrame:
        """Score one model (``ROLE``, ``ROLE:SEED`` or a sentence-transformers directory) on one suite."""
        subject = self._subject(reference)
        frames = [
            pd.read_csv(self.graph.run(self._node(suite, task, *subject)).path / "scores.csv")
            for task in suites.task_names(suite)
        ]
        return pd.concat(frames, ignore_index=True)

    def _wanted(self) -> Iterator[tuple[Node, dict[str, Any]]]:
        """Yield nodes with their labels model by model, so that one model at a time is in memory."""
        pairs = [(suite, task) for suite in self.profile.suites for task in suites.task_names(suite)]
        for name in BASELINES:
            for suite, task in pairs:
                if name != "bm25" or self._type(suite, task) in RANKING:
                    labels = {"model": name, "role": "", "seed": -1, "suite": suite}
                    yield self._node(suite, task, *self._baseline(name)), labels
        for role in self.profile.roles:
            subject = self._untrained(self.models.model(role))
            for suite, task in pairs:
                labels = {"model": "untrained", "role": role, "seed": -1, "suite": suite}
                yield self._node(suite, task, *subject), labels
        for role, seed in self.models.runs:
            subject = self._trained(role, seed)
            for suite, task in pairs:
                labels = {"model": "emb", "role": role, "seed": seed, "suite": suite}
                yield self._node(suite, task, *subject), labels

    def _node(
        self,
        suite: str,
        task: str,
        slug: str,
        identity: dict[str, Any],
        load: Callable[[], Any],
        needs: tuple[Node, ...],
    ) -> Node:
        def build(folder: Path) -> dict[str, Any]:
            from realign.evaluation import run

            found = {t.metadata.name: t for t in self._loaded(suite).tasks}
            result = run.evaluate_task(load(), found[task], suite=suite)
            result.scores.to_csv(folder / "scores.csv", index=False)
            result.items.to_csv(
                folder / "items.csv.gz", index=False, compression={"method": "gzip", "mtime": 0}
            )
            compute = hardware.resolve(self.profile.device, self.profile.dtype)
            return {**result.manifest, "device": str(compute.device), "dtype": str(compute.dtype)}

        config = {
            "suite": suite,
            "task": task,
            "instruction": self._instructions(suite)[task],
            "dtype": self.profile.dtype,
            "max_tokens": self.profile.recipe.max_passage_tokens,
        }
        asked = request("evaluate", f"{slug}-{task}", config, identity, data_sources(suite))
        return Node(asked, build, needs)

    # -- subjects: (slug, identity, how to load, what is needed)
    def _baseline(self, name: str) -> tuple[str, dict[str, Any], Callable[[], Any], tuple[Node, ...]]:
        def load() -> Any:
            from realign.evaluation import baselines
            from realign.evaluation.encoder import TaskEncoder

            if name == "bm25":
                return baselines.BM25()
            return TaskEncoder(baselines.RandomVectors(), revision=name)

        return name, {"baseline": name}, load, ()

    def _untrained(self, model: Model) -> tuple[str, dict[str, Any], Callable[[], Any], tuple[Node, ...]]:
        recipe = self.profile.recipe

        def make() -> Any:
            from realign.embedding import Embedder

            compute = hardware.resolve(self.profile.device, self.profile.dtype)
            loaded, tokenizer = self.models.open(model, recipe.attention, self.profile.dtype)
            return Embedder(
                loaded,
                tokenizer,
                max_tokens=recipe.max_passage_tokens,
                device=str(compute.device),
                dtype=compute.dtype,
            )

        identity = {"backbone": model.identity, "attention": recipe.attention}
        slug = f"{self.models.family.name}-{model.slug}"
        return slug, identity, lambda: self._kept(f"untrained {model.slug}", make), model.needs

    def _trained(
        self, role: str, seed: int
    ) -> tuple[str, dict[str, Any], Callable[[], Any], tuple[Node, ...]]:
        train = self.models.train_node(role, seed)

        def make() -> Any:
            return self.models.embedder(self.graph.run(train).path / "model", self.profile.dtype)

        identity = {"train": train.request.key}
        return train.request.slug, identity, lambda: self._kept(train.request.key, make), (train,)

    def _subject(self, reference: str) -> tuple[str, dict[str, Any], Callable[[], Any], tuple[Node, ...]]:
        if Path(reference).is_dir():
            folder = Path(reference).resolve()
            identity = {"directory": backbones.digest(cfg.Backbone(source=f"path:{folder}"))}

            def make() -> Any:
                return self.models.embedder(folder, self.profile.dtype)

            return folder.name, identity, lambda: self._kept(str(folder), make), ()
        role, colon, seed = reference.partition(":")
        if colon and seed.isdigit():
            return self._trained(role, int(seed))
        return self._untrained(self.models.model(reference))

    def _kept(self, key: str, make: Callable[[], Any]) -> Any:
        """Keep the last model loaded: consecutive tasks share it and its embeddings."""
        if self._encoder is None or self._encoder[0] != key:
            from realign.evaluation import instructions
            from realign.evaluation.encoder import TaskEncoder

            self._encoder = None  # free the old model before loading the new one
            table = instructions.load(strict=self._strict)
            self._encoder = (key, TaskEncoder(make(), table, revision=key))
        return self._encoder[1]

    # -- suites, read once
    @property
    def _strict(self) -> bool:
        """At the paper's scale a task without an instruction of its own is an error, not a default."""
        return "hub" in self.profile.needs

    def _loaded(self, suite: str) -> Any:
        if suite not in self._suites:
            self._suites[suite] = suites.load(suite)
        return self._suites[suite]

    def _instructions(self, suite: str) -> Mapping[str, str]:
        if suite not in self._prompts:
            self._prompts[suite] = suites.task_instructions(suite, strict=self._strict)
        return self._prompts[suite]

    def _type(self, suite: str, task: str) -> str:
        known = {spec.name: spec.type for spec, _ in suites.specs(suite)}
        if not known:
            known = {t.metadata.name: t.metadata.type for t in self._loaded(suite).tasks}
        return known[task]
