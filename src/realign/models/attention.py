"""How an encoder attends: set in one place after loading, and proven on every model that is loaded.

transformers drops ``is_causal`` from ``from_pretrained`` for Llama without a word, and other ways of asking for
bidirectional attention fail on padded batches only. Gemma 3 has a flag of its own, ``use_bidirectional_attention``:
given before loading it halves the window of the sliding layers, and set afterwards it is saved with twice
the window. ``is_causal`` keeps the window of pretraining, on either side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realign.config import Attention
from realign.errors import RealignError
from realign.models.batching import pad_token_id

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def set_attention(model: PreTrainedModel, attention: Attention) -> None:
    """Let a model without head attend in one mode, which is saved with its configuration."""
    model.config.is_causal = attention == "causal"


def prove_attention(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, attention: Attention) -> None:
    """Prove on one short sequence that an encoder attends as asked and ignores padding.

    Perturbing the last token must change the first token's state when ``attention`` is "bidirectional" and
    must leave it when "causal"; so must, in each single layer, a change of the last token's input and the token
    before it: one causal layer, such as those with a sliding window, would not show in the whole. Padding on
    the left or the right must not change the states of the text. Tolerances are relative norms and allow for
    the model's own rounding.

    Raises:
        RealignError: if the model does otherwise, or its states are not numbers.
    """
    import torch

    name, half = type(model).__name__, next(model.parameters()).dtype != torch.float32
    plain, perturbed, padded = _probe_states(model, tokenizer)
    if not bool(torch.isfinite(plain).all()):
        raise RealignError(f"{name}: the states of a short text are NaN or infinite: check the weights")
    moved = _distance(perturbed[0], plain[0])
    if attention == "bidirectional" and moved < (2e-2 if half else 1e-4):
        raise RealignError(
            f"{name} was asked for bidirectional attention but is causal: the first token's state "
            "does not change with the last token; set model.config.is_causal = False after loading "
            "(transformers >= 5.2) or use attention = 'causal'"
        )
    if attention == "causal" and moved > (2e-2 if half else 1e-5):
        raise RealignError(
            f"{name} was asked for causal attention but the first token's state changes with the "
            f"last token (by {moved:.1e}); set model.config.is_causal = True or use attention = 'bidirectional'"
        )
    for layer, moved in enumerate(_moved_in_layers(model, tokenizer)):
        if (moved > (2e-2 if half else 1e-5)) if attention == "causal" else (moved < 1e-4):
            other = "bidirectional" if attention == "causal" else "causal"
            raise RealignError(
                f"{name} was asked for {attention} attention but its layer {layer} is {other}: this version of "
                "transformers does not set every layer of this model by model.config.is_causal; use another model"
            )
    for side, states in padded.items():
        error = _distance(states, plain)
        if not error < (0.15 if half else 1e-3):
            raise RealignError(
                f"{name}: {side} padding changes the states of the text by {error:.1e} (relative), "
                "so results would depend on the batch; this model or attention implementation cannot be used"
            )


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def _probe_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer("A proof in seven words, 1 to 7.").input_ids)[:12]


def _states(model: PreTrainedModel, rows: list[list[int]], masks: list[list[int]]) -> torch.Tensor:
    """Return the last states (B, T, d) in float32, dropout off."""
    import torch

    device, training = next(model.parameters()).device, model.training
    model.eval()
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(masks, device=device),
            use_cache=False,
        )
    model.train(training)
    states: torch.Tensor = out.last_hidden_state
    return states.float()


def _probe_states(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Return states (T, d) of a short text as it is, with another last token, and padded, by side."""
    ids = _probe_ids(tokenizer)
    other = next(i for i in range(len(tokenizer) - 1, 0, -1) if i not in (*ids, *tokenizer.all_special_ids))
    # Padding beyond a short sliding window has nothing to look at: its states must not spoil the text's.
    window = getattr(getattr(model, "config", None), "sliding_window", None) or 0
    n = window + 1 if 3 <= window < len(ids) else 3
    pad = [pad_token_id(tokenizer)] * n
    on, off = [1] * len(ids), [0] * n
    plain, perturbed = _states(model, [ids, [*ids[:-1], other]], [on, on])
    # One padded and one full row in a batch: some wrong masks only show when rows differ in length.
    full = [*ids, *ids[:n]]
    right = _states(model, [[*ids, *pad], full], [on + off, [1] * len(full)])[0, : len(ids)]
    left = _states(model, [[*pad, *ids], full], [off + on, [1] * len(full)])[0, n:]
    return plain, perturbed, {"right": right, "left": left}


def _moved_in_layers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """Return, by layer, how far the last token but one moves when only the last token's input is changed there.

    Empty for a model whose layers are not in ``model.layers``.
    """
    moved: list[float] = []

    def change(_: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        states = inputs[0].clone()
        states[1], states[1, -1] = states[0], states[0, -1].flip(-1)
        return (states, *inputs[1:])

    def look(_: object, __: object, output: Any) -> None:
        states = (output[0] if isinstance(output, tuple) else output).float()
        moved.append(_distance(states[1, -2], states[0, -2]))

    ids = _probe_ids(tokenizer)
    hooks = []
    for layer in getattr(model, "layers", ()):
        hooks += [layer.register_forward_pre_hook(change), layer.register_forward_hook(look)]
    try:
        _states(model, [ids, ids], [[1] * len(ids)] * 2)
    finally:
        for hook in hooks:
            hook.remove()
    return moved
