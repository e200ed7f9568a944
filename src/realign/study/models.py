"""The models of a study: backbones of the registry, siblings tuned here, embedding models trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realign import config as cfg
from realign import hardware, paths
from realign.config import naming
from realign.errors import UsageError, unknown
from realign.models import loading, pretrained
from realign.study.graph import Node

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from realign.study import Study

# Padded tokens of one forward pass: the states of all layers are returned at once, so few at a time.
READ_TOKENS = 1024


@dataclass(frozen=True)
class Model:
    """A backbone at its place in the graph: what identifies it in keys and what it is loaded from.

    Attributes:
        role: of the family, or the name of a model outside it.
        step: of a checkpoint; None for the final model.
        identity: what stands for it in keys.
        backbone: its source; None for a sibling that is tuned in this study.
        tuned: the node that tunes it.
        made: the node that writes the transformers directory of its base, for a source that has none.
    """

    role: str
    step: int | None
    identity: dict[str, Any]
    backbone: cfg.Backbone | None = None
    tuned: Node | None = None
    made: Node | None = None

    @property
    def slug(self) -> str:
        """Role, with the step of a checkpoint."""
        return self.role if self.step is None else f"{self.role}-step{self.step}"

    @property
    def needs(self) -> tuple[Node, ...]:
        """The nodes whose files this model is loaded from."""
        return tuple(node for node in (self.made, self.tuned) if node is not None)


@dataclass(frozen=True)
class Reader:
    """Any model that can be opened for reading texts: a backbone or a trained embedding model.

    ``identity`` goes into keys; ``open`` returns (headless model, tokenizer); ``batch_tokens`` is the
    padded size of one forward pass.
    """

    slug: str
    identity: dict[str, Any]
    open: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]] = field(compare=False, repr=False)
    needs: tuple[Node, ...] = field(default=(), compare=False, repr=False)
    batch_tokens: int = READ_TOKENS


class Models:
    """Every model of a study, by role, checkpoint and seed."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.profile = study.profile
        families = cfg.load_families(paths.data() / "families.toml")
        self.family = cfg.find_family(families, study.profile.family)

    # -- which models there are
    @property
    def siblings(self) -> list[str]:
        """The roles other than base, in the profile's order."""
        return [role for role in self.profile.roles if role != "base"]

    def check_siblings(self) -> None:
        """Refuse a study in which there is nothing to compare with base.

        Raises:
            UsageError: base is the only role.
        """
        if not self.siblings:
            raise UsageError(
                f"roles: base alone has nothing to be compared with; add a sibling of family {self.family.name} "
                f"(known: {', '.join(self.family.known_roles)})"
            )

    @property
    def followed(self) -> list[str]:
        """The roles whose tuning is looked at step by step: the siblings, then the profile's controls."""
        controls = self.profile.controls
        if controls is None:
            controls = tuple(role for role in self.family.tuning if role in self.family.roles)
        return list(dict.fromkeys([*self.siblings, *controls]))

    @cached_property
    def finals(self) -> dict[str, Model]:
        """The final model of every followed role."""
        return {role: self.model(role) for role in self.followed}

    def trajectory(self) -> dict[tuple[str, int], Model]:
        """Every checkpoint and final model of every followed role, by (role, tuning step).

        A role that was tuned elsewhere has the checkpoints of the registry only: nobody knows its last step.
        """
        models: dict[tuple[str, int], Model] = {}
        for role in self.followed:
            registered = self.family.checkpoints.get(role, {})
            if self.tuned_by_others(role):
                last, steps = None, [*registered]
            else:
                settings = self.tuning(role)
                last = settings.steps
                steps = [*(registered if role in self.family.roles else settings.save_steps)]
            for step in sorted(s for s in steps if last is None or s < last):
                models[role, step] = self.model(role, step)
            if last is not None:
                models[role, last] = self.model(role)
        return models

    def tuning(self, role: str) -> cfg.RLVRSettings | cfg.SFTSettings:
        """How a sibling is tuned from the base, as the family says.

        Raises:
            UsageError: the family does not say.
        """
        if role not in self.family.tuning:
            raise unknown(f"tuned role of family {self.family.name}", role, self.family.tuning)
        return self.family.tuning[role]

    def tuned_by_others(self, role: str) -> bool:
        """Whether a sibling was tuned elsewhere: the family has it, and no settings of its tuning."""
        return role in self.family.roles and role not in self.family.tuning

    # -- backbones
    @cached_property
    def base(self) -> Model:
        """The family's base backbone."""
        return self._registered("base", None)

    def model(self, role: str, step: int | None = None) -> Model:
        """Return the backbone of a role: of the registry, or tuned here as the family says.

        Raises:
            UsageError: an unknown role or checkpoint.
        """
        if role == "base" and step is None:
            return self.base
        if role in self.family.roles:
            return self._registered(role, step)
        if role not in self.family.tuning:
            raise unknown(f"role of family {self.family.name}", role, self.family.known_roles)
        node, kept = self.study.tune.node(role), self.tuning(role).save_steps
        if step is not None and step not in kept:
            raise unknown(f"checkpoint of {role}", str(step), map(str, kept))
        identity = {"tune": node.request.key, "step": step}
        return Model(role, step, identity, None, node, self.base.made)

    def outside(self, backbone: cfg.Backbone) -> Model:
        """Return a model outside the family, named by the last part of its source."""
        name = Path(backbone.location).name
        made = self.study.backbone.node(backbone, name)
        return Model(name, None, loading.digest(backbone), backbone, made=made)

    def _registered(self, role: str, step: int | None) -> Model:
        backbone = self.family.backbone(role, step)
        made = self.study.backbone.node(loading.root(backbone), f"{self.family.name}-base")
        return Model(role, step, loading.digest(backbone), backbone, made=made)

    # -- opened
    def local(self, model: Model) -> Path | None:
        """Return the directory of the base's weights, made if it is not there; None if the source is one."""
        return None if model.made is None else self.study.graph.run(model.made).path

    def backbone(self, model: Model) -> cfg.Backbone:
        """Return the source to load a model from, with the place of an adapter tuned here filled in."""
        if model.backbone is not None:
            return model.backbone
        assert model.tuned is not None
        folder = "final" if model.step is None else f"step-{model.step}"
        place = self.study.graph.run(model.tuned).path / folder
        return cfg.Backbone(source=f"adapter:{place}", base=self.base.backbone)

    def open(
        self, model: Model, attention: cfg.Attention, dtype: cfg.DType
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load a backbone for reading, in the given attention mode, on this hardware."""
        compute = hardware.resolve(self.profile.device, dtype)
        return loading.load(
            self.backbone(model),
            attention=attention,
            dtype=compute.dtype,
            device=str(compute.device),
            local=self.local(model),
        )

    def open_policy(
        self, model: Model, kernel: str = "sdpa"
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
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

    # -- as HRSA reads them
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
        run, folder = self.study.train.place(role, seed, step)

        def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
            embedder = self.study.train.open(self.study.graph.run(run).path / folder, "float32")
            # HRSA casts the whole model, of an embedding model as of a backbone
            dtype = hardware.resolve(self.profile.device, self.profile.hrsa.dtype).dtype
            return pretrained.cast(embedder.model, dtype), embedder.tokenizer

        identity: dict[str, Any] = {"train": run.request.key, "dtype": self.profile.hrsa.dtype}
        if step is not None:
            identity["step"] = step
        slug = f"{role}-emb-seed{seed}" + ("" if step is None else f"-step{step}")
        return Reader(slug, identity, load, (run,))

    def name(self, text: str) -> naming.ModelName:
        """Read a model's name, see :mod:`realign.config.naming`.

        Raises:
            UsageError: it does not follow the grammar.
        """
        return naming.parse(text, self.family.known_roles)

    def reader(self, text: str) -> Reader:
        """Return the model of a name as HRSA reads it.

        Raises:
            UsageError: a name that does not follow the grammar, or an unknown role, step or seed.
        """
        name = self.name(text)
        if name.source:
            source = cfg.parse(cfg.Backbone, {"source": name.source}, f"model '{text}'")
            return self.read_backbone(self.outside(source))
        if name.seed is not None:
            return self.read_embedding(name.role, name.seed, name.step)
        return self.read_backbone(self.model(name.role, name.step))

    def trained_name(self, text: str) -> naming.ModelName:
        """Read the name of a trained model.

        Raises:
            UsageError: it names anything else.
        """
        name = self.name(text)
        if name.seed is None:
            raise UsageError(f"model '{text}' must be ROLE:SEED or ROLE:SEED@STEP, for example base:0")
        return name
