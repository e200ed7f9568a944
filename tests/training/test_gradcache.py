"""Claims about cached gradients: exact in any chunking and in any number of processes."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaModel

from realign.models.batching import pad
from realign.training import gradcache, sharding
from realign.training.data import TrainingBatch
from realign.training.infonce import LossSettings

TIGHT = {torch.float64: 1e-10, torch.float32: 1e-5}


def tiny(dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_dropout=dropout,
        initializer_range=0.2,
        pad_token_id=0,
    )
    model = LlamaModel(config)
    model.config.is_causal = False
    return model.to(dtype).train()


def make_batch(
    negatives: tuple[int, ...] = (2, 0, 1, 2, 1, 0, 3), skip: int = 3, repeats: bool = True
) -> TrainingBatch:
    generator = np.random.default_rng(1)
    ids: list[list[int]] = []
    skips: list[int] = []
    content: list[int] = []

    def add(instruction: bool) -> int:
        length = int(generator.integers(3, 17))
        ids.append(generator.integers(1, 50, length + skip * instruction).tolist())
        skips.append(skip * instruction)
        content.append(len(content))
        return len(ids) - 1

    queries = [add(True) for _ in negatives]
    candidates = [add(False) for _ in negatives] + [add(False) for n in negatives for _ in range(n)]
    if repeats:
        candidates[-1] = candidates[1]  # one query's negative is another's positive
        content[candidates[2]] = content[queries[4]]  # a passage that says what a query says
    return TrainingBatch("test", ids, skips, queries, candidates, content)


def reference_vectors(model: torch.nn.Module, batch: TrainingBatch) -> torch.Tensor:
    """One text at a time, without padding, pooled by hand."""
    rows = []
    for ids, skip in zip(batch.ids, batch.skip, strict=True):
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0, skip:]
        mean = states.mean(0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


def reference_loss(vectors: torch.Tensor, batch: TrainingBatch, settings: LossSettings) -> torch.Tensor:
    """The definition, with loops; of shortened vectors too where the settings name lengths."""
    lengths = (vectors.shape[1], *settings.dimensions)
    shortened = [vectors[:, :d] / vectors[:, :d].norm(dim=1, keepdim=True) for d in lengths]
    return torch.stack([reference_loss_of(v, batch, settings) for v in shortened]).mean()


def reference_loss_of(vectors: torch.Tensor, batch: TrainingBatch, settings: LossSettings) -> torch.Tensor:

    def one_way(asked: list[int], offered: list[int]) -> torch.Tensor:
        terms = []
        for i, q in enumerate(asked):
            kept = []
            for j, c in enumerate(offered):
                same = batch.content[c] in (batch.content[offered[i]], batch.content[q])
                cosine = vectors[q] @ vectors[c]
                own = vectors[q] @ vectors[offered[i]]
                above = settings.margin is not None and bool(cosine > own + settings.margin)
                if i == j or not ((same and settings.mask_false_negatives) or above):
                    kept.append(cosine / settings.temperature)
            own = vectors[q] @ vectors[offered[i]] / settings.temperature
            terms.append(torch.logsumexp(torch.stack(kept), 0) - own)
        return torch.stack(terms).mean()

    forward = one_way(batch.queries, batch.candidates)
    if not settings.symmetric:
        return forward
    size = len(batch.queries)
    # a positive is compared with all queries; whether a pair is a false negative is the query's matter
    terms = []
    for j in range(size):
        kept = []
        for i in range(size):
            q, c, p = batch.queries[i], batch.candidates[j], batch.candidates[i]
            same = batch.content[c] in (batch.content[p], batch.content[q])
            if i == j or not (same and settings.mask_false_negatives):
                kept.append(vectors[q] @ vectors[c] / settings.temperature)
        own = vectors[batch.queries[j]] @ vectors[batch.candidates[j]] / settings.temperature
        terms.append(torch.logsumexp(torch.stack(kept), 0) - own)
    return (forward + torch.stack(terms).mean()) / 2


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest difference of any two gradients, relative to the largest entry of that parameter's gradient."""
    assert a.keys() == b.keys()
    assert a
    return max(float((a[n] - b[n]).abs().max() / b[n].abs().max()) for n in a if b[n].any())


