"""What a training step needs to be fast on a CPU: attention and the gradient of the token embeddings.

Both keep to public interfaces of transformers and torch, and change no result beyond rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "realign_products"
# torch's own attention needs about 30 ms to go back through a layer in bfloat16, whatever the length (torch 2.13, 1,296
# tokens, 2 cores); products need 6 for texts of 48 tokens, 9 for 128 and hardly less than torch from 256 on.
SHORT = 128


def prepare(encoder: PreTrainedModel) -> None:
    """Make a backbone that lies on a CPU, in one process, ready for training.

    Texts of at most ``SHORT`` tokens are attended by products (:func:`attend`). Token embeddings get the
    gradient of the tokens that occur, added to one dense gradient; torch would fill one of the whole
    vocabulary for every forward pass.
    """
    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    encoder.set_attn_implementation(ATTENTION)
    embeddings = encoder.get_input_embeddings()
    if isinstance(embeddings, torch.nn.Embedding) and embeddings.weight.requires_grad:
        embeddings.sparse = True
        embeddings.weight.register_post_accumulate_grad_hook(_dense)


def _dense(weight: Tensor) -> None:
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.to_dense()


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; by products where torch's own is slow backwards.

    Args:
        module: the attention layer; ``num_key_value_groups`` query heads share a key head.
        query: (B, H, T, D).
        key: (B, H / groups, T, D).
        value: as ``key``.
        attention_mask: True where a query may look, (B or 1, 1, T or 1, T); None is everywhere, or up to
            the query itself if the layer is causal.
        dropout: of the weights.
        scaling: of the scores; 1 / sqrt(D) if None.
        is_causal: see ``attention_mask``.
        kwargs: handed on to torch's own.

    Returns:
        (B, T, H, D), and no weights.
    """
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    b, heads, t, d = query.shape
    slow = half == torch.bfloat16 and query.requires_grad and t <= SHORT and t == key.shape[2]
    plain = not causal if attention_mask is None else attention_mask.dtype == torch.bool
    if not (slow and plain):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
    shared = key.shape[1]
    with torch.autocast("cpu", enabled=False):
        # Query heads of one key head as rows of one product: keys and values are not repeated.
        rows = query.reshape(b, shared, -1, d).float() * (d**-0.5 if scaling is None else scaling)
        scores = rows @ key.float().transpose(2, 3)  # float32: rounded scores would change the weights
        if attention_mask is not None:
            scores = scores.view(b, shared, -1, t, t)
            # (the lowest number, not infinity: a row of padding may have nothing to look at)
            scores = scores.masked_fill(~attention_mask[:, :, None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).to(half).view(b, shared, -1, t)
        weights = torch.nn.functional.dropout(weights, dropout, training=dropout > 0)
        mixed = weights @ value.to(half)
    return mixed.view(b, heads, t, d).transpose(1, 2).contiguous(), None
