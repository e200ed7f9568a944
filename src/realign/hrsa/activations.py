"""From texts to states: one forward pass per model, streamed; only a seeded sample of tokens is kept.

Texts are read as they are, without special tokens. Which tokens are kept depends on the content of a text,
the position and the seed alone: neither on the order of texts, nor on batches, nor on the model; so models
that share a tokenizer keep the same tokens.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Progress = Callable[..., Iterable[Any]]


@dataclass(frozen=True)
class Batch:
    """States of a few texts.

    Attributes:
        texts: (b,) index of each text.
        token_ids: (b, t), padded on the right.
        mask: (b, t) bool, True at tokens.
        layers: L tensors (b, t, d) in the model's dtype; the first is the token embedding, the last
            follows the final norm.
    """

    texts: NDArray[np.int64]
    token_ids: Tensor
    mask: Tensor
    layers: tuple[Tensor, ...]

    def tokens(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return states (L, m, d) float32, text index (m,) and position (m,) of the m tokens."""
        states = torch.stack([layer[self.mask].float() for layer in self.layers])
        row, position = torch.nonzero(self.mask, as_tuple=True)
        return states, torch.from_numpy(self.texts).to(row.device)[row], position


@dataclass(frozen=True)
class Encoded:
    """Token ids of texts: (n_texts) lists, and how many texts were cut."""

    ids: list[list[int]]
    truncated: int