def cached(model: torch.nn.Module, batch: TrainingBatch, settings: LossSettings, chunk_tokens: int = 40):
    model.zero_grad()
    result = gradcache.backward(model, batch, settings, chunk_tokens=chunk_tokens)
    return result, gradients(model)


def plain(model: torch.nn.Module, batch: TrainingBatch, settings: LossSettings):
    model.zero_grad()
    loss = reference_loss(reference_vectors(model, batch), batch, settings)
    loss.backward()
    return float(loss.detach()), gradients(model)


SETTINGS = {
    "paper": LossSettings(),
    "warm": LossSettings(temperature=0.5),
    "unmasked": LossSettings(temperature=0.1, mask_false_negatives=False),
    "symmetric": LossSettings(temperature=0.1, symmetric=True),
    "margin": LossSettings(temperature=0.1, margin=0.05),
    "matryoshka": LossSettings(temperature=0.1, dimensions=(4, 8)),
}


@pytest.mark.parametrize("dtype", TIGHT)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_cached_equals_plain_in_loss_and_every_gradient(settings: LossSettings, dtype: torch.dtype) -> None:
    model, batch = tiny(dtype), make_batch()
    result, ours = cached(model, batch, settings)
    loss, expected = plain(model, batch, settings)
    assert result.chunks > 3
    assert result.loss == pytest.approx(loss, abs=TIGHT[dtype])
    assert difference(ours, expected) < TIGHT[dtype]


@pytest.mark.parametrize("dtype", TIGHT)
@pytest.mark.parametrize("chunk_tokens", [1, 17, 64, 10_000])
@pytest.mark.parametrize("negatives", [(0, 0, 0), (3, 0, 1, 2)])
def test_the_chunking_never_matters(
    dtype: torch.dtype, chunk_tokens: int, negatives: tuple[int, ...]
) -> None:
    model, batch = tiny(dtype), make_batch(negatives, repeats=False)
    settings = LossSettings(temperature=0.1)
    result, ours = cached(model, batch, settings, chunk_tokens)
    loss, expected = plain(model, batch, settings)
    assert result.loss == pytest.approx(loss, abs=TIGHT[dtype])
    assert difference(ours, expected) < TIGHT[dtype]
    assert result.passes == (1 if chunk_tokens == 10_000 else 2)


def test_the_comparison_can_fail() -> None:
    # guard: one candidate fewer, another temperature, an instruction that is pooled: all are seen
    model, batch = tiny(), make_batch()
    settings = LossSettings(temperature=0.1)
    _, ours = cached(model, batch, settings)
    fewer = TrainingBatch(
        batch.name, batch.ids, batch.skip, batch.queries, batch.candidates[:-2], batch.content
    )
    pooled = TrainingBatch(
        batch.name, batch.ids, [0] * len(batch.ids), batch.queries, batch.candidates, batch.content
    )
    for other in (plain(model, fewer, settings), plain(model, pooled, settings)):
        assert difference(ours, other[1]) > 1e-3
    assert difference(ours, plain(model, batch, LossSettings(temperature=0.11))[1]) > 1e-3
    # and so is an error of a hundredth of a percent in one tensor
    wrong = {**ours, "norm.weight": ours["norm.weight"] * 1.0001}
    assert difference(wrong, ours) > 5 * TIGHT[torch.float32]


@pytest.mark.parametrize("dtype", TIGHT)
def test_one_pass_and_two_passes_agree_under_dropout_because_it_is_replayed(dtype: torch.dtype) -> None:
    # with dropout there is no plain reference but the graph of the first pass itself: record the masks
    model, batch = tiny(dtype, dropout=0.3), make_batch()
    settings = LossSettings(temperature=0.1)
    torch.manual_seed(5)
    result, ours = cached(model, batch, settings, 40)
    torch.manual_seed(5)
    model.zero_grad()
    lengths = [len(row) for row in batch.ids]
    parts, places = [], []
    for chunk in gradcache.length_groups(lengths, 40):
        ids, attention, pooling = pad([batch.ids[u] for u in chunk], [batch.skip[u] for u in chunk], 0)
        states = model(input_ids=ids, attention_mask=attention).last_hidden_state
        means = (states * pooling[..., None]).sum(1) / pooling.sum(1, keepdim=True)
        parts.append(means / means.norm(dim=1, keepdim=True))
        places += chunk
    vectors = torch.cat(parts)[torch.tensor(places).argsort()]
    loss = reference_loss(vectors, batch, settings)
    loss.backward()
    assert result.loss == pytest.approx(float(loss.detach()), abs=TIGHT[dtype])
    assert difference(ours, gradients(model)) < TIGHT[dtype]
    torch.manual_seed(6)
    assert difference(cached(model, batch, settings, 40)[1], ours) > 1e-3


