"""What can be scored: baselines, the yardstick, backbones, trained models, and models of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realign import config as cfg
from realign import hardware
from realign.errors import RealignError
from realign.evaluation import yardstick
from realign.models import sources
from realign.study.graph import Graph, Node
from realign.study.models import Model, Models


@dataclass(frozen=True)
class Subject:
    """A model to score: what identifies it in keys, how it is opened, what has to exist before.

    ``reading`` is the rest of what changes its scores: precision policy, longest text, attention.
    """

    slug: str
    identity: dict[str, Any]
    load: Callable[[], Any] = field(compare=False, repr=False)
    reading: dict[str, Any] = field(default_factory=dict)
    instructed: bool = True
    needs: tuple[Node, ...] = ()


class Subjects:
    """Makes the subjects of a study, and keeps the last model that was loaded."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models
        self._encoder: tuple[str, Any] | None = None

    def baseline(self, name: str) -> Subject:
        """Word overlap ('bm25') or chance ('random')."""

        def load() -> Any:
            from realign.evaluation import baselines
            from realign.evaluation.encoder import TaskEncoder

            return (
                baselines.BM25() if name == "bm25" else TaskEncoder(baselines.RandomVectors(), revision=name)
            )

        return Subject(name, {"baseline": name}, load, instructed=False)

    def yardstick(self) -> Subject:
        """The outside model that scores are read against."""

        def make() -> Any:
            from realign.evaluation.encoder import load_outside

            return load_outside(yardstick.verified())

        identity = {"outside": yardstick.DIGEST}
        return self._outside(yardstick.PACKAGE, identity, make, instructed=False)

    def _outside(
        self, slug: str, identity: dict[str, Any], make: Callable[[], Any], instructed: bool
    ) -> Subject:
        """A model with its own pooling and longest text, read in float32."""
        key = f"{slug} {sorted(identity.items())} {instructed}"
        return Subject(
            slug,
            identity,
            lambda: self._kept(key, make, instructed),
            {"dtype": "float32"},
            instructed,
        )

    def untrained(self, model: Model) -> Subject:
        """A backbone without contrastive learning: mean pooling."""
        recipe = self.profile.recipe

        def make() -> Any:
            from realign.models.embedder import Embedder

            compute = hardware.resolve(self.profile.device, self.profile.dtype)
            loaded, tokenizer = self.models.open(model, recipe.attention, "float32")
            return Embedder(
                loaded,
                tokenizer,
                max_tokens=recipe.max_passage_tokens,
                device=str(compute.device),
                dtype=compute.dtype,
            )

        return Subject(
            f"{self.models.family.name}-{model.slug}",
            {"backbone": model.identity},
            lambda: self._kept(f"untrained {model.slug}", make),
            self._reading(),
            needs=model.needs,
        )

    def trained(self, role: str, seed: int) -> Subject:
        """An embedding model of the study."""
        train = self.models.train_node(role, seed)

        def make() -> Any:
            return self.models.embedder(self.graph.run(train).path / "model", self.profile.dtype)

        return Subject(
            train.request.slug,
            {"train": train.request.key},
            lambda: self._kept(train.request.key, make),
            self._reading(),
            needs=(train,),
        )

    def _reading(self) -> dict[str, Any]:
        recipe = self.profile.recipe
        return {
            "dtype": self.profile.dtype,
            "max_tokens": recipe.max_passage_tokens,
            "attention": recipe.attention,
        }

    def named(self, reference: str, *, instructed: bool = True, trust_remote_code: bool = False) -> Subject:
        """A model as a user names it: ``ROLE``, ``ROLE:SEED``, a directory, or ``hub:ORG/NAME[@REVISION]``.

        Raises:
            UsageError: unknown role.
            RealignError: no such directory, or the hub does not give the model.
        """
        kind, colon, rest = reference.partition(":")
        if kind == "hub":
            backbone = cfg.parse(cfg.Backbone, {"source": reference}, f"model '{reference}'")
            folder = sources.snapshot(backbone, code=trust_remote_code)
            return self._directory(folder, rest.rpartition("/")[2], instructed, trust_remote_code)
        place = Path(rest if kind == "path" else reference)
        if kind == "path" or place.is_dir():
            if not place.is_dir():
                raise RealignError(f"no model directory {place}")
            return self._directory(place.resolve(), place.resolve().name, instructed, trust_remote_code)
        if colon and rest.isdigit():
            return self.trained(kind, int(rest))
        return self.untrained(self.models.model(reference))

    def _directory(self, folder: Path, slug: str, instructed: bool, trust_remote_code: bool) -> Subject:
        """A model directory: ours is read as a trained one is, any other in its own way."""
        from realign.models.embedder import read_layout

        identity = {"directory": sources.directory_digest(folder)}
        try:
            layout = read_layout(folder)
        except RealignError:

            def make() -> Any:
                from realign.evaluation.encoder import load_outside

                device = str(hardware.resolve(self.profile.device).device)
                return load_outside(folder, trust_remote_code=trust_remote_code, device=device)

            return self._outside(slug, identity, make, instructed)
        key = f"{folder} {instructed}"
        return Subject(
            slug,
            identity,
            lambda: self._kept(key, lambda: self.models.embedder(folder, self.profile.dtype), instructed),
            {"dtype": self.profile.dtype, "max_tokens": layout.max_tokens},
            instructed,
        )

    def _kept(self, key: str, make: Callable[[], Any], instructed: bool = True) -> Any:
        """Keep the last model loaded: consecutive tasks share it and its embeddings."""
        if self._encoder is None or self._encoder[0] != key:
            self._encoder = None  # free the old model before loading the new one
            self._encoder = (key, self.encoder(make(), instructed, key))
        return self._encoder[1]

    def encoder(self, model: Any, instructed: bool, key: str = "") -> Any:
        """Make an mteb model of a text encoder; one that already is an mteb model stays as it is."""
        from realign.evaluation import instructions
        from realign.evaluation.encoder import TaskEncoder

        if hasattr(model, "mteb_model_meta"):
            return model
        if not instructed:
            return TaskEncoder(model, revision=key)
        return TaskEncoder(model, instructions.load(strict=self.strict), revision=key)

    @property
    def strict(self) -> bool:
        """At the paper's scale a task without an instruction of its own is an error, not a default."""
        return "hub" in self.profile.needs