def encode(tokenizer: Any, texts: Sequence[str], max_tokens: int | None, limit: int | None = None) -> Encoded:
    """Tokenize without special tokens, cut to ``max_tokens``.

    Raises:
        ValueError: a text is empty, or longer than ``limit`` (what the model can read) after cutting.
    """
    for i, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {i} is empty; remove it before comparing models")
    if not texts:
        raise ValueError("no texts given")
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    ids = [list(row) for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    truncated = 0
    for i, row in enumerate(ids):
        if not row:
            raise ValueError(f"text {i} has no tokens; remove it before comparing models")
        if max_tokens is not None and len(row) > max_tokens:
            ids[i] = row[:max_tokens]
            truncated += 1
        if limit is not None and len(ids[i]) > limit:
            raise ValueError(
                f"text {i} has {len(ids[i])} tokens and the model reads {limit}; lower max_tokens to {limit}"
            )
    return Encoded(ids, truncated)


def batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Group texts of similar length so that texts x longest stays within ``token_budget``."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, token_budget // lengths[order[start]])
        yield order[start : start + size]
        start += size


def extract(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_tokens: int | None = None,
    token_budget: int = 4096,
    layers: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """Stream the states of all texts; at most one batch is held.

    Args:
        model: a transformers model, headless or not; its attention mode is the caller's choice.
        tokenizer: its tokenizer.
        texts: what to read; none may be empty.
        max_tokens: longer texts are cut here; None: refused where the model cannot read them.
        token_budget: padded tokens of one forward pass.
        layers: which of the L layers; None is all.
        progress: wraps the iterable of batches, called as ``progress(batches, total=..., desc=...)``.

    Yields:
        Batch, longest texts first.
    """
    encoded = encode(tokenizer, texts, max_tokens, _position_limit(model))
    yield from _forward(model, tokenizer, encoded, token_budget, layers, progress)


def _position_limit(model: Any) -> int | None:
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None


def _forward(
    model: Any,
    tokenizer: Any,
    encoded: Encoded,
    token_budget: int,
    layers: Sequence[int] | None,
    progress: Progress | None,
) -> Iterator[Batch]:
    body = model.base_model if hasattr(model, "lm_head") else model  # no need for logits
    device = next(model.parameters()).device
    pad = getattr(tokenizer, "pad_token_id", None) or 0
    plan = list(batches([len(ids) for ids in encoded.ids], token_budget))
    model.eval()
    steps = progress(plan, total=len(plan), desc="reading texts") if progress else plan
    for index in steps:
        longest = len(encoded.ids[index[0]])
        ids = torch.full((len(index), longest), pad, dtype=torch.int64)
        mask = torch.zeros(len(index), longest, dtype=torch.bool)
        for row, i in enumerate(index):
            ids[row, : len(encoded.ids[i])] = torch.tensor(encoded.ids[i])
            mask[row, : len(encoded.ids[i])] = True
        ids, mask = ids.to(device), mask.to(device)
        # Nothing here holds the states: the caller drops a batch, then the next one is read.
        yield Batch(np.asarray(index), ids, mask, _hidden(body, ids, mask, layers))


def _hidden(body: Any, ids: Tensor, mask: Tensor, layers: Sequence[int] | None) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        states = body(
            input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, use_cache=False
        ).hidden_states
    return tuple(states if layers is None else (states[layer] for layer in layers))


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

    @property
    def layer_names(self) -> list[str]:
        """'embeddings', '1', ..., 'final norm'."""
        count = len(self.pooled)
        return ["embeddings", *map(str, range(1, count - 1)), "final norm"][:count]

    def save(self, directory: Path, *, dtype: str = "float32") -> None:
        """Write states.npy, pooled.npy, rows.npz and meta.json; 'float16' halves the size."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, values in (("states", self.states), ("pooled", self.pooled)):
            stored = values.astype(dtype)
            if not np.isfinite(stored).all():
                raise ValueError(f"{name} overflow {dtype}; save them as float32")
            np.save(directory / f"{name}.npy", stored)
        np.savez_compressed(
            directory / "rows.npz",
            text_ids=self.text_ids,
            token_ids=self.token_ids,
            positions=self.positions,
            text_keys=self.text_keys,
        )
        (directory / "meta.json").write_text(json.dumps(self.meta, indent=1, sort_keys=True))

    @classmethod
    def load(cls, directory: Path) -> Activations:
        """Read what :meth:`save` wrote; states stay on disk and are read a layer at a time."""
        with np.load(directory / "rows.npz") as rows:
            return cls(
                states=np.load(directory / "states.npy", mmap_mode="r"),
                pooled=np.load(directory / "pooled.npy").astype(np.float32, copy=False),
                meta=json.loads((directory / "meta.json").read_text()),
                **{name: rows[name] for name in ("text_ids", "token_ids", "positions", "text_keys")},
            )

    @classmethod
    def from_pooled(cls, pooled: Any, meta: dict[str, Any] | None = None) -> Activations:
        """Treat each text's embedding (L, n, d) as its one token.

        This compares models on text level, or one model with itself across languages: pass the
        embeddings of parallel texts, row i of both being translations of one another.
        """
        values = np.asarray(pooled, dtype=np.float32)
        if values.ndim != 3:
            raise ValueError(f"pooled must have shape (layers, texts, dimensions), got {values.shape}")
        rows = np.arange(values.shape[1])
        zeros = np.zeros_like(rows)
        return cls(values, rows, zeros, zeros, values, rows.astype(np.uint64), meta or {"level": "text"})


def sample_tokens(ids: list[list[int]], tokens: int, seed: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
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
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
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
        texts: what to read; none may be empty.
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
    encoded = encode(tokenizer, texts, max_tokens, _position_limit(model))
    sample, keys = sample_tokens(encoded.ids, tokens, seed)
    rows_of: dict[int, NDArray[np.int64]] = {}
    by_text = np.argsort(sample[:, 0], kind="stable")
    bounds = np.searchsorted(sample[by_text, 0], np.arange(len(texts) + 1))
    for i in range(len(texts)):
        rows_of[i] = by_text[bounds[i] : bounds[i + 1]]
    states: NDArray[np.float32] | None = None
    pooled: NDArray[np.float32] | None = None
    token_ids = np.array([encoded.ids[i][p] for i, p in sample], dtype=np.int64)
    for batch in _forward(model, tokenizer, encoded, token_budget, layers, progress):
        if states is None or pooled is None:
            depth, width = len(batch.layers), batch.layers[0].shape[-1]
            states = np.empty((depth, len(sample), width), dtype=np.float32)
            pooled = np.empty((depth, len(texts), width), dtype=np.float32)
        rows = np.concatenate([rows_of[int(i)] for i in batch.texts])
        where = np.repeat(np.arange(len(batch.texts)), [len(rows_of[int(i)]) for i in batch.texts])
        take = torch.from_numpy(where * batch.mask.shape[1] + sample[rows, 1]).to(batch.mask.device)
        weights = batch.mask[:, None, :].float() / batch.mask.sum(1)[:, None, None]
        for layer, values in enumerate(batch.layers):
            flat = values.reshape(-1, values.shape[-1])
            states[layer, rows] = flat[take].float().cpu().numpy()
            pooled[layer, batch.texts] = (weights @ values.float())[:, 0].cpu().numpy()
        del batch, values, flat  # before the next one is read
    total = sum(map(len, encoded.ids))
    config = getattr(model, "config", None)
    meta = {
        "texts": len(texts),
        "tokens_read": total,
        "tokens_sampled": len(sample),
        "truncated": encoded.truncated,
        "max_tokens": max_tokens,
        "seed": seed,
        "attention": {True: "causal", False: "bidirectional"}.get(
            cast(bool, getattr(config, "is_causal", None)), "model default"
        ),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "seconds": round(time.perf_counter() - started, 3),
    }
    assert states is not None  # encode() refuses an empty list
    assert pooled is not None
    if not (np.isfinite(states).all() and np.isfinite(pooled).all()):
        layer = int(
            np.argmin(
                [np.isfinite(s).all() and np.isfinite(p).all() for s, p in zip(states, pooled, strict=True)]
            )
        )
        raise ValueError(f"states of layer {layer} are not finite; the model overflowed {meta['dtype']}")
    return Activations(states, sample[:, 0], token_ids, sample[:, 1], pooled, keys, meta)
