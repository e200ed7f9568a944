"""Cross-lingual alignment: the metrics of HRSA between two languages within one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from realign import config as cfg
from realign import progress
from realign.errors import RealignError
from realign.study.graph import Graph, Node, request, text_sources
from realign.study.models import Models, Reader
from realign.texts import corpus, splits

METRICS = ("correlation", "cka", "knn", "procrustes")
MAX_TOKENS = 64


class Languages:
    """Each model with itself, English against its translation, on text means of parallel messages."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models

    def nodes(self) -> dict[str, Node]:
        """Every role's backbone, and base after contrastive learning, by name."""
        readers = {role: self.models.read_backbone(self.models.model(role)) for role in self.profile.roles}
        readers["base-Emb"] = self.models.read_embedding("base", self.profile.seeds[0])
        return {name: self.node(reader) for name, reader in readers.items()}

    def frame(self) -> pd.DataFrame:
        """Alignment by model, language, metric and layer: value, low, high."""
        frames = [
            pd.read_csv(self.graph.run(node).path / "languages.csv").assign(model=name)
            for name, node in self.nodes().items()
        ]
        return pd.concat(frames, ignore_index=True)

    def node(self, reader: Reader) -> Node:
        """One pass over the messages in all languages, then English against each translation."""
        settings = self.profile.hrsa

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa

            parallel = messages(settings.languages, settings.n_messages)
            model, tokenizer = reader.open()
            read = hrsa.collect(
                model,
                tokenizer,
                [text for texts in parallel.values() for text in texts],
                tokens=0,
                seed=settings.seed,
                max_tokens=MAX_TOKENS,
                token_budget=reader.batch_tokens,
                progress=lambda batches, total, desc: progress.track(
                    batches, total, f"languages of {reader.slug}", "batch"
                ),
            )
            count = settings.n_messages
            spoken = {
                language: hrsa.Activations.from_pooled(read.pooled[:, i * count : (i + 1) * count])
                for i, language in enumerate(parallel)
            }
            english = spoken.pop("en")
            frames = [
                hrsa.by_layer(
                    hrsa.compare_activations(english, other, settings, metrics=METRICS, detail="summary")
                ).assign(language=language)
                for language, other in spoken.items()
            ]
            pd.concat(frames, ignore_index=True).to_csv(
                folder / "languages.csv", index=False, float_format="%.8g"
            )
            return {"dtype": read.meta["dtype"], "seed": settings.seed}

        wanted = {"languages", "n_messages", "k", "resamples", "seed"}
        return Node(
            request(
                "languages",
                f"{self.models.family.name}-{reader.slug}",
                {**settings.model_dump(mode="json", include=wanted), "max_tokens": MAX_TOKENS}
                | {"batch_tokens": reader.batch_tokens},
                reader.identity,
                text_sources("messages"),
            ),
            build,
            reader.needs,
        )


def messages(languages: tuple[str, ...], n: int) -> dict[str, list[str]]:
    """Return ``n`` messages of the evaluation side in English ('en') and in every other language.

    Raises:
        RealignError: fewer messages have all translations.
    """
    found = [m for m in corpus.catalogues("eval") if all(one in m.translations for one in languages)]
    if len(found) < n:
        raise RealignError(
            f"{len(found)} messages have translations into {', '.join(languages)}, fewer than the "
            f"{n} of hrsa.n_messages: ask for fewer messages or languages"
        )
    chosen = splits.sample(found, n, lambda m: m.key, seed=0)
    return {
        "en": [m.text for m in chosen],
        **{one: [m.translations[one] for m in chosen] for one in languages},
    }
