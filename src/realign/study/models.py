"""The models of a study: backbones from the registry, siblings tuned here, embedding models trained here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from realign import config as cfg
from realign import hardware, paths
from realign.errors import UsageError, unknown
from realign.models import loading
from realign.study.graph import Graph, Node, request, text_sources

# Padded tokens of one forward pass: the states of all layers are returned at once, so few at a time.
READ_TOKENS = 1024


@dataclass(frozen=True)
class Model:
    """A backbone at its place in the graph: what identifies it in keys and what it is made from."""

    role: str
    step: int | None
    identity: dict[str, Any]
    backbone: cfg.Backbone | None = None
    tuned: Node | None = None
    materialised: Node | None = None

    @property
    def slug(self) -> str:
        """Role, with the step of a checkpoint."""
        return self.role if self.step is None else f"{self.role}-step{self.step}"

    @property
    def needs(self) -> tuple[Node, ...]:
        """The nodes whose files this model is loaded from."""
        return tuple(n for n in (self.materialised, self.tuned) if n is not None)


@dataclass(frozen=True)
class Reader:
    """Any model that can be opened for reading texts: a backbone or a trained embedding model.

    ``identity`` goes into keys; ``open`` returns (headless model, tokenizer); ``batch_tokens`` is the
    padded size of one forward pass.
    """

    slug: str
    identity: dict[str, Any]
    open: Callable[[], tuple[Any, Any]] = field(compare=False, repr=False)
    needs: tuple[Node, ...] = field(default=(), compare=False, repr=False)
    batch_tokens: int = READ_TOKENS


class Models:
    """Every model of a profile, by role, checkpoint and seed."""

    def __init__(self, graph: Graph, profile: cfg.Profile) -> None:
        self.graph = graph
        self.profile = profile
        families = cfg.load_families(paths.data() / "families.toml")
        self.family = cfg.find_family(families, profile.family)

    # -- backbones
    @cached_property
    def base(self) -> Model:
        """The family's base backbone."""
        return self._registered("base", None)

    def model(self, role: str, step: int | None = None) -> Model:
        """Return the model of a role: from the registry, or tuned here when the family lacks it."""
        if role == "base" and step is None:
            return self.base
        if role in self.family.roles:
            return self._registered(role, step)
        settings = self.tuning(role)
        node = self.tune_node(role)
        if step is not None and step not in settings.save_steps:
            raise unknown(f"checkpoint of {role}", str(step), map(str, settings.save_steps))
        identity = {"tune": node.request.key, "step": step}
        return Model(role, step, identity, None, node, self.base.materialised)

    def of_source(self, backbone: cfg.Backbone) -> Model:
        """Return a model outside the family, named by its source."""
        identity = loading.digest(backbone)
        name = Path(backbone.location).name
        return Model(name, None, identity, backbone, materialised=self._materialise(backbone, name))

    def _registered(self, role: str, step: int | None) -> Model:
        backbone = self.family.backbone(role, step)
        below = self._materialise(loading.root(backbone), f"{self.family.name}-base")
        return Model(role, step, loading.digest(backbone), backbone, materialised=below)

    def _materialise(self, backbone: cfg.Backbone, slug: str) -> Node | None:
        """A model file that must be turned into a transformers directory once."""
        if backbone.kind not in ("wheel", "random"):
            return None

        def build(folder: Path) -> dict[str, Any]:
            loading.materialize(backbone, folder, cache=loading.cache_dir())
            return {"source": backbone.source}

        return Node(request("backbone", slug, {"backbone": loading.digest(backbone)}, {}), build)

    def local(self, model: Model) -> Path | None:
        """Return the directory of the root base's weights, made if it is not there."""
        return None if model.materialised is None else self.graph.run(model.materialised).path

    def backbone(self, model: Model) -> cfg.Backbone:
        """Return the backbone to load, with a tuned adapter's place filled in."""
        if model.backbone is not None:
            return model.backbone
        assert model.tuned is not None
        place = self.graph.run(model.tuned).path / ("final" if model.step is None else f"step-{model.step}")
        return cfg.Backbone(source=f"adapter:{place}", base=self.base.backbone)

    def open(self, model: Model, attention: cfg.Attention, dtype: cfg.DType) -> tuple[Any, Any]:
        """Load a backbone for reading, in the given attention mode, on this hardware."""
        compute = hardware.resolve(self.profile.device, dtype)
        return loading.load(
            self.backbone(model),
            attention=attention,
            dtype=compute.dtype,
            device=str(compute.device),
            local=self.local(model),
        )

    def policy(self, model: Model, kernel: str = "sdpa") -> tuple[Any, Any]:
        """Load a backbone with its head, as a causal policy, in the profile's dtype.

        Args:
            model: of this family.
            kernel: transformers' attention implementation.
        """
        compute = hardware.resolve(self.profile.device, self.profile.dtype)
        return loading.load_lm(
            self.backbone(model),
            dtype=compute.dtype,
            device=compute.device,
            local=self.local(model),
            attn_implementation=kernel,
        )

    # -- tuning
    def tuning(self, role: str) -> cfg.RLVRSettings | cfg.SFTSettings:
        """How a sibling is tuned from the base: the family's own settings, else the profile's."""
        if role in self.family.tuning:
            return self.family.tuning[role]
        if role == "reason":
            return self.profile.rlvr
        if role == "sft":
            return self.profile.sft
        known = {*self.family.roles, *self.family.tuning, "reason", "sft"}
        raise unknown(f"role of family {self.family.name}", role, known)

    def tuned_by_others(self, role: str) -> bool:
        """Whether the registry has this sibling and not how it was tuned."""
        return role in self.family.roles and role not in self.family.tuning

    def tune_node(self, role: str) -> Node:
        """Tuning of a sibling from the base, for families whose registry entry has none."""
        settings = self.tuning(role)
        asked = request(
            "tune",
            f"{self.family.name}-{role}",
            {"settings": settings.model_dump(mode="json")},
            {"base": self.base.identity},
            {"reasoning-gym": metadata.version("reasoning-gym")},
        )

        def build(folder: Path) -> dict[str, Any]:
            from realign import tuning

            assert self.base.backbone is not None
            work = self.graph.store.work(asked)  # outlives a kill
            tuning.run(self.base.backbone, settings, work, local=self.local(self.base))
            shutil.copytree(work, folder, dirs_exist_ok=True)
            return {"seed": settings.seed}

        return Node(asked, build, self.base.needs)

    @property
    def siblings(self) -> list[str]:
        """The roles other than base, in the profile's order."""
        return [role for role in self.profile.roles if role != "base"]

    @property
    def followed(self) -> list[str]:
        """The roles that are followed along tuning: the siblings, then the profile's controls."""
        extra = self.profile.controls
        if extra is None:
            extra = tuple(role for role in self.family.tuning if role in self.family.roles)
        return list(dict.fromkeys([*self.siblings, *extra]))

    @cached_property
    def finals(self) -> dict[str, Model]:
        """The final model of every followed role."""
        return {role: self.model(role) for role in self.followed}

    def trajectory(self) -> dict[tuple[str, int], Model]:
        """Every checkpoint and final model of every followed role, by (role, tuning step)."""
        found: dict[tuple[str, int], Model] = {}
        for role in self.followed:
            registered = self.family.checkpoints.get(role, {})
            if self.tuned_by_others(role):  # steps are what the registry says
                last, steps = None, [*registered]
            else:
                settings = self.tuning(role)
                last = settings.steps
                steps = [*(registered if role in self.family.roles else settings.save_steps)]
            for step in sorted(s for s in steps if last is None or s < last):
                found[role, step] = self.model(role, step)
            if last is not None:
                found[role, last] = self.model(role)
        return found

    def tuning_log_nodes(self) -> dict[str, Node]:
        """Step logs of tuning done here; a registry adapter ships its own tables instead."""
        return {
            role: log_node(self.graph, "tuning-log", self.tune_node(role), "log.csv", "validation.csv")
            for role in self.followed
            if role not in self.family.roles
        }

    def tuning_logs(self, table: str = "log") -> pd.DataFrame:
        """How the siblings were tuned: role, step, and what was logged.

        Args:
            table: "log" (every step) or "validation" (accuracies on validation problems).
        """
        frames = []
        here = self.tuning_log_nodes()
        for role in self.followed:
            if role in here:
                file = self.graph.run(here[role]).path / f"{table}.csv"
            else:
                backbone = self.family.backbone(role)
                file = paths.resolve(backbone.location) / f"{table}.csv"
                if backbone.kind != "adapter" or not file.is_file():
                    continue
            frames.append(pd.read_csv(file).assign(role=role))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["role", "step"])

    # -- contrastive learning
    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every (role, seed) that is trained."""
        return [(role, seed) for role in self.profile.roles for seed in self.profile.seeds]

    def train_node(self, role: str, seed: int) -> Node:
        """Contrastive learning from one backbone with one seed."""
        model, recipe = self.model(role), self.profile.recipe
        outside = {k: v for name in recipe.data for k, v in text_sources(name).items()}
        asked = request(
            "train",
            f"{self.family.name}-{role}-seed{seed}",
            {"recipe": recipe.model_dump(mode="json"), "seed": seed},
            {"backbone": model.identity},
            outside,
        )

        def build(folder: Path) -> dict[str, Any]:
            from realign.training import parallel

            compute = hardware.resolve(self.profile.device, recipe.dtype)
            parallel.train(
                self.backbone(model),
                recipe,
                seed,
                folder,
                local=self.local(model),
                compute=compute,
                work=self.graph.store.work(asked),
            )
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": seed}

        return Node(asked, build, model.needs)

    def training_log_nodes(self) -> dict[tuple[str, int], Node]:
        """The step log of every training run, by (role, seed)."""
        return {
            run: log_node(self.graph, "training-log", self.train_node(*run), "log.csv") for run in self.runs
        }

    def training_logs(self) -> pd.DataFrame:
        """Step logs of the training runs with role and seed."""
        frames = [
            pd.read_csv(self.graph.run(node).path / "log.csv").assign(role=role, seed=seed)
            for (role, seed), node in self.training_log_nodes().items()
        ]
        return pd.concat(frames, ignore_index=True)

    def embedder(self, directory: Path, dtype: cfg.DType) -> Any:
        """Open a sentence-transformers directory on this hardware."""
        from realign.models.embedder import Embedder

        compute = hardware.resolve(self.profile.device, dtype)
        return Embedder.from_directory(directory, device=str(compute.device), dtype=compute.dtype)

    # -- readers
    def read_backbone(
        self, model: Model, attention: cfg.Attention | None = None, dtype: cfg.DType | None = None
    ) -> Reader:
        """A backbone as HRSA reads it: in the profile's attention mode and dtype unless told otherwise."""
        mode = attention or self.profile.hrsa.attention
        precision = dtype or self.profile.hrsa.dtype
        other = [mode] * (attention is not None) + [precision] * (dtype is not None)
        return Reader(
            "-".join([model.slug, *other]),
            {"backbone": model.identity, "attention": mode, "dtype": precision},
            lambda: self.open(model, mode, precision),
            model.needs,
        )

    def read_embedding(self, role: str, seed: int, step: int | None = None) -> Reader:
        """A trained embedding model as HRSA reads it, at its end or at a step that the recipe keeps."""
        train = self.train_node(role, seed)
        kept = self.profile.recipe.save_steps
        if step is not None and step not in kept:
            raise unknown("kept step of training", str(step), map(str, kept))
        place = "model" if step is None else f"step-{step}"

        def load() -> tuple[Any, Any]:
            embedder = self.embedder(self.graph.run(train).path / place, "float32")
            # HRSA casts the whole model, of an embedding model as of a backbone
            dtype = hardware.resolve(self.profile.device, self.profile.hrsa.dtype).dtype
            return embedder.model.to(dtype), embedder.tokenizer

        identity: dict[str, Any] = {"train": train.request.key, "dtype": self.profile.hrsa.dtype}
        if step is not None:
            identity["step"] = step
        slug = f"{role}-emb-seed{seed}" + ("" if step is None else f"-step{step}")
        return Reader(slug, identity, load, (train,))

    def reader(self, reference: str) -> Reader:
        """A model as a user names it.

        ``ROLE`` or ``ROLE@STEP`` is a backbone (at a tuning step), ``ROLE:SEED`` or ``ROLE:SEED@STEP`` a
        trained model (at a step of ``recipe.save_steps``), ``path:DIR`` or ``hub:ORG/NAME`` any other.

        Raises:
            UsageError: for an unknown name or a step or seed that is not a whole number.
        """
        if reference.partition(":")[0] in cfg.SOURCE_KINDS:
            return self.read_backbone(
                self.of_source(cfg.parse(cfg.Backbone, {"source": reference}, f"model '{reference}'"))
            )
        name, at, step = reference.partition("@")
        role, colon, seed = name.partition(":")
        for mark, number in ((colon, seed), (at, step)):
            if mark and not number.isdigit():
                raise UsageError(f"model '{reference}': a whole number must follow '{mark}'")
        when = int(step) if at else None
        if colon:
            return self.read_embedding(role, int(seed), when)
        return self.read_backbone(self.model(role, when))


def log_node(graph: Graph, stage: str, source: Node, *files: str) -> Node:
    """A run's tables, kept apart from its weights so that it can be published."""

    def build(folder: Path) -> dict[str, Any]:
        artifact = graph.run(source)
        for file in files:
            if (artifact.path / file).is_file():
                shutil.copyfile(artifact.path / file, folder / file)
        kept = {name: artifact.manifest[name] for name in ("wall_seconds", "peak_memory_gib")}
        return {**json.loads(json.dumps(artifact.manifest["used"])), **kept}

    return Node(request(stage, source.request.slug, {}, {"run": source.request.key}), build, (source,))
