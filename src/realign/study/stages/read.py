"""What HRSA reads: each model goes through the texts once, and its states are kept in the store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from realign import config as cfg
from realign import hardware, progress, texts
from realign.models import compatibility, pretrained
from realign.models.sources import sha256
from realign.study.graph import Node
from realign.study.models import Reader
from realign.study.stage import Stage, text_versions
from realign.texts import selection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from realign import hrsa

VOCABULARY = Path("tokenizer") / "tokenizer.json"


class Read(Stage):
    """States of models on the profile's text sets."""

    name = "read"
    version = 1

    def node(self, reader: Reader) -> Node:
        """One pass of a model over the texts: a token sample and text means of every layer, float32.

        Comparisons with other metrics or neighbourhood sizes, drift and the map of models all read this.
        """
        settings = self.profile.hrsa
        tokens = max(settings.cka_tokens, settings.knn_tokens)

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa

            model, tokenizer = reader.open()
            states = hrsa.collect(
                model,
                tokenizer,
                [text for each in self.sets for text in each.texts],
                tokens=tokens,
                seed=settings.seed,
                max_tokens=settings.max_tokens,
                token_budget=reader.batch_tokens,
                progress=lambda batches, total, desc: progress.track(
                    batches, total, f"read {reader.slug}", "batch"
                ),
            )
            states.save(folder)
            tokenizer.save_pretrained(folder / VOCABULARY.parent)
            compute = hardware.resolve(self.profile.device)
            return {"device": str(compute.device), "dtype": states.meta["dtype"], "seed": settings.seed}

        request = self.request(
            self.slug(reader.slug),
            {**settings.model_dump(mode="json", include={"texts", "n_texts", "max_tokens", "seed"})}
            | {"tokens": tokens, "batch_tokens": reader.batch_tokens},
            reader.identity,
            text_versions(settings.texts),
        )
        return Node(request, build, reader.needs)

    def states(self, node: Node) -> hrsa.Activations:
        """The activations of a node, on disk until a layer is asked for."""
        from realign import hrsa

        return hrsa.Activations.load(self.graph.run(node).path)

    def base(self) -> list[Node]:
        """The base in both attention modes: its sinks are left out in every comparison of a study."""
        models = self.study.models
        return [
            self.node(
                models.read_backbone(models.base, None if mode == self.profile.hrsa.attention else mode)
            )
            for mode in get_args(cfg.Attention)
        ]

    def sinks(self, nodes: Sequence[Node]) -> NDArray[np.bool_]:
        """Tokens (stored rows,) that are sinks at any layer of any of these readings."""
        from realign.hrsa import geometry

        key = tuple(node.request.key for node in nodes)
        if key not in self._sinks:
            self._sinks[key] = geometry.sink_rows(*map(self.states, nodes))
        return self._sinks[key]

    @cached_property
    def _sinks(self) -> dict[tuple[str, ...], NDArray[np.bool_]]:
        return {}

    def check_paired(self, a: Node, b: Node, names: tuple[str, str]) -> None:
        """Refuse models whose tokens cannot be paired.

        Raises:
            RealignError: the tokenizers differ; says where.
        """
        places = [self.graph.run(node).path for node in (a, b)]
        files = [place / VOCABULARY for place in places]
        if all(file.is_file() for file in files) and len({sha256(file) for file in files}) == 1:
            return
        first, second = (pretrained.tokenizer(place / VOCABULARY.parent) for place in places)
        compatibility.check_same_tokenizer(first, second, names)

    @cached_property
    def sets(self) -> list[texts.TextSet]:
        """The text sets that are read."""
        settings = self.profile.hrsa
        return [texts.load(name, settings.n_texts, seed=settings.seed) for name in settings.texts]

    @property
    def labels(self) -> list[str]:
        """One label a text: its set and its class."""
        return [f"{s.name}: {label}" for s in self.sets for label in s.labels or [""] * len(s.texts)]

    def probes(self, a: hrsa.Activations, b: hrsa.Activations) -> dict[str, hrsa.Probe]:
        """Labelled text embeddings (mean-pooled last layer) of every text set that has classes."""
        from realign import hrsa

        return {
            name: hrsa.Probe(a.pooled[-1][part.rows], b.pooled[-1][part.rows], part.labels, part.groups)
            for name, part in selection.labelled(self.sets).items()
        }
