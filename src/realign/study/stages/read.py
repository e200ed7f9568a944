"""What HRSA reads: each model goes through the texts once, and its states are kept in the store."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from realign import config as cfg
from realign import hardware, progress, texts
from realign.models import loading
from realign.study.graph import Graph, Node, request, text_sources
from realign.study.models import Reader
from realign.study.store import sha256_file

FEWEST = 10
VOCABULARY = Path("tokenizer") / "tokenizer.json"


class Reading:
    """States of models on the profile's text sets."""

    def __init__(self, graph: Graph, profile: cfg.Profile, family: str) -> None:
        self.graph = graph
        self.profile = profile
        self.family = family

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

        return Node(
            request(
                "read",
                f"{self.family}-{reader.slug}",
                {**settings.model_dump(mode="json", include={"texts", "n_texts", "max_tokens", "seed"})}
                | {"tokens": tokens, "batch_tokens": reader.batch_tokens},
                reader.identity,
                {key: value for name in settings.texts for key, value in text_sources(name).items()},
            ),
            build,
            reader.needs,
        )

    def states(self, node: Node) -> Any:
        """The activations of a node, on disk until a layer is asked for."""
        from realign import hrsa

        return hrsa.Activations.load(self.graph.run(node).path)

    def check_paired(self, a: Node, b: Node, names: tuple[str, str]) -> None:
        """Refuse models whose tokens cannot be paired.

        Raises:
            RealignError: the tokenizers differ; says where.
        """
        places = [self.graph.run(node).path for node in (a, b)]
        files = [place / VOCABULARY for place in places]
        if all(file.is_file() for file in files) and len({sha256_file(file) for file in files}) == 1:
            return
        from transformers import AutoTokenizer

        first, second = (AutoTokenizer.from_pretrained(place / VOCABULARY.parent) for place in places)
        loading.check_same_tokenizer(first, second, names)

    @cached_property
    def sets(self) -> list[texts.TextSet]:
        """The text sets that are read."""
        settings = self.profile.hrsa
        return [texts.load(name, settings.n_texts, seed=settings.seed) for name in settings.texts]

    @property
    def labels(self) -> list[str]:
        """One label a text: its set and its class."""
        return [f"{s.name}: {label}" for s in self.sets for label in s.labels or [""] * len(s.texts)]

    def probes(self, a: Any, b: Any) -> dict[str, Any]:
        """Labelled text embeddings (mean-pooled last layer) of every text set that has classes.

        Classes with fewer than FEWEST texts are left out: the paper's split has ten folds.
        """
        from realign import hrsa

        found, start = {}, 0
        for each in self.sets:
            counts = Counter(each.labels)
            kept = [i for i, label in enumerate(each.labels) if counts[label] >= FEWEST]
            rows = [start + i for i in kept]
            start += len(each.texts)
            if len({each.labels[i] for i in kept}) > 1:
                found[each.name] = hrsa.Probe(
                    a.pooled[-1][rows],
                    b.pooled[-1][rows],
                    [each.labels[i] for i in kept],
                    [each.groups[i] for i in kept] if each.groups else None,
                )
        return found
