"""Reading groups of completions, each after one copy of its prompt, without logits that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from realign.behaviour.generation import GROUPED, attention, causal_lm
from realign.errors import RealignError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class Packed(NamedTuple):
    """Groups of completions, each group in one row after its prompt: what is shared is read once.

    ``ids`` and ``positions`` (groups, width) are padded on the right; ``mask`` (groups, 1, width, width) is added to
    scores, so that a token sees its prompt and its own completion; ``at`` (tokens, 2) is row and column of the
    state before each completion token, ``targets`` (tokens,) that token, and ``owner`` (tokens,) the index of
    its completion, counted through all groups.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    at: Tensor
    targets: Tensor
    owner: Tensor


def pack(
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[Sequence[int]]],
    pad: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Packed:
    """Pack prompts with their completions; the last token of a completion is only a target."""
    lengths = [len(p) + sum(len(c) - 1 for c in g) for p, g in zip(prompts, groups, strict=True)]
    shape = len(prompts), max(lengths)
    ids, positions = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    segment = torch.full(shape, -1)  # 0: prompt, 1...: completions, -1: padding
    at: list[tuple[int, int]] = []
    targets: list[int] = []
    owner: list[int] = []
    count = 0
    for row, (prompt, group) in enumerate(zip(prompts, groups, strict=True)):
        end = len(prompt)
        ids[row, :end], positions[row, :end], segment[row, :end] = torch.tensor(prompt), torch.arange(end), 0
        for number, completion in enumerate(group, 1):
            n = len(completion) - 1
            here = slice(end, end + n)
            ids[row, here] = torch.tensor(completion[:-1], dtype=torch.long)
            positions[row, here], segment[row, here] = torch.arange(len(prompt), len(prompt) + n), number
            at += [(row, len(prompt) - 1), *((row, end + i) for i in range(n))]
            targets += completion
            owner += [count] * len(completion)
            end, count = end + n, count + 1
    order = torch.arange(shape[1])
    seen = (segment[:, None, :] == segment[:, :, None]) | (segment[:, None, :] == 0)
    seen &= (order[None, None, :] <= order[None, :, None]) & (segment[:, None, :] >= 0)
    seen |= order[None, None, :] == order[None, :, None]  # a pad sees itself: no row of the softmax is empty
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
    made = ids, positions, mask, torch.tensor(at), torch.tensor(targets), torch.tensor(owner)
    return Packed(*(t.to(device) for t in made))


class _TokenLogProbabilities(torch.autograd.Function):
    """Log-probabilities of tokens under a frozen head, a few rows of logits at a time, forward and backward.

    The gradient of a token's log-probability with respect to its state is W[token] - softmax(W state) W: it is
    made while the logits are there, so that they are neither kept nor made again.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        """Return (tokens,) float32; ``states`` (tokens, d), ``weight`` (vocabulary, d)."""
        chances = torch.empty(len(states), dtype=torch.float32, device=states.device)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            logs = torch.log_softmax((states[part] @ weight.T).float(), dim=-1)
            chances[part] = logs.gather(1, targets[part, None])[:, 0]
            if gradient is not None:
                gradient[part] = weight[targets[part]] - logs.exp_().to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return chances

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the states."""
        (gradient,) = ctx.saved_tensors
        return (outputs[0][:, None] * gradient).to(gradient.dtype), None, None, None


def token_log_probabilities(model: PreTrainedModel | PeftModel, packed: Packed, rows: int = 512) -> Tensor:
    """Return the log-probability (tokens,) float32 of every packed completion token, differentiable.

    Args:
        model: a causal language model whose head is a frozen matrix.
        packed: of :func:`pack`.
        rows: of logits that are there at once.

    Raises:
        RealignError: the head is more than a matrix.
    """
    lm = causal_lm(model)
    head = lm.get_output_embeddings()
    if getattr(head, "bias", None) is not None or getattr(lm.config, "final_logit_softcapping", None):
        raise RealignError(
            f"{type(lm).__name__}: its head has a bias or bounds its logits, which is not supported here"
        )
    with attention(lm, GROUPED):
        states = lm.base_model(
            input_ids=packed.ids, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
        ).last_hidden_state
    before = states[packed.at[:, 0], packed.at[:, 1]]
    weight: Tensor = head.weight  # type: ignore[assignment, union-attr]
    chances: Tensor = _TokenLogProbabilities.apply(before, weight.detach(), packed.targets, rows)
    return chances
