"""A study: a profile with its parameters filled in, and the stages whose results the chapters read.

An artifact is computed only when neither ./artifacts nor data/results has it, and nothing is computed to make
a key: so published results are found without any weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Sized
from typing import Any, get_type_hints

import pandas as pd

from realign import config as cfg
from realign import hardware, paths
from realign.errors import RealignError, UsageError, unknown
from realign.study.graph import Graph, Node
from realign.study.models import Model, Models, Reader
from realign.study.stage import Stage
from realign.study.stages.backbone import Backbone
from realign.study.stages.compare import Compare
from realign.study.stages.domains import Domains
from realign.study.stages.drift import Drift
from realign.study.stages.evaluate import Evaluate
from realign.study.stages.landscape import Landscape
from realign.study.stages.languages import Languages
from realign.study.stages.map import Map
from realign.study.stages.policy import Policy
from realign.study.stages.read import Read
from realign.study.stages.train import Train, TrainingLog
from realign.study.stages.tune import Tune, TuningLog
from realign.study.stages.updates import Updates
from realign.study.store import Store
from realign.study.verification import verify
from realign.texts import hub
from realign.texts import names as text_sets

__all__ = [
    "PUBLISHED",
    "STAGES",
    "Graph",
    "Model",
    "Node",
    "Reader",
    "Stage",
    "Study",
    "open_store",
    "open_study",
    "require",
    "verify",
]


class Study:
    """A profile with its stages; a stage is an attribute, and its results are computed when they are read.

    The stages stand in the order in which their results are quickest to compute.

    Args:
        profile: the configuration.
        store: where artifacts are looked up and written.
    """

    backbone: Backbone
    tune: Tune
    policy: Policy
    tuning_log: TuningLog
    read: Read
    drift: Drift
    compare: Compare
    map: Map
    languages: Languages
    updates: Updates
    landscape: Landscape
    domains: Domains
    train: Train
    training_log: TrainingLog
    evaluate: Evaluate

    def __init__(self, profile: cfg.Profile, store: Store) -> None:
        self.profile = profile
        self.store = store
        self.graph = Graph(store)
        self.models = Models(self)
        self.stages = [stage(self) for stage in STAGES]
        for stage in self.stages:
            setattr(self, stage.name.replace("-", "_"), stage)

    def nodes(self) -> list[Node]:
        """Every result that the chapters of this study read."""
        return [node for stage in self.stages for node in stage.nodes()]

    def provenance(self) -> pd.DataFrame:
        """What this study has read so far, and how each artifact was computed."""
        return self.graph.provenance()

    def configuration(self) -> dict[str, Any]:
        """The resolved profile as plain data."""
        return self.profile.model_dump(mode="json")


STAGES: tuple[type[Stage], ...] = tuple(
    kind for kind in get_type_hints(Study).values() if isinstance(kind, type) and issubclass(kind, Stage)
)
PUBLISHED = tuple(stage.name for stage in STAGES if stage.published)


def open_study(
    profile: str = cfg.DEFAULT_PROFILE,
    *,
    family: str | None = None,
    roles: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    n_texts: int | None = None,
    k: Sequence[int] | None = None,
    attention: cfg.Attention | str | None = None,
    controls: Sequence[str] | None = None,
    dtype: str | None = None,
) -> Study:
    """Open a study: a profile with the given parameters changed. Nothing is computed yet.

    A parameter that is None or empty (a text "", a list [], a number 0) keeps the profile's choice. Published
    results are looked up unless the environment says ``REALIGN_FRESH=1``.

    Args:
        profile: a profile's name or a TOML file.
        family: a family of data/families.toml.
        roles: roles that are compared; 'base' and a sibling must be among them. The profile's choice is cut to what the family has.
        seeds: training seeds, one embedding model a role and seed.
        texts: text sets that HRSA reads.
        n_texts: texts per text set.
        k: neighbourhood sizes.
        attention: how HRSA reads, 'bidirectional' or 'causal'.
        controls: further siblings that RQ4 follows along tuning; the profile's choice is cut to what another family has.
        dtype: of products in evaluation, 'auto', 'float32' or 'bfloat16'.

    Raises:
        UsageError: for an unknown name or a value of the wrong kind.
    """
    top = {"family": family, "roles": roles, "seeds": seeds, "controls": controls, "dtype": dtype}
    inner = {"texts": texts, "n_texts": n_texts, "k": k, "attention": attention}
    data = cfg.load_profile(profile).model_dump()
    data.update({name: value for name, value in top.items() if not _empty(name, value)})
    data["hrsa"].update({name: value for name, value in inner.items() if not _empty(name, value)})
    changed = cfg.parse(cfg.Profile, data, f"profile {profile}")
    if "base" not in changed.roles:
        raise UsageError("roles: 'base' is needed, every comparison is against it")
    for name in (*changed.hrsa.texts, *changed.mechanism.domains):
        if name != cfg.TASK and hub.canonical(name) not in text_sets():
            raise unknown("text set", name, text_sets())
    known = cfg.find_family(cfg.load_families(paths.data() / "families.toml"), changed.family).known_roles
    for role in (
        *(changed.roles if not _empty("roles", roles) else ()),
        # A profile's controls are of its own family: another one need not have them.
        *((changed.controls or ()) if _empty("family", family) or not _empty("controls", controls) else ()),
    ):
        if role not in known:
            raise unknown(f"role of family {changed.family}", role, known)
    kept = {"roles": tuple(role for role in changed.roles if role in known)}
    if changed.controls is not None:
        kept["controls"] = tuple(role for role in changed.controls if role in known)
    changed = changed.model_copy(update=kept)
    study = Study(changed, open_store(published=os.environ.get("REALIGN_FRESH") != "1"))
    if not _empty("roles", roles):
        study.models.check_siblings()
    return study


def _empty(name: str, value: object) -> bool:
    """Whether a parameter keeps the profile's choice: it is empty for its kind, so 0 only for a number."""
    if value is None:
        return True
    if name == "n_texts":
        return isinstance(value, int) and not isinstance(value, bool) and value == 0
    if name in ("family", "attention", "dtype"):
        return value == ""
    return isinstance(value, Sized) and not isinstance(value, str | Mapping) and len(value) == 0


def open_store(*, published: bool) -> Store:
    """Return the store of this project, with or without the published results."""
    return Store(paths.artifacts(), paths.data() / "results" if published else None)


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