def test_the_random_state_goes_on_as_after_one_pass() -> None:
    model, batch = tiny(dropout=0.3), make_batch()
    torch.manual_seed(5)
    cached(model, batch, LossSettings(), 40)
    after = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():
        for chunk in gradcache.length_groups([len(row) for row in batch.ids], 40):
            ids, attention, _ = pad([batch.ids[u] for u in chunk], [0] * len(chunk), 0)
            model(input_ids=ids, attention_mask=attention)
    assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("dtype", TIGHT)
@pytest.mark.parametrize("change", ["lora", "checkpointing"])
def test_cached_equals_plain_with_adapters_and_gradient_checkpointing(
    change: str, dtype: torch.dtype
) -> None:
    from peft import LoraConfig, get_peft_model

    model: torch.nn.Module = tiny(dtype)
    if change == "lora":
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
        model = model.to(dtype)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch, settings = make_batch(), LossSettings(temperature=0.1)
    result, ours = cached(model, batch, settings)
    loss, expected = plain(model, batch, settings)
    assert all("lora" in name for name in ours) == (change == "lora")
    assert result.loss == pytest.approx(loss, abs=TIGHT[dtype])
    assert difference(ours, expected) < TIGHT[dtype]


def test_autocast_of_the_first_pass_does_not_take_gradients_away() -> None:
    model, batch = tiny(torch.float32), make_batch()

    def autocast():
        return torch.autocast("cpu", torch.bfloat16)

    settings = LossSettings(temperature=0.5)
    _, exact = cached(model, batch, settings, 10_000)
    for chunk_tokens in (40, 10_000):
        model.zero_grad()
        gradcache.backward(model, batch, settings, chunk_tokens=chunk_tokens, autocast=autocast)
        ours = gradients(model)
        assert ours.keys() == exact.keys()
        total = torch.cat([g.flatten() for g in ours.values()])
        wanted = torch.cat([g.flatten() for g in exact.values()])
        assert float(torch.cosine_similarity(total, wanted, dim=0)) > 0.98


class _Watched(torch.autograd.Function):
    """Identity whose graph node holds a :class:`_Node`, to see from outside how long it lives."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, nodes: weakref.WeakSet[Any]) -> torch.Tensor:
        ctx.node = _Node()
        nodes.add(ctx.node)
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return gradient, None


class _Node:
    pass


def test_memory_is_flat_because_chunks_come_shortest_first_and_none_keeps_its_graph() -> None:
    model, nodes, alive, positions = tiny(), weakref.WeakSet(), [], []

    def watched(input_ids: torch.Tensor, **options: Any) -> Any:
        if torch.is_grad_enabled():
            alive.append(len(nodes))
            positions.append(input_ids.shape[1])
        output = model(input_ids=input_ids, **options)
        output.last_hidden_state = _Watched.apply(output.last_hidden_state, nodes)
        return output

    result = gradcache.backward(watched, make_batch(), LossSettings(), chunk_tokens=40)
    assert result.passes == 2
    assert alive == [0] * result.chunks
    assert positions == sorted(positions)
    assert len(set(positions)) > 1


def test_groups_hold_every_text_once_within_the_budget_and_pad_little() -> None:
    lengths = np.random.default_rng(0).lognormal(3.3, 0.8, 200).astype(int).clip(2, 256).tolist()
    groups = gradcache.length_groups(lengths, 2048)
    assert sorted(i for group in groups for i in group) == list(range(200))
    padded = [max(lengths[i] for i in group) * len(group) for group in groups]
    assert max(padded) <= 2048
    assert sum(padded) < 1.25 * sum(lengths)
    assert len(gradcache.length_groups([9] * 20, 2048)) == 1


def test_a_batch_that_fits_is_done_in_one_pass_of_several_groups(monkeypatch) -> None:
    monkeypatch.setattr(gradcache, "BUSY", 8)
    model, batch = tiny(), make_batch()
    settings = LossSettings(temperature=0.1)
    result, ours = cached(model, batch, settings, 10_000)
    loss, expected = plain(model, batch, settings)
    assert (result.passes, result.chunks > 2) == (1, True)
    assert result.padded_tokens < 1.3 * batch.tokens
    assert result.loss == pytest.approx(loss, abs=1e-10)
    assert difference(ours, expected) < 1e-10


def _shared_models() -> dict[str, torch.nn.Module]:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    checkpointing = tiny()
    checkpointing.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapted = get_peft_model(tiny(), lora).to(torch.float64)
    return {"full": tiny(), "checkpointing": checkpointing, "lora": adapted}


def _process(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    settings = LossSettings(temperature=0.1, symmetric=True)
    ours: dict[Any, Any] = {}
    for way in ("ddp", "fsdp"):
        for kind, model in _shared_models().items():
            if way == "ddp":
                wrapped: torch.nn.Module = torch.nn.parallel.DistributedDataParallel(model)
            else:
                sharding.shard(model, torch.device("cpu"))
                wrapped = model
            result = gradcache.backward(wrapped, make_batch(), settings, chunk_tokens=40, distributed=True)
            held = sum(p.to_local().numel() if way == "fsdp" else p.numel() for p in model.parameters())
            grads = {name: sharding.whole(g) for name, g in gradients(model).items()}
            ours[kind, way] = (result.loss, result.tokens, held, grads)
    # bfloat16 passes over float32 weights, as the trainer makes them
    half = tiny(torch.float32)
    sharding.shard(half, torch.device("cpu"))
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, cache_enabled=False)
    soft = LossSettings(temperature=0.5)
    gradcache.backward(half, make_batch(), soft, chunk_tokens=40, autocast=autocast, distributed=True)
    ours["bfloat16"] = {name: sharding.whole(g) for name, g in gradients(half).items()}
    torch.save(ours, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_of_one_whether_weights_are_shared_out_or_not(tmp_path) -> None:
    torch.multiprocessing.spawn(_process, (2, str(tmp_path)), nprocs=2)
    ours = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    batch = make_batch()
    for kind, model in _shared_models().items():
        result, expected = cached(model, batch, LossSettings(temperature=0.1, symmetric=True))
        size = sum(p.numel() for p in model.parameters())
        for way in ("ddp", "fsdp"):
            results = [one[kind, way] for one in ours]
            assert sum(tokens for _, tokens, *_ in results) == batch.tokens  # the work is shared
            held = [rank_held for _, _, rank_held, _ in results]
            assert sum(held) == (size if way == "fsdp" else 2 * size)  # and so are the weights
            assert max(held) < 0.6 * size or way == "ddp"
            for loss, *_ in results:
                assert loss == pytest.approx(result.loss, abs=1e-10)
            assert difference(results[0][3], expected) < 1e-10
    _, exact = cached(tiny(torch.float32), batch, LossSettings(temperature=0.5))
    half = ours[0]["bfloat16"]
    assert half.keys() == exact.keys()
    vectors = [torch.cat([grads[name].flatten() for name in exact]) for grads in (half, exact)]
    assert float(torch.cosine_similarity(*vectors, dim=0)) > 0.98


@given(st.lists(st.integers(1, 30), min_size=3, max_size=25), st.integers(2, 3), st.integers(8, 64))
def test_all_processes_make_the_same_number_of_passes_over_all_texts_once(lengths, world, budget) -> None:
    batch = TrainingBatch(
        "set", [[1] * n for n in lengths], [0] * len(lengths), [0], [1], list(range(len(lengths)))
    )
    seen = [gradcache.passes(batch, rank, world, budget) for rank in range(world)]
    assert len({len(chunks) for chunks in seen}) == 1
    assert all(chunk for chunks in seen for chunk in chunks)
    assert sorted(u for chunks in seen for chunk in chunks for u in chunk) == list(range(len(lengths)))
