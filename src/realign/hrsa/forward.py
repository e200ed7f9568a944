"""One forward pass of a model over texts: the states of every layer, batch by batch.

Texts are read as they are, without special tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa.checks import layer_numbers, text_list, whole_number, whole_numbers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[..., Iterable[list[int]]]
"""Wraps an iterable of batches: ``progress(batches, total=..., desc=...)``."""


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


@dataclass(frozen=True)
class Encoded:
    """Token ids of texts: (n_texts) lists, and how many texts were cut."""

    ids: list[list[int]]
    truncated: int


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], max_tokens: int | None, limit: int | None = None
) -> Encoded:
    """Tokenize without special tokens, cut to ``max_tokens``.

    Raises:
        ValueError: a text is empty, or longer than ``limit`` (what the model can read) after cutting.
    """
    texts = text_list(texts)
    if max_tokens is not None:
        max_tokens = whole_number(max_tokens, "max_tokens")
    if not callable(tokenizer):
        raise ValueError(f"tokenizer must be a tokenizer of transformers, got {type(tokenizer).__name__}")
    whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids = [list(row[:max_tokens]) for row in whole]
    for i, row in enumerate(ids):
        if not row:
            raise ValueError(f"text {i} has no tokens; remove it before comparing models")
        if limit is not None and len(row) > limit:
            raise ValueError(
                f"text {i} has {len(row)} tokens and the model reads {limit}; lower max_tokens to {limit}"
            )
    return Encoded(ids, sum(len(row) > len(cut) for row, cut in zip(whole, ids, strict=True)))


def batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Group texts of similar length so that texts x longest stays within ``token_budget``."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, token_budget // lengths[order[start]])
        yield order[start : start + size]
        start += size


def extract(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
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
        texts: what to read; any iterable of strings, none empty.
        max_tokens: longer texts are cut here; None: refused where the model cannot read them.
        token_budget: padded tokens of one forward pass.
        layers: which of the L layers; None is all.
        progress: wraps the iterable of batches, called as ``progress(batches, total=..., desc=...)``.

    Returns:
        an iterator of Batch, longest texts first. The model is in evaluation mode until it ends.

    Raises:
        ValueError: an argument does not fit; no model is run then.
    """
    token_budget = whole_number(token_budget, "token_budget")
    check_model(model)
    encoded = encode(tokenizer, texts, max_tokens, position_limit(model))
    return forward(model, tokenizer, encoded, token_budget, layers, progress)


def check_model(model: PreTrainedModel, name: str = "model") -> None:
    """Refuse what is not a torch module with parameters."""
    if not isinstance(model, torch.nn.Module) or next(model.parameters(), None) is None:
        raise ValueError(f"{name} must be a transformers model, got {type(model).__name__}")


def position_limit(model: PreTrainedModel) -> int | None:
    """How many tokens the model can read, None where its configuration does not say."""
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None


def forward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Encoded,
    token_budget: int,
    layers: Sequence[int] | None,
    progress: Progress | None,
) -> Generator[Batch]:
    """:func:`extract` of texts that are encoded."""
    if layers is not None:
        depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
        whole = whole_numbers(layers, "layers", least=-(10**6))
        layers = layer_numbers(whole, depth + 1) if isinstance(depth, int) else whole
    if progress is not None and not callable(progress):
        raise ValueError(f"progress must be a function that wraps batches, got {type(progress).__name__}")
    return _batches(model, tokenizer, encoded, token_budget, layers, progress)


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and each of its modules back into its own mode afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Encoded,
    token_budget: int,
    layers: Sequence[int] | None,
    progress: Progress | None,
) -> Generator[Batch]:
    body = model.base_model if hasattr(model, "lm_head") else model  # no need for logits
    device = next(model.parameters()).device
    pad = getattr(tokenizer, "pad_token_id", None) or 0
    plan = list(batches([len(ids) for ids in encoded.ids], token_budget))
    with evaluation_mode(model):
        for index in progress(plan, total=len(plan), desc="reading texts") if progress else plan:
            longest = len(encoded.ids[index[0]])
            ids = torch.full((len(index), longest), pad, dtype=torch.int64)
            mask = torch.zeros(len(index), longest, dtype=torch.bool)
            for row, i in enumerate(index):
                ids[row, : len(encoded.ids[i])] = torch.tensor(encoded.ids[i])
                mask[row, : len(encoded.ids[i])] = True
            ids, mask = ids.to(device), mask.to(device)
            # No reference is kept here, so that the caller can free a batch before the next one is read.
            yield Batch(np.asarray(index), ids, mask, _hidden(body, ids, mask, layers))


def _hidden(
    body: torch.nn.Module, ids: Tensor, mask: Tensor, layers: Sequence[int] | None
) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        states = body(
            input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, use_cache=False
        ).hidden_states
    if layers is None:
        return tuple(states)
    return tuple(states[layer] for layer in layer_numbers(layers, len(states)))
