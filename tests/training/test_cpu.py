"""Claims about what makes a step fast on a CPU: it changes the time, not the result."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaModel, Qwen3Config, Qwen3Model
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from realign.models import loading
from realign.training import cpu


class Layer(torch.nn.Module):
    """What attention reads of a layer."""

    def __init__(self, groups: int, causal: bool = False) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = causal


def inputs(b: int, heads: int, groups: int, t: int, d: int = 8, dtype: torch.dtype = torch.bfloat16):
    """Return query, key and value that need gradients, and a mask with padding at the end of each text."""
    generator = torch.Generator().manual_seed(b * 1000 + heads * 100 + t)
    shapes = [(b, heads, t, d)] + 2 * [(b, heads // groups, t, d)]
    tensors = [(2 * torch.randn(s, generator=generator)).to(dtype).requires_grad_() for s in shapes]
    lengths = torch.randint(1, t + 1, (b,), generator=generator)
    mask = torch.arange(t)[None, :] < lengths[:, None]
    return tensors, mask[:, None, None, :].expand(b, 1, t, t)


def definition(query, key, value, mask, groups: int, scaling: float | None = None):
    """softmax(Q K' / sqrt(d)) V in float64, a loop over texts and heads."""
    rows = []
    for text in range(query.shape[0]):
        heads = []
        for head in range(query.shape[1]):
            q, k, v = query[text, head], key[text, head // groups], value[text, head // groups]
            scores = q @ k.T * (1 / math.sqrt(q.shape[-1]) if scaling is None else scaling)
            heads.append(scores.masked_fill(~mask[text, 0], -math.inf).softmax(-1) @ v)
        rows.append(torch.stack(heads, 1))
    return torch.stack(rows)


def errors(attend, tensors, mask, groups: int, scaling: float | None = None) -> list[float]:
    """Errors of the output and of the three gradients against the definition.

    Relative to its size, and a tenth of what was put in: a text of one token has no gradient but its value's.
    """
    mine = [t.detach().clone().requires_grad_() for t in tensors]
    exact = [t.detach().double().requires_grad_() for t in tensors]
    out, weights = attend(Layer(groups), *mine, mask, scaling=scaling)
    assert weights is None
    assert out.dtype == tensors[0].dtype
    true = definition(*exact, mask, groups, scaling)
    direction = torch.randn(true.shape, generator=torch.Generator().manual_seed(1)).double()
    out.backward(direction.to(out.dtype))
    true.backward(direction)
    pairs = [(out.detach(), true.detach())] + [(m.grad, e.grad) for m, e in zip(mine, exact, strict=True)]
    return [float((a.double() - b).norm() / (b.norm() + 0.1 * b.numel() ** 0.5)) for a, b in pairs]


@settings(deadline=None, max_examples=25)
@given(
    b=st.integers(1, 3),
    shared=st.integers(1, 3),
    groups=st.integers(1, 3),
    t=st.integers(1, 20),
    scaling=st.sampled_from([None, 0.2]),
)
def test_products_give_the_definition_and_its_gradients_to_the_rounding_of_bfloat16(
    b: int, shared: int, groups: int, t: int, scaling: float | None
) -> None:
    tensors, mask = inputs(b, shared * groups, groups, t)
    assert max(errors(cpu.attend, tensors, mask, groups, scaling)) < 0.02


def test_gradients_by_products_are_nearer_to_the_definition_than_torchs_and_values_about_as_near() -> None:
    for t in (5, 17, 48, 128):
        tensors, mask = inputs(4, 6, 3, t)
        out, *ours = errors(cpu.attend, tensors, mask, 3)
        its_out, *its = errors(sdpa_attention_forward, tensors, mask, 3)
        assert out < 1.5 * its_out
        assert all(mine < theirs for mine, theirs in zip(ours, its, strict=True))


@pytest.mark.parametrize(
    ("t", "dtype", "grad"),
    [(cpu.SHORT + 1, torch.bfloat16, True), (8, torch.float32, True), (8, torch.bfloat16, False)],
    ids=["long texts", "float32", "no gradients"],
)
def test_all_else_is_torchs_own_to_the_bit(t: int, dtype: torch.dtype, grad: bool) -> None:
    tensors, mask = inputs(2, 4, 2, t, dtype=dtype)
    tensors = [x.detach().requires_grad_(grad) for x in tensors]
    theirs, _ = sdpa_attention_forward(Layer(2), *tensors, mask)
    assert torch.equal(cpu.attend(Layer(2), *tensors, mask)[0], theirs)


def test_a_causal_layer_without_a_mask_stays_causal() -> None:
    tensors, _ = inputs(1, 2, 1, 6)
    triangle = torch.ones(6, 6).tril().bool()[None, None]
    true = definition(*[t.detach().double() for t in tensors], triangle, 1)
    for mask in (None, triangle):
        out, _ = cpu.attend(Layer(1, causal=True), *tensors, mask)
        assert float((out.double() - true).detach().norm() / true.norm()) < 0.01


def test_a_row_of_padding_that_sees_nothing_is_finite_and_moves_nobody() -> None:
    tensors, _ = inputs(1, 2, 1, 6)
    mask = torch.ones(6, 6).tril().bool()
    mask[:, :2] = False  # padding on the left of a causal model
    out, _ = cpu.attend(Layer(1, causal=True), *tensors, mask[None, None])
    out[:, 2:].sum().backward()
    assert out.isfinite().all()
    for tensor in tensors:
        assert tensor.grad.isfinite().all()
    assert not tensors[1].grad[:, :, :2].any()
    assert not tensors[2].grad[:, :, :2].any()


def test_dropout_leaves_the_mean_and_zeroes_the_share_that_was_asked_for() -> None:
    (query, key, _), _ = inputs(64, 2, 1, 32)
    value = torch.eye(32, dtype=torch.bfloat16).expand(64, 2, 32, 32).contiguous().requires_grad_()
    torch.manual_seed(0)
    wide = [torch.nn.functional.pad(t, (0, 24)) for t in (query, key)]  # heads as wide as texts are long
    weights = cpu.attend(Layer(1), *wide, value, None, dropout=0.25)[0].detach()
    plain = cpu.attend(Layer(1), *wide, value, None)[0].detach()
    dropped = (weights == 0) & (plain > 0)
    assert abs(float(dropped.sum() / (plain > 0).sum()) - 0.25) < 0.01
    assert abs(float(weights.float().sum(-1).mean()) - 1) < 0.02


SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": 0,
}  # fmt: skip


def model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    made = (
        LlamaModel(LlamaConfig(**SIZES)) if kind == "llama" else Qwen3Model(Qwen3Config(**SIZES, head_dim=8))
    )
    made.config.is_causal = False
    return made.train()


def gradients(encoder: torch.nn.Module, half: bool, passes: int = 2) -> dict[str, torch.Tensor]:
    """Gradients after forward and backward passes over batches of padded texts."""
    for index in range(passes):
        ids = torch.randint(1, 40, (3, 9), generator=torch.Generator().manual_seed(index))
        mask = torch.arange(9)[None, :] < torch.tensor([9, 4, 6])[:, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            states = encoder(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
        (states.float()[mask].tanh().sum()).backward()
    return {name: p.grad for name, p in encoder.named_parameters()}


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_prepared_model_has_the_gradients_of_the_plain_one(kind: str) -> None:
    encoder = model(kind)
    plain = gradients(copy.deepcopy(encoder), half=False)
    rounded = gradients(copy.deepcopy(encoder), half=True)
    prepared = copy.deepcopy(encoder)
    cpu.prepare(prepared)
    cpu.prepare(encoder)
    exact = gradients(prepared, half=False)
    ours = gradients(encoder, half=True)
    for name, true in plain.items():
        assert not exact[name].is_sparse
        assert not ours[name].is_sparse
        torch.testing.assert_close(exact[name], true, rtol=1e-5, atol=1e-6)

    def error(gradient: dict[str, torch.Tensor]) -> float:
        return math.sqrt(sum(float((gradient[n] - plain[n]).square().sum()) for n in plain))

    scale = math.sqrt(sum(float(g.square().sum()) for g in plain.values()))
    assert error(ours) < 1.5 * error(rounded)
    assert error(ours) < 0.05 * scale


def test_a_prepared_model_attends_by_products_and_nothing_of_it_is_saved(monkeypatch) -> None:
    seen: list[int] = []
    own = cpu.attend
    monkeypatch.setattr(cpu, "attend", lambda *a, **k: (seen.append(a[1].shape[2]), own(*a, **k))[1])
    encoder = model("llama")
    cpu.prepare(encoder)
    gradients(encoder, half=True, passes=1)
    assert seen == [9, 9]  # both layers
    assert encoder.config.to_dict().get("_attn_implementation") is None


def test_only_embeddings_that_are_trained_are_touched() -> None:
    encoder = model("llama")
    encoder.get_input_embeddings().weight.requires_grad_(False)
    cpu.prepare(encoder)
    assert not encoder.get_input_embeddings().sparse


def test_bidirectional_attention_is_still_proven() -> None:
    from realign import config, paths

    family = config.load_families(paths.data() / "families.toml")["tiny-llama"]
    encoder, tokenizer = loading.load(family.roles["base"], attention="bidirectional")
    cpu.prepare(encoder)
    loading.prove_attention(encoder, tokenizer, "bidirectional")
