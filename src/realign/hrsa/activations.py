"""From texts to states: one forward pass per model, streamed; only a seeded sample of tokens is kept.

Texts are read as they are, without special tokens. Which tokens are kept depends on the content of a text,
the position and the seed alone: neither on the order of texts, nor on batches, nor on the model; so models
that share a tokenizer keep the same tokens.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from realign.hrsa.arrays import plain
from realign.hrsa.checks import whole_number
from realign.hrsa.forward import Batch, Encoded, Progress, check_model, encode, forward, position_limit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


ROWS = ("text_ids", "token_ids", "positions", "text_keys")


@dataclass
class Activations:
    """What one model made of a list of texts: a token sample and text means, for every layer.

    Attributes:
        states: (L, n, d) float32 states of the sampled tokens; rows in canonical order (texts by the
            digest of their content, tokens by position), so the order of texts changes nothing.
        text_ids: (n,) index of each row's text in the list that was given.
        token_ids: (n,) vocabulary index.
        positions: (n,) position within the text.
        pooled: (L, n_texts, d) float32 mean over all tokens of a text, in the order given.
        text_keys: (n_texts,) uint64 digest of each text's token ids.
        meta: counts, seconds, model facts.
    """

    states: NDArray[np.float32]
    text_ids: NDArray[np.int64]
    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    pooled: NDArray[np.float32]
    text_keys: NDArray[np.uint64]
    meta: dict[str, Any] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write states.npy, pooled.npy, rows.npz and meta.json."""
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "states.npy", self.states)
        np.save(directory / "pooled.npy", self.pooled)
        np.savez_compressed(directory / "rows.npz", **{name: getattr(self, name) for name in ROWS})
        (directory / "meta.json").write_text(json.dumps(self.meta, indent=1, sort_keys=True))

    @classmethod
    def load(cls, directory: Path) -> Activations:
        """Read what :meth:`save` wrote; states stay on disk and are read a layer at a time."""
        with np.load(directory / "rows.npz") as rows:
            return cls(
                states=np.load(directory / "states.npy", mmap_mode="r"),
                pooled=np.load(directory / "pooled.npy"),
                meta=json.loads((directory / "meta.json").read_text()),
                **{name: rows[name] for name in ROWS},
            )

    @classmethod
    def from_pooled(
        cls, pooled: np.ndarray | Sequence[np.ndarray], meta: dict[str, Any] | None = None
    ) -> Activations:
        """Treat each text's embedding (L, n, d) as its one token.

        This compares models on text level, or one model with itself across languages: pass the
        embeddings of parallel texts, row i of both being translations of one another.
        """
        given = plain(pooled, "pooled")
        if given.dtype.kind not in "iuf" or given.ndim != 3 or not given.size:
            raise ValueError(
                f"pooled must be numbers of shape (layers, texts, dimensions), got {given.dtype} of {given.shape}"
            )
        with np.errstate(over="ignore"):
            values = given.astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("pooled holds NaN, an infinity, or a number too large for float32")
        rows = np.arange(values.shape[1])
        zeros = np.zeros_like(rows)
        return cls(values, rows, zeros, zeros, values, rows.astype(np.uint64), meta or {"level": "text"})


