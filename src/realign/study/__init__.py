"""The stages and their graph: what needs what, found in the store or computed.

A :class:`Study` is a profile with its parameters filled in. Its methods return tidy frames, each made
of artifacts, and an artifact is computed only when neither ./artifacts nor data/results has it.
Nothing is computed to make a key, so published results are found without any weights.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from realign import config as cfg
from realign import hardware, paths
from realign.errors import RealignError, UsageError
from realign.study.graph import PUBLISHED, VERSIONS, Graph, Node
from realign.study.models import Model, Models, Reader
from realign.study.stages.compare import Similarity
from realign.study.stages.domains import Domains
from realign.study.stages.evaluate import Scoring
from realign.study.stages.languages import Languages
from realign.study.stages.mechanism import Mechanism
from realign.study.stages.policy import Behaviour
from realign.study.store import Store

__all__ = [
    "PUBLISHED",
    "VERSIONS",
    "Graph",
    "Model",
    "Node",
    "Reader",
    "Study",
    "open_study",
    "require",
    "verify",
]


class Study:
    """A profile with its parameters: lazily computed frames for the chapters.

    Args:
        profile: the configuration.
        store: where artifacts are looked up and written.
    """

    def __init__(self, profile: cfg.Profile, store: Store) -> None:
        self.profile = profile
        self.store = store
        self.graph = Graph(store)
        self.models = Models(self.graph, profile)
        self.similarity = Similarity(self.graph, profile, self.models)
        self.languages = Languages(self.graph, profile, self.models)
        self.behaviour = Behaviour(self.graph, profile, self.models)
        self.mechanism = Mechanism(self.graph, profile, self.models)
        self.by_domain = Domains(self.graph, profile, self.models)

    @cached_property
    def scoring(self) -> Scoring:
        """Evaluation, made on first use."""
        return Scoring(self.graph, self.profile, self.models)

    def nodes(self) -> list[Node]:
        """Every result that the chapters of this study read, in the order that is quickest to compute."""
        return [
            *self.behaviour.nodes().values(),
            *self.models.tuning_log_nodes().values(),
            *self.similarity.nodes(),
            *self.languages.nodes().values(),
            *self.mechanism.nodes(),
            *self.by_domain.nodes().values(),
            *self.models.training_log_nodes().values(),
            *self.scoring.nodes(),
        ]

    # -- what the chapters read
    def scores(self) -> pd.DataFrame:
        """Scores (0-100): model ('emb', 'untrained', 'bm25', 'random', 'yardstick'), role, seed, suite, task, type."""
        return self.scoring.scores()

    def items(self) -> pd.DataFrame:
        """Scores of single queries, pairs and texts: model, role, seed, suite, task, item, value."""
        return self.scoring.items()

    def reading(self) -> pd.DataFrame:
        """What each evaluation read: model, role, seed, suite, task, instruction, counts, seconds."""
        return self.scoring.reading()

    def training_logs(self) -> pd.DataFrame:
        """Step logs of contrastive learning: role, seed, step, loss and the rest."""
        return self.models.training_logs()

    def tuning_logs(self, table: str = "log") -> pd.DataFrame:
        """How the siblings were tuned: the step log, or ``table="validation"`` for accuracies on the way."""
        return self.models.tuning_logs(table)

    def comparisons(self, kind: str) -> dict[tuple[str, str], Any]:
        """HRSA reports by pair of roles, of 'backbone' or 'embedding' models."""
        return self.similarity.comparisons(kind)

    def noise_ceilings(self, kind: str) -> dict[str, Any]:
        """HRSA reports of a model with itself under what should not matter, by name.

        Of 'backbone' models: base in another precision and with another batch size. Of 'embedding'
        models: the same recipe under two seeds (empty when there is one seed).
        """
        return self.similarity.ceilings(kind)

    def attention_modes(self) -> dict[str, dict[tuple[str, str], Any]]:
        """HRSA reports (cheap metrics) of the backbones by attention mode and pair of roles."""
        return self.similarity.modes()

    def alignment(self) -> pd.DataFrame:
        """English against other languages within a model: model, language, metric, layer, value, low, high."""
        return self.languages.frame()

    def models_map(self) -> pd.DataFrame:
        """Places of all models on a plane, see :meth:`Similarity.models_map`."""
        return self.similarity.models_map()

    def drift(self) -> pd.DataFrame:
        """Representation drift along tuning: role, step, metric, value, low, high."""
        return self.similarity.drift()

    def policy(self) -> pd.DataFrame:
        """Accuracy, entropy and KL to base of every checkpoint as a policy."""
        return self.behaviour.policy()

    def updates(self) -> pd.DataFrame:
        """What tuning did to each weight matrix of every followed role's final model."""
        return self.mechanism.updates()

    def update_agreement(self) -> pd.DataFrame:
        """How far the updates of two roles point the same way, by matrix."""
        return self.mechanism.update_agreement()

    def landscape(self, table: str = "measures") -> pd.DataFrame:
        """Landscape and trajectories by role: ``measures``, or ``points`` on the map."""
        return self.mechanism.landscape(table)

    def domains(self) -> pd.DataFrame:
        """Similarity to base by domain of text, of every followed role's final model."""
        return self.by_domain.frame()

    def provenance(self) -> pd.DataFrame:
        """What this study has read so far, and how each artifact was computed."""
        return self.graph.provenance()

    def configuration(self) -> dict[str, Any]:
        """The resolved profile as plain data."""
        return self.profile.model_dump(mode="json")


def open_study(
    profile: str = "laptop",
    *,
    family: str | None = None,
    roles: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    n_texts: int | None = None,
    k: Sequence[int] | None = None,
    attention: cfg.Attention | None = None,
    controls: Sequence[str] | None = None,
    dtype: str | None = None,
) -> Study:
    """Open a study: a profile with the given parameters changed. Nothing is computed yet.

    Published results are looked up unless the environment says ``REALIGN_FRESH=1``.

    Args:
        profile: a profile's name or a TOML file.
        family: a family of data/families.toml; None, here and below, keeps the profile's choice.
        roles: roles that are compared; 'base' must be one.
        seeds: training seeds, one embedding model a role and seed.
        texts: text sets that HRSA reads.
        n_texts: texts per text set.
        k: neighbourhood sizes.
        attention: how HRSA reads, 'bidirectional' or 'causal'.
        controls: further siblings that RQ4 follows along tuning; None is all that the family has.
        dtype: of products in evaluation, 'auto', 'float32' or 'bfloat16'.

    Raises:
        UsageError: for an unknown name or a value of the wrong kind.
    """
    top = {"family": family, "roles": roles, "seeds": seeds, "controls": controls, "dtype": dtype}
    inner = {"texts": texts, "n_texts": n_texts, "k": k, "attention": attention}
    data = cfg.load_profile(profile).model_dump()
    data.update({key: value for key, value in top.items() if value is not None})
    data["hrsa"].update({key: value for key, value in inner.items() if value is not None})
    changed = cfg.parse(cfg.Profile, data, f"profile {profile}")
    if not changed.seeds:
        raise UsageError("seeds: at least one training seed is needed, for example [0, 1, 2]")
    if "base" not in changed.roles:
        raise UsageError("roles: 'base' is needed, every comparison is against it")
    fresh = os.environ.get("REALIGN_FRESH") == "1"
    return Study(changed, Store(paths.artifacts(), None if fresh else paths.data() / "results"))


def require(profile: cfg.Profile) -> None:
    """Say clearly what a profile needs that is not here.

    Raises:
        RealignError: when a GPU is needed and there is none.
    """
    import torch

    if "gpu" in profile.needs and hardware.resolve(profile.device).device.type != "cuda":
        raise RealignError(
            f"profile {profile.name} needs a CUDA GPU and torch {torch.__version__} sees none here: "
            f"run it on a GPU node, submit it with --launcher slurm, or use --profile laptop"
        )


def verify(study: Study, stage: str = "", limit: int = 0) -> Iterator[tuple[str, float]]:
    """Compute published results again in a scratch store; yield label and largest difference.

    Weights that are already in the local store are reused; published numbers are not.
    """
    published = Store(paths.data() / "results")
    nodes = [n for n in study.nodes() if n.request.stage in PUBLISHED and stage in ("", n.request.stage)]
    nodes = [n for n in nodes if published.find(n.request) is not None]
    with tempfile.TemporaryDirectory(prefix="realign-verify-") as scratch:
        for node in nodes[: limit or None]:
            reference = published.find(node.request)
            assert reference is not None
            for need in node.needs:
                study.graph.run(need)
            made = Store(Path(scratch)).get(node.request, node.build)
            yield node.label, largest_difference(reference.path, made.path)


def largest_difference(a: Path, b: Path) -> float:
    """Return the largest absolute difference between the numbers of two artifacts' tables.

    Infinite when a table is missing or has another shape, or a text cell differs.
    """
    worst = 0.0
    for file in sorted(a.glob("*.csv*")):
        other = b / file.name
        if not other.is_file():
            return float("inf")
        x, y = pd.read_csv(file), pd.read_csv(other)
        if x.shape != y.shape or list(x.columns) != list(y.columns):
            return float("inf")
        for column in x.columns:
            if pd.api.types.is_numeric_dtype(x[column]) and pd.api.types.is_numeric_dtype(y[column]):
                if (x[column].isna() != y[column].isna()).any():
                    return float("inf")
                gap = (x[column].astype(float) - y[column].astype(float)).abs().max()
                worst = max(worst, 0.0 if pd.isna(gap) else float(gap))
            elif not x[column].fillna("").equals(y[column].fillna("")):
                return float("inf")
    return worst
