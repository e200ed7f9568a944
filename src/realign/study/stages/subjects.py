"""What can be scored: baselines, the yardstick, backbones, trained models, and models of others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from realign import config as cfg
from realign import hardware
from realign.errors import RealignError
from realign.evaluation import instructions, yardstick
from realign.models import sources
from realign.study.artifact import canonical
from realign.study.graph import Node
from realign.study.models import Model

if TYPE_CHECKING:
    from mteb.models.models_protocols import MTEBModels

    from realign.evaluation.encoder import TextEncoder
    from realign.models.embedder import Embedder
    from realign.study import Study


@dataclass(frozen=True)
class Subject:
    """A model to score: what identifies it in keys, how it is opened, what has to exist before.

    ``settings`` are the rest of what changes its scores: precision policy, longest text, attention.
    """

    slug: str
    identity: dict[str, Any]
    load: Callable[[], MTEBModels] = field(compare=False, repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
    instructed: bool = True
    needs: tuple[Node, ...] = ()


class Subjects:
    """Makes the subjects of a study, and keeps the last model that was loaded."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.profile = study.profile
        self.models = study.models
        self._last: tuple[str, MTEBModels] | None = None

    # -- of every study
    def baseline(self, name: str) -> Subject:
        """Word overlap ('bm25') or chance ('random')."""

        def load() -> MTEBModels:
            from realign.evaluation import baselines
            from realign.evaluation.encoder import TaskEncoder

            random = TaskEncoder(baselines.RandomVectors(), revision=name)
            return cast("MTEBModels", baselines.BM25() if name == "bm25" else random)

        return Subject(name, {"baseline": name}, load, instructed=False)

    def yardstick(self) -> Subject:
        """The outside model that scores are read against."""

        def make() -> TextEncoder | MTEBModels:
            from realign.evaluation.encoder import load_outside

            return load_outside(yardstick.verified())

        identity = {"outside": yardstick.DIGEST}
        return self._subject(yardstick.PACKAGE, identity, make, {"dtype": "float32"}, instructed=False)

    def untrained(self, model: Model) -> Subject:
        """A backbone without contrastive learning: mean pooling."""
        recipe = self.profile.recipe

        def make() -> Embedder:
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

        slug = f"{self.models.family.name}-{model.slug}"
        return self._subject(slug, {"backbone": model.identity}, make, self._settings(), needs=model.needs)

    def trained(self, role: str, seed: int, step: int | None = None) -> Subject:
        """An embedding model of the study, at its end or at a step that the recipe keeps."""
        run, folder = self.study.train.place(role, seed, step)

        def make() -> Embedder:
            return self.study.train.open(self.study.graph.run(run).path / folder, self.profile.dtype)

        slug, identity = run.request.slug, {"train": run.request.key}
        if step is not None:
            slug, identity = f"{slug}-{folder}", {**identity, "step": str(step)}
        return self._subject(slug, identity, make, self._settings(), needs=(run,))

    def _settings(self) -> dict[str, Any]:
        recipe = self.profile.recipe
        return {
            "dtype": self.profile.dtype,
            "max_tokens": recipe.max_passage_tokens,
            "attention": recipe.attention,
        }

    # -- named by a user
    def named(self, text: str, *, instructed: bool = True, trust_remote_code: bool = False) -> Subject:
        """Return the subject of a model's name, see :mod:`realign.config.naming`.

        Raises:
            UsageError: a name that does not follow the grammar, or an unknown role, step or seed.
            RealignError: no such directory, or the hub does not give the model.
        """
        name = self.models.name(text)
        if (folder := name.directory) is not None:
            if not folder.is_dir():
                raise RealignError(f"no model directory {folder}")
            return self._directory(folder, folder.name, instructed, trust_remote_code)
        if name.source:
            backbone = cfg.parse(cfg.Backbone, {"source": name.source}, f"model '{text}'")
            folder = sources.snapshot(backbone, code=trust_remote_code)
            slug = name.source.rpartition("/")[2]
            return self._directory(folder, slug, instructed, trust_remote_code)
        if name.seed is not None:
            return self.trained(name.role, name.seed, name.step)
        return self.untrained(self.models.model(name.role, name.step))

    def _directory(self, folder: Path, slug: str, instructed: bool, trust_remote_code: bool) -> Subject:
        """A model directory: ours is read as a trained one is, any other in its own way, in float32."""
        from realign.models.embedder import read_layout

        identity = {"directory": sources.directory_digest(folder)}
        try:
            layout = read_layout(folder)
        except RealignError:

            def make() -> TextEncoder | MTEBModels:
                from realign.evaluation.encoder import load_outside

                device = str(hardware.resolve(self.profile.device).device)
                return load_outside(folder, trust_remote_code=trust_remote_code, device=device)

            return self._subject(slug, identity, make, {"dtype": "float32"}, instructed)

        settings = {"dtype": self.profile.dtype, "max_tokens": layout.max_tokens}
        return self._subject(
            slug,
            identity,
            lambda: self.study.train.open(folder, self.profile.dtype),
            settings,
            instructed,
        )

    # -- loaded
    def _subject(
        self,
        slug: str,
        identity: dict[str, Any],
        make: Callable[[], TextEncoder | MTEBModels],
        settings: dict[str, Any],
        instructed: bool = True,
        needs: tuple[Node, ...] = (),
    ) -> Subject:
        """Keep the last model loaded: consecutive tasks share it and its embeddings."""
        key = hashlib.sha256(canonical([slug, identity, instructed]).encode()).hexdigest()

        def load() -> MTEBModels:
            if self._last is None or self._last[0] != key:
                self._last = None  # free the old model before loading the new one
                self._last = (key, self.encoder(make(), instructed, key))
            return self._last[1]

        return Subject(slug, identity, load, settings, instructed, needs)

    def encoder(self, model: TextEncoder | MTEBModels, instructed: bool, key: str = "") -> MTEBModels:
        """Make an mteb model of a text encoder; one that already is an mteb model stays as it is."""
        from realign.evaluation.encoder import TaskEncoder

        if hasattr(model, "mteb_model_meta"):
            return cast("MTEBModels", model)
        text_encoder = cast("TextEncoder", model)
        asked = [instructions.load(strict=self.strict)] if instructed else []
        return cast("MTEBModels", TaskEncoder(text_encoder, *asked, revision=key))

    @property
    def strict(self) -> bool:
        """At the paper's scale a task without an instruction of its own is an error, not a default."""
        return "hub" in self.profile.needs