def sample_tokens(
    ids: list[list[int]], tokens: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Choose ``tokens`` (text, position) pairs at random by content: (n, 2) int64 and text keys (n_texts,).

    Every token gets a pseudo-random number from its text's digest, its position and the seed; the smallest
    win. All tokens are taken where there are fewer. Rows are sorted by text digest, then position.
    """
    keys = np.array([_digest(row) for row in ids], dtype=np.uint64)
    chosen = []
    copies: dict[int, int] = {}
    for i, row in enumerate(ids):
        copy = copies[int(keys[i])] = copies.get(int(keys[i]), -1) + 1  # equal texts draw apart
        draws = np.random.default_rng([seed, int(keys[i]), copy]).random(len(row))
        chosen.append(np.stack([np.full(len(row), i), np.arange(len(row)), draws], axis=1))
    table = np.concatenate(chosen)
    if tokens < len(table):
        table = table[np.argpartition(table[:, 2], tokens)[:tokens]] if tokens else table[:0]
    pairs = table[:, :2].astype(np.int64)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], keys[pairs[:, 0]]))
    return pairs[order], keys


def _digest(ids: list[int]) -> int:
    return int.from_bytes(hashlib.sha256(np.asarray(ids, dtype=np.int64).tobytes()).digest()[:8], "little")


def collect(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    tokens: int = 4096,
    seed: int = 0,
    max_tokens: int | None = None,
    token_budget: int = 4096,
    layers: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Activations:
    """Read all texts once and keep a seeded sample of token states and every text's mean.

    Args:
        model: a loaded transformers model.
        tokenizer: its tokenizer.
        texts: what to read; any iterable of strings, none empty.
        tokens: how many token states to keep (0: text means only).
        seed: of the sample.
        max_tokens: longer texts are cut; ``meta['truncated']`` counts them.
        token_budget: padded tokens of one forward pass.
        layers: which layers; None is all.
        progress: see :func:`extract`.

    Returns:
        Activations; memory is L x (tokens + n_texts) x d x 4 bytes whatever the length of the texts.
    """
    started = time.perf_counter()
    tokens, seed = whole_number(tokens, "tokens", 0), whole_number(seed, "seed", 0)
    token_budget = whole_number(token_budget, "token_budget")
    check_model(model)
    encoded = encode(tokenizer, texts, max_tokens, position_limit(model))
    sample, keys = sample_tokens(encoded.ids, tokens, seed)
    by_text = np.argsort(sample[:, 0], kind="stable")
    bounds = np.searchsorted(sample[by_text, 0], np.arange(len(keys) + 1))
    rows_of = [by_text[start:stop] for start, stop in pairwise(bounds)]
    states = pooled = np.empty((0, 0, 0), dtype=np.float32)
    with closing(forward(model, tokenizer, encoded, token_budget, layers, progress)) as read:
        for batch in read:
            if not pooled.size:
                depth, width = len(batch.layers), batch.layers[0].shape[-1]
                states = np.empty((depth, len(sample), width), dtype=np.float32)
                pooled = np.empty((depth, len(keys), width), dtype=np.float32)
            _keep(batch, sample, rows_of, states, pooled)
            del batch  # its memory is free before the next one is read
    meta = {"texts": len(keys), "tokens_sampled": len(sample), "seed": seed, "max_tokens": max_tokens}
    meta |= _facts(model, encoded) | {"seconds": round(time.perf_counter() - started, 3)}
    for layer, values in enumerate(zip(states, pooled, strict=True)):
        if not all(np.isfinite(each).all() for each in values):
            raise ValueError(f"states of layer {layer} are not finite; the model overflowed {meta['dtype']}")
    token_ids = np.array([encoded.ids[i][p] for i, p in sample], dtype=np.int64)
    return Activations(states, sample[:, 0], token_ids, sample[:, 1], pooled, keys, meta)


def _keep(
    batch: Batch,
    sample: NDArray[np.int64],
    rows_of: list[NDArray[np.int64]],
    states: NDArray[np.float32],
    pooled: NDArray[np.float32],
) -> None:
    """Write a batch's sampled tokens to ``states`` (L, n, d) and its text means to ``pooled`` (L, texts, d).

    ``sample`` (n, 2) holds the text and position of each row of ``states``, ``rows_of`` the rows of each text.
    """
    rows = np.concatenate([rows_of[i] for i in batch.texts])
    where = np.repeat(np.arange(len(batch.texts)), [len(rows_of[i]) for i in batch.texts])
    take = torch.from_numpy(where * batch.mask.shape[1] + sample[rows, 1]).to(batch.mask.device)
    weights = batch.mask[:, None, :].float() / batch.mask.sum(1)[:, None, None]
    for layer, values in enumerate(batch.layers):
        states[layer, rows] = values.reshape(-1, values.shape[-1])[take].float().cpu().numpy()
        pooled[layer, batch.texts] = (weights @ values.float())[:, 0].cpu().numpy()


def _facts(model: PreTrainedModel, encoded: Encoded) -> dict[str, Any]:
    """What was read, and how the model was set."""
    causal = getattr(getattr(model, "config", None), "is_causal", None)
    return {
        "tokens_read": sum(map(len, encoded.ids)),
        "truncated": encoded.truncated,
        "attention": "model default" if causal is None else "causal" if causal else "bidirectional",
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }
