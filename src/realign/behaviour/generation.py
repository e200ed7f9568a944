"""Sampling from a policy: groups of completions that share the states of their prompt.

transformers' ``generate`` reads a prompt once for each of its completions, copies the whole cache at every token
and repeats keys and values for every query head. Here a prompt is read once, the cache is one block of
memory that tokens are written into, and heads that share keys are multiplied together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.masking_utils import eager_mask

from realign.errors import RealignError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GROUPED = "realign_grouped"  # the name of the attention below in transformers' registry


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' eager attention does, without a copy of keys and values for every query head.

    Args:
        module: the attention layer.
        query: (batch, heads, t, d).
        key: (batch, key heads, s, d).
        value: likewise.
        attention_mask: (batch, 1, t, s), added to the scores.
        scaling: of the scores.
        dropout: not supported, as no model here has any.
        kwargs: what other implementations want.

    Returns:
        (batch, t, heads, d), and no weights.
    """
    batch, heads, t, d = query.shape
    shared = key.shape[1]
    stacked = query.reshape(batch, shared, heads // shared * t, d)
    scores = torch.matmul(stacked * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        by_head = scores.view(batch, shared, heads // shared, t, -1)
        scores = (by_head + attention_mask[:, :, None]).view(scores.shape)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = torch.matmul(weights, value).view(batch, heads, t, d)
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)


@contextmanager
def attention(model: PreTrainedModel, kernel: str) -> Iterator[None]:
    """Let a model attend by another implementation inside the block."""
    before = model.config._attn_implementation
    model.config._attn_implementation = kernel
    try:
        yield
    finally:
        model.config._attn_implementation = before


class BlockLayer(DynamicLayer):
    """Keys and values of one layer in a block of memory with room for the tokens to come.

    All of it is read at every token, what is not written yet under the mask: a part of a block would be copied
    before it is multiplied.
    """

    def __init__(self, keys: Tensor, values: Tensor, copies: int, room: int) -> None:
        """``keys`` and ``values`` (rows, heads, length, d) of the prompts; ``copies`` rows for each of theirs."""
        super().__init__()
        self.dtype, self.device, self.length = keys.dtype, keys.device, keys.shape[2]
        self.keys, self.values = (self._block(x, copies, room) for x in (keys, values))
        self.is_initialized = True

    @staticmethod
    def _block(states: Tensor, copies: int, room: int) -> Tensor:
        rows, heads, length, d = states.shape
        block = states.new_zeros(rows * copies, heads, length + room, d)
        block[:, :, :length] = states.repeat_interleave(copies, dim=0)
        return block

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new tokens, (rows, heads, t, d), and return the block."""
        start, self.length = self.length, self.length + key_states.shape[2]
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_seq_length(self) -> int:
        """Return how many tokens there are."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next ``query_length`` tokens are given, and the first of them."""
        assert self.keys is not None
        return self.keys.shape[2], 0


def causal_lm(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the language model itself, the adapters in its layers kept."""
    if not hasattr(model, "peft_config"):
        return cast("PreTrainedModel", model)
    return cast("PreTrainedModel", cast(Any, model).get_base_model())


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return ids (rows, width) with the padding on the left, and how many pads every row has."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts])
    return ids, torch.tensor([width - len(row) for row in prompts])


def prefix_mask(pads: Tensor, past: int, new: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Return the mask (rows, 1, new, keys) that is added to scores: causal, and blind to pads on the left."""
    at, key = torch.arange(past, past + new, device=pads.device), torch.arange(keys, device=pads.device)
    hidden = (key[None, None, :] > at[None, :, None]) | (key[None, None, :] < pads[:, None, None])
    # A pad sees itself, so that no row of the softmax is empty.
    hidden &= key[None, None, :] != at[None, :, None]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=pads.device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None]


class Samples(NamedTuple):
    """Completions, those of one prompt in a row.

    ``tokens`` are the ids of each, the end marker included where one was written; ``log_probabilities`` those of
    each token as it was drawn (natural logs).
    """

    tokens: list[list[int]]
    log_probabilities: list[list[float]]


@torch.no_grad()
def sample(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    copies: int,
    *,
    max_new_tokens: int,
    generator: torch.Generator | None,
) -> Samples:
    """Continue each prompt ``copies`` times at temperature 1 from the full distribution.

    Args:
        model: a causal language model, adapters and all, on one device.
        tokenizer: names the end marker and the pad.
        prompts: token ids.
        copies: completions of each prompt.
        max_new_tokens: longest completion.
        generator: of the draws, on the CPU; None takes the likeliest token each time.

    Raises:
        RealignError: the model's logits are not numbers.
    """
    lm = causal_lm(model)
    body, head = lm.base_model, lm.get_output_embeddings()
    device, dtype = lm.device, lm.dtype
    ids, pads = (t.to(device) for t in left_padded(prompts, tokenizer.pad_token_id))
    width = ids.shape[1]
    positions = (torch.arange(width, device=device)[None] - pads[:, None]).clamp(min=0)
    written = Samples([[] for _ in range(len(prompts) * copies)], [[] for _ in range(len(prompts) * copies)])
    with attention(lm, GROUPED):
        cache = DynamicCache(config=lm.config)
        out = body(
            input_ids=ids,
            attention_mask=prefix_mask(pads, 0, width, width, dtype),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        first: list[Any] = cache.layers
        layers = [BlockLayer(x.keys, x.values, copies, max_new_tokens) for x in first]
        cache.layers = [*layers]
        states = out.last_hidden_state[:, -1].repeat_interleave(copies, dim=0)
        rows, pads = torch.arange(len(written.tokens)), pads.repeat_interleave(copies)
        for step in range(max_new_tokens):
            tokens, chances = _draw(head(states), generator)
            for row, token, chance in zip(rows.tolist(), tokens.tolist(), chances.tolist(), strict=True):
                written.tokens[row].append(token)
                written.log_probabilities[row].append(chance)
            going = tokens != tokenizer.eos_token_id
            if step + 1 == max_new_tokens or not bool(going.any()):
                break
            if not bool(going.all()):  # rows that have ended are dropped
                keep = going.nonzero()[:, 0]
                rows, pads, tokens = rows[keep.cpu()], pads[keep], tokens[keep]
                for layer in layers:
                    layer.keep(keep)
            past = width + step
            states = body(
                input_ids=tokens[:, None],
                attention_mask=prefix_mask(pads, past, 1, width + max_new_tokens, dtype),
                position_ids=(past - pads)[:, None],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
    return written


def _draw(logits: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draw one token a row from logits (rows, vocabulary), and say how likely it was (natural log)."""
    chances = torch.log_softmax(logits.float(), dim=-1)
    if generator is None:
        drawn = chances.argmax(-1)
    else:
        if not bool(torch.isfinite(chances.sum())):
            raise RealignError("the model's logits are NaN or infinite: nothing can be drawn from them")
        # By inverting the cumulative distribution: one random number a row, torch.multinomial takes one a token.
        summed = chances.exp().cumsum(-1, dtype=torch.float64)
        at = torch.rand(len(summed), 1, generator=generator, dtype=torch.float64).to(logits.device)
        drawn = torch.searchsorted(summed, at * summed[:, -1:], right=True)[:, 0].clamp(
            max=logits.shape[-1] - 1
        )
    return drawn, chances.gather(1, drawn[:, None])[:, 0]
