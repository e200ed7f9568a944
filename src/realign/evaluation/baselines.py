"""Rows to read scores against: random vectors (chance) and BM25 (word overlap), through the same tasks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models.model_meta import ModelMeta

from realign.models.embedder import Stats

if TYPE_CHECKING:
    from bm25s import BM25 as Index
    from mteb.types import CorpusDatasetType, QueryDatasetType, RetrievalOutputType, TopRankedDocumentsType


class RandomVectors:
    """An encoder that knows nothing: each text has its own random direction, the same wherever it occurs.

    Args:
        dimension: length of a vector.
        seed: another seed gives other directions.
    """

    def __init__(self, dimension: int = 256, seed: int = 0) -> None:
        self.dimension = dimension
        self.seed = seed
        self.stats = Stats()

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
        """Return (n, dimension) float32, rows of length 1; the instruction changes the direction."""
        rows = []
        for text in texts:
            key = f"{self.seed}\x1f{instruction or ''}\x1f{text}"
            seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
            rows.append(np.random.default_rng(seed).standard_normal(self.dimension))
        self.stats.texts += len(texts)
        vectors = np.asarray(rows, dtype=np.float32).reshape(len(texts), self.dimension)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def tokens(text: str) -> list[str]:
    """Lower-case words and numbers; identifiers are split at underscores and changes of case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return re.findall(r"[^\W_]+", spaced.lower())


class BM25:
    """BM25 (bm25s, Lucene variant, k1 1.5, b 0.75) as an mteb search model: retrieval and reranking only."""

    def __init__(self) -> None:
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "realign/bm25", "revision": "1"})
        self.stats = Stats()
        self._ids: list[str] = []
        self._index: Index | None = None

    def index(self, corpus: CorpusDatasetType, **kwargs: Any) -> None:
        """Index an mteb corpus (rows with id, text and perhaps title)."""
        import bm25s

        self._ids = list(corpus["id"])
        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(self._ids)
        self._index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        texts = [tokens(f"{title} {text}") for title, text in zip(titles, corpus["text"], strict=True)]
        self._index.index(texts, show_progress=False)
        self.stats.texts += len(self._ids)

    def search(
        self,
        queries: QueryDatasetType,
        *,
        top_k: int,
        top_ranked: TopRankedDocumentsType | None = None,
        **kwargs: Any,
    ) -> RetrievalOutputType:
        """Score every document that a query may see; documents that share no word get 0."""
        if self._index is None:
            raise ValueError("BM25 searches what index() was given: call that first")
        rankings: dict[str, dict[str, float]] = {}
        for query, text in zip(queries["id"], queries["text"], strict=True):
            words = [w for w in tokens(text) if w in self._index.vocab_dict]
            scores = self._index.get_scores(words) if words else np.zeros(len(self._ids))
            allowed = None if top_ranked is None else set(top_ranked[query])
            order = [
                i for i in np.argsort(-scores, kind="stable") if allowed is None or self._ids[i] in allowed
            ]
            rankings[query] = {self._ids[i]: float(scores[i]) for i in order[:top_k]}
        self.stats.texts += len(rankings)
        return rankings
