"""Cross-lingual alignment: the metrics of HRSA between two languages within one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from realign import progress
from realign.study.graph import Node
from realign.study.models import Reader
from realign.study.stage import Stage, text_versions
from realign.texts import selection

METRICS = ("correlation", "cka", "knn", "r2")
MAX_TOKENS = 64
SETTINGS = {"languages", "n_messages", "k", "layers", "seed"}


class Languages(Stage):
    """Each model with itself, English against its translation, on text means of parallel messages."""

    name = "languages"
    version = 4
    published = True

    def results(self) -> dict[tuple[str, bool], Node]:
        """By role and whether it is trained: every role's backbone, and base after contrastive learning."""
        readers = {
            (role, False): self.models.read_backbone(self.models.model(role)) for role in self.profile.roles
        }
        readers["base", True] = self.models.read_embedding("base", self.profile.seeds[0])
        return {which: self.node(reader) for which, reader in readers.items()}

    def frame(self) -> pd.DataFrame:
        """Role, trained (by contrastive learning), language, metric (id), layer, value, low, high."""
        return self.table("languages.csv", "role", "trained")

    def node(self, reader: Reader) -> Node:
        """One pass over the messages in all languages, then English against each translation."""
        settings = self.profile.hrsa

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa

            count = settings.n_messages
            messages = selection.parallel_messages(settings.languages, count)
            model, tokenizer = reader.open()
            read = hrsa.collect(
                model,
                tokenizer,
                [text for language in messages.values() for text in language],
                tokens=0,
                seed=settings.seed,
                max_tokens=MAX_TOKENS,
                token_budget=reader.batch_tokens,
                progress=lambda batches, total, desc: progress.track(
                    batches, total, f"languages of {reader.slug}", "batch"
                ),
            )
            english, *others = (
                hrsa.Activations.from_pooled(read.pooled[:, i * count : (i + 1) * count])
                for i in range(len(messages))
            )
            frames = [
                hrsa.by_layer(
                    hrsa.compare_activations(english, other, settings, metrics=METRICS, detail="summary")
                ).assign(language=language)
                for language, other in zip(settings.languages, others, strict=True)
            ]
            pd.concat(frames, ignore_index=True).to_csv(
                folder / "languages.csv", index=False, float_format="%.8g"
            )
            return {"dtype": read.meta["dtype"], "seed": settings.seed}

        request = self.request(
            self.slug(reader.slug),
            {**settings.model_dump(mode="json", include=SETTINGS), "max_tokens": MAX_TOKENS}
            | {"batch_tokens": reader.batch_tokens},
            reader.identity,
            text_versions(["messages"]),
        )
        return Node(request, build, reader.needs)
