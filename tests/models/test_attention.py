"""Attention: explicit, proven in every layer, the same for any padding, and as wide as in pretraining."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from realign import config
from realign.config import Backbone
from realign.errors import RealignError
from realign.models import loading, pretrained, untrained
from realign.models.attention import prove_attention

TINY = Backbone(source="random:0/llama")
GEMMA = Backbone(source="random:0/gemma3")
EVERY = [Backbone(source=f"random:0/{name}") for name in untrained.ARCHITECTURES]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("backbone", EVERY, ids=str)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_bidirectional_means_that_the_first_token_sees_the_last(
    backbone: Backbone, implementation: str
) -> None:
    changed = {}
    for attention in ("bidirectional", "causal"):
        model, tokenizer = loading.load(backbone, attention=attention, attn_implementation=implementation)  # type: ignore[arg-type]
        ids = tokenizer(["abcdef", "abcdeX"], return_tensors="pt")
        with torch.no_grad():
            first = model(**ids).last_hidden_state[:, 0]
        changed[attention] = not torch.allclose(first[0], first[1], atol=1e-5)
    assert changed == {"bidirectional": True, "causal": False}


def test_the_proof_catches_a_causal_model_presented_as_bidirectional() -> None:
    model, tokenizer = loading.load(TINY, attention="causal")
    with pytest.raises(RealignError, match="is causal"):
        prove_attention(model, tokenizer, "bidirectional")
    model, tokenizer = loading.load(TINY, attention="bidirectional")
    with pytest.raises(RealignError, match="asked for causal"):
        prove_attention(model, tokenizer, "causal")


def test_the_proof_catches_a_model_whose_padding_leaks() -> None:
    model, tokenizer = loading.load(TINY, attention="bidirectional")

    class Leaky(torch.nn.Module):
        """Ignores the attention mask, so padding is read as text."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=torch.ones_like(attention_mask))

    with pytest.raises(RealignError, match="right padding changes"):
        prove_attention(Leaky(), tokenizer, "bidirectional")  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", EVERY, ids=str)
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_the_side_of_the_padding_does_not_change_a_state(
    backbone: Backbone, attention: config.Attention
) -> None:
    model, tokenizer = loading.load(backbone, attention=attention)
    texts = ["a short one", "and one that is quite a bit longer than it"]
    states_by_side = []
    for side in ("left", "right"):
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side=side)
        with torch.no_grad():
            states = model(**batch).last_hidden_state
        states_by_side.append([s[m.bool()] for s, m in zip(states, batch.attention_mask, strict=True)])
    for left, right in zip(*states_by_side, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_proof_names_a_layer_that_attends_otherwise(layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sliding layer that stayed causal, or a full one: the first token would see the last all the same."""
    from transformers.models.gemma3 import modeling_gemma3

    model, tokenizer = loading.load(GEMMA, attention="bidirectional")
    name = ("create_sliding_window_causal_mask", "create_causal_mask")[layer]
    make = getattr(modeling_gemma3, name)

    def causal(config: Any, **options: Any) -> Any:
        config = copy.copy(config)
        config.is_causal = True
        return make(config=config, **options, allow_is_causal_skip=False)

    monkeypatch.setattr(modeling_gemma3, name, causal)
    # the text is longer than the window, so that only the full layer joins its ends
    with pytest.raises(RealignError, match="but its layer 0 is causal" if layer == 0 else "but is causal"):
        prove_attention(model, tokenizer, "bidirectional")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_a_sliding_layer_sees_the_window_of_pretraining_on_either_side(
    attention: config.Attention, implementation: str, tmp_path: Path
) -> None:
    model, tokenizer = loading.load(GEMMA, attention=attention, attn_implementation=implementation)
    pretrained.save(model, tokenizer, tmp_path)
    window = model.config.sliding_window
    ids = torch.randint(4, 260, (1, 40), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 20] = (ids[0, 20] + 7) % 250 + 5
    for encoder in (model, pretrained.encoder(tmp_path, attn_implementation=implementation)):
        assert encoder.config.sliding_window == window
        with torch.no_grad():
            one, two = (
                encoder(
                    input_ids=i, attention_mask=torch.ones_like(i), output_hidden_states=True
                ).hidden_states[1]
                for i in (ids, other)
            )
        moved = ((one - two).norm(dim=-1)[0] > 1e-6).nonzero().flatten().tolist()
        # transformers counts the window itself to either side, and without its last token backwards
        assert moved == list(
            range(20, 20 + window) if attention == "causal" else range(20 - window, 21 + window)
        )
