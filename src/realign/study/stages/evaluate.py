"""Evaluation: one stored result per (model, task, its data, prompt, precision policy, mteb version)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from realign import config as cfg
from realign import hardware
from realign.errors import UsageError
from realign.evaluation import suites, yardstick
from realign.evaluation.specs import BM25_TYPES
from realign.study.graph import Graph, Node, request
from realign.study.models import Models
from realign.study.store import Artifact
from realign.study.subjects import Subject, Subjects

data_sources = cache(suites.sources)  # reads the metadata of a dozen packages, for hundreds of nodes


class Scoring:
    """Scores of baselines, untrained backbones and trained models on the profile's suites."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models
        self.subjects = Subjects(graph, profile, models)
        self._suites: dict[str, Any] = {}
        self._prompts: dict[str, Mapping[str, str]] = {}

    def nodes(self) -> list[Node]:
        """Every (model, task) result that the profile asks for and that can be computed here."""
        here = yardstick.directory() is not None
        return [node for node, labels in self._wanted() if here or labels["model"] != "yardstick"]

    def scores(self) -> pd.DataFrame:
        """Scores (0-100): model, role, seed, suite, task, type, subset, metric, score, error."""
        return self._collect(_scores)

    def items(self) -> pd.DataFrame:
        """Scores of single queries, pairs and texts: model, role, seed, suite, task, subset, item, value."""
        return self._collect(
            lambda artifact: pd.read_csv(artifact.path / "items.csv.gz", dtype={"item": str})
        )

    def reading(self) -> pd.DataFrame:
        """What each evaluation read: model, role, seed, suite, task, instruction, counts, seconds, dtype."""
        return self._collect(_reading)

    def evaluate(
        self, reference: Any, suite: str, *, instructed: bool = True, trust_remote_code: bool = False
    ) -> pd.DataFrame:
        """Score one model on one suite; a task that failed before is tried again.

        Args:
            reference: ``ROLE``, ``ROLE:SEED``, a sentence-transformers directory, ``hub:ORG/NAME`` (also
                with ``@REVISION``), or an object with mteb's encoder protocol, whose results are not
                stored: nothing tells two such objects apart.
            suite: a suite, an mteb benchmark, or ``tasks:NAME,NAME``.
            instructed: give an outside model the task instructions; False for one not trained with any.
            trust_remote_code: run Python code that comes with the model. It can do anything on this
                machine that you can: say yes only for authors you trust.

        Returns:
            Scores as :meth:`scores` gives them; a failed task is a row with its reason.

        Raises:
            UsageError: unknown model or suite.
            RealignError: the model cannot be loaded.
        """
        if not isinstance(reference, str | Path):
            from realign.evaluation import run
            from realign.evaluation.encoder import load_outside

            encoder = self.subjects.encoder(load_outside(reference), instructed)
            results = run.evaluate_tasks(encoder, suites.load(suite).tasks, suite=suite)
            return pd.concat([result.scores for result in results], ignore_index=True)
        subject = self.subjects.named(
            str(reference), instructed=instructed, trust_remote_code=trust_remote_code
        )
        frames = []
        for task in suites.task_names(suite):
            node = self._node(suite, task, subject)
            known = self.graph.store.find(node.request)
            if known is not None and known.layer == "local" and known.manifest["used"].get("failed"):
                self.graph.store.set_aside(known.path)
            frames.append(_scores(self.graph.run(node)))
        return pd.concat(frames, ignore_index=True)

    def export(self, role: str, seed: int, folder: Path) -> None:
        """Copy a trained model out of the store, its scores on the profile's suites in the model card.

        Both are found in the store or made. A model in the store is never changed, so its own card has none.

        Raises:
            UsageError: the folder is there and not empty.
        """
        from realign.evaluation import run
        from realign.training.model import scored

        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} is not empty: name a new directory for the model")
        frames = [self.evaluate(f"{role}:{seed}", suite) for suite in self.profile.suites]
        tasks = run.task_means(pd.concat(frames, ignore_index=True))
        trained = self.graph.run(self.models.train_node(role, seed))
        text = (trained.path / "model" / "README.md").read_text(encoding="utf-8")
        facts = {"profile": self.profile.name, "dtype": self.profile.dtype, "mteb": version("mteb")}
        card = scored(text, tasks, run.suite_means(tasks), facts)
        shutil.copytree(trained.path / "model", folder, dirs_exist_ok=True)
        (folder / "README.md").write_text(card, encoding="utf-8")

    def _collect(self, read: Callable[[Artifact], pd.DataFrame]) -> pd.DataFrame:
        """Read a table of every result, with the labels of its model; published yardsticks count too."""
        here = yardstick.directory() is not None
        frames = [
            read(self.graph.run(node)).assign(**labels)
            for node, labels in self._wanted()
            if here or labels["model"] != "yardstick" or self.graph.store.find(node.request) is not None
        ]
        return pd.concat(frames, ignore_index=True)

    def _wanted(self) -> Iterator[tuple[Node, dict[str, Any]]]:
        """Yield nodes with their labels model by model, so that one model at a time is in memory."""
        pairs = [(suite, task) for suite in self.profile.suites for task in suites.task_names(suite)]
        for suite, task in pairs:
            if self._type(suite, task) in BM25_TYPES:
                yield self._node(suite, task, self.subjects.baseline("bm25")), _labels("bm25", suite)
        for name, subject in (
            ("random", self.subjects.baseline("random")),
            ("yardstick", self.subjects.yardstick()),
        ):
            for suite, task in pairs:
                yield self._node(suite, task, subject), _labels(name, suite)
        for role in self.profile.roles:
            subject = self.subjects.untrained(self.models.model(role))
            for suite, task in pairs:
                yield self._node(suite, task, subject), _labels("untrained", suite, role)
        for role, seed in self.models.runs:
            subject = self.subjects.trained(role, seed)
            for suite, task in pairs:
                yield self._node(suite, task, subject), _labels("emb", suite, role, seed)

    def _node(self, suite: str, task: str, subject: Subject) -> Node:
        def build(folder: Path) -> dict[str, Any]:
            from realign.evaluation import run

            found = {t.metadata.name: t for t in self._loaded(suite).tasks}
            result = run.evaluate_task(subject.load(), found[task], suite=suite)
            result.scores.to_csv(folder / "scores.csv", index=False)
            result.items.to_csv(
                folder / "items.csv.gz", index=False, compression={"method": "gzip", "mtime": 0}
            )
            compute = hardware.resolve(self.profile.device, subject.reading.get("dtype", "float32"))
            return {**result.manifest, "device": str(compute.device), "dtype": str(compute.dtype)}

        config = {
            "suite": suite,
            "task": task,
            "instruction": self._instructions(suite)[task] if subject.instructed else "",
            **subject.reading,
        }
        outside = data_sources(suite, task)
        asked = request("evaluate", f"{subject.slug}-{task}", config, subject.identity, outside)
        return Node(asked, build, subject.needs)

    # -- suites, read once
    def _loaded(self, suite: str) -> Any:
        if suite not in self._suites:
            self._suites[suite] = suites.load(suite)
        return self._suites[suite]

    def _instructions(self, suite: str) -> Mapping[str, str]:
        if suite not in self._prompts:
            self._prompts[suite] = suites.task_instructions(suite, strict=self.subjects.strict)
        return self._prompts[suite]

    def _type(self, suite: str, task: str) -> str:
        known = {spec.name: spec.type for spec, _ in suites.specs(suite)}
        if not known:
            known = {t.metadata.name: t.metadata.type for t in self._loaded(suite).tasks}
        return known[task]


def _labels(model: str, suite: str, role: str = "", seed: int = -1) -> dict[str, Any]:
    return {"model": model, "role": role, "seed": seed, "suite": suite}


def _scores(artifact: Artifact) -> pd.DataFrame:
    return pd.read_csv(artifact.path / "scores.csv").fillna({"error": "", "subset": ""})


def _reading(artifact: Artifact) -> pd.DataFrame:
    used = artifact.manifest["used"]
    counts = {
        k: used.get(k, 0) for k in ("texts", "tokens", "truncated", "empty", "seconds", "encode_seconds")
    }
    asked = {k: artifact.manifest["config"][k] for k in ("task", "instruction")}
    return pd.DataFrame([{**asked, **counts, "dtype": str(used["dtype"]).removeprefix("torch.")}])
