"""Evaluation: one stored result per (model, task, its data, prompt, precision policy, mteb version)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from realign import hardware
from realign.evaluation import suites, yardstick
from realign.evaluation.specs import BM25_TYPES
from realign.study.artifact import Artifact
from realign.study.graph import Node
from realign.study.stage import Stage
from realign.study.stages.subjects import Subject, Subjects

if TYPE_CHECKING:
    from mteb.models.models_protocols import MTEBModels

    from realign.evaluation.encoder import TextEncoder
    from realign.study import Study

data_sources = cache(suites.sources)  # reads the metadata of a dozen packages, for hundreds of nodes
COUNTS = ("texts", "tokens", "truncated", "empty", "seconds", "encode_seconds")


class Evaluate(Stage):
    """Scores of baselines, untrained backbones and trained models on the profile's suites."""

    name = "evaluate"
    version = 2
    published = True

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        self.subjects = Subjects(study)
        self._load = cache(suites.load)
        self._instructions = cache(self._task_instructions)

    def nodes(self) -> list[Node]:
        """Every (model, task) result that the profile asks for and that can be computed here."""
        here = yardstick.directory() is not None
        return [node for node, labels in self._wanted() if here or labels["model"] != "yardstick"]

    def scores(self) -> pd.DataFrame:
        """Scores (0-100): model, role, seed, suite, task, type, subset, metric, score, error.

        ``model`` is 'emb', 'untrained', 'bm25', 'random' or 'yardstick'.
        """
        return self._collect(_scores)

    def items(self) -> pd.DataFrame:
        """Scores of single queries, pairs and texts: model, role, seed, suite, task, subset, item, value."""
        return self._collect(
            lambda artifact: pd.read_csv(artifact.path / "items.csv.gz", dtype={"item": str})
        )

    def reading(self) -> pd.DataFrame:
        """What each evaluation read: model, role, seed, suite, task, instruction, counts, seconds, dtype."""
        return self._collect(_counts)

    def score(
        self,
        model: str | Path | TextEncoder | MTEBModels,
        suite: str,
        *,
        instructed: bool = True,
        trust_remote_code: bool = False,
    ) -> pd.DataFrame:
        """Score one model on one suite; a task that failed before is tried again.

        Args:
            model: a name (see :mod:`realign.config.naming`) or an object with mteb's encoder protocol, whose
                results are not stored: nothing tells two such objects apart.
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
        if not isinstance(model, str | Path):
            from realign.evaluation import run
            from realign.evaluation.encoder import load_outside

            encoder = self.subjects.encoder(load_outside(model), instructed)
            results = run.evaluate_tasks(encoder, suites.load(suite), suite=suite)
            return pd.concat([result.scores for result in results], ignore_index=True)
        subject = self.subjects.named(str(model), instructed=instructed, trust_remote_code=trust_remote_code)
        frames = []
        for task in suites.task_names(suite):
            node = self.node(suite, task, subject)
            self.graph.store.retry(node.request, lambda known: bool(known.manifest["used"].get("failed")))
            frames.append(_scores(self.graph.run(node)))
        return pd.concat(frames, ignore_index=True)

    def node(self, suite: str, task: str, subject: Subject) -> Node:
        """Return the node that scores a model on one task of a suite."""

        def build(folder: Path) -> dict[str, Any]:
            from realign.evaluation import run

            tasks = {each.metadata.name: each for each in self._load(suite)}
            result = run.evaluate_task(subject.load(), tasks[task], suite=suite)
            result.scores.to_csv(folder / "scores.csv", index=False)
            result.items.to_csv(
                folder / "items.csv.gz", index=False, compression={"method": "gzip", "mtime": 0}
            )
            compute = hardware.resolve(self.profile.device, subject.settings.get("dtype", "float32"))
            return {**result.manifest, "device": str(compute.device), "dtype": str(compute.dtype)}

        config = {
            "suite": suite,
            "task": task,
            "instruction": self._instructions(suite)[task] if subject.instructed else "",
            **subject.settings,
        }
        request = self.request(f"{subject.slug}-{task}", config, subject.identity, data_sources(suite, task))
        return Node(request, build, subject.needs)

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
        tasks = [(suite, task) for suite in self.profile.suites for task in suites.task_names(suite)]
        ranked = [(suite, task) for suite, task in tasks if self._type(suite, task) in BM25_TYPES]
        subjects = self.subjects
        for model, role, seed, subject, pairs in [
            ("bm25", "", -1, subjects.baseline("bm25"), ranked),
            ("random", "", -1, subjects.baseline("random"), tasks),
            ("yardstick", "", -1, subjects.yardstick(), tasks),
            *(
                ("untrained", role, -1, subjects.untrained(self.models.model(role)), tasks)
                for role in self.profile.roles
            ),
            *(("emb", *run, subjects.trained(*run), tasks) for run in self.study.train.runs),
        ]:
            for suite, task in pairs:
                labels = {"model": model, "role": role, "seed": seed, "suite": suite}
                yield self.node(suite, task, subject), labels

    def _task_instructions(self, suite: str) -> Mapping[str, str]:
        return suites.task_instructions(suite, strict=self.subjects.strict)

    def _type(self, suite: str, task: str) -> str:
        known = {spec.name: spec.type for spec, _ in suites.specs(suite)}
        if not known:
            known = {each.metadata.name: each.metadata.type for each in self._load(suite)}
        return known[task]


def _scores(artifact: Artifact) -> pd.DataFrame:
    return pd.read_csv(artifact.path / "scores.csv").fillna({"error": "", "subset": ""})


def _counts(artifact: Artifact) -> pd.DataFrame:
    used, config = artifact.manifest["used"], artifact.manifest["config"]
    row = {
        "task": config["task"],
        "instruction": config["instruction"],
        **{name: used.get(name, 0) for name in COUNTS},
        "dtype": str(used["dtype"]).removeprefix("torch."),
    }
    return pd.DataFrame([row])
