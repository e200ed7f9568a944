"""Cached gradients (GradCache, Gao et al. 2101.06983) in chunks bounded by tokens.

A batch is its distinct texts plus indices: each text is encoded once however often it occurs. Texts of
similar length share a forward pass, so little is padded. A batch that fits the budget as a whole is done
in one pass; a larger one is encoded without a graph first, and again chunk by chunk with the gradients of
the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from realign.models.batching import budget_batches, pad
from realign.models.embedder import mean_pool
from realign.training.data import TrainingBatch
from realign.training.infonce import LossSettings, false_negatives, nested_info_nce, statistics

# A new pass starts where lengths have fallen by this share, once the old one has this many positions.
FALL = 0.25
BUSY = 256


class States(Protocol):
    """What an encoder returns."""

    @property
    def last_hidden_state(self) -> Tensor:
        """(B, T, d)."""
        ...


class TokenEncoder(Protocol):
    """A transformers model without head, or anything that is called like one."""

    def __call__(self, *, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> States:
        """Encode (B, T) token ids."""
        ...


Autocast = Callable[[], AbstractContextManager[object]]


class _RandomState:
    """Random state at the start of a chunk, so that dropout is the same in both passes."""

    def __init__(self, device: torch.device) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self.device = device

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)


def length_groups(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group texts by length for forward passes: at most ``budget`` positions each, little padding."""
    return list(budget_batches(lengths, budget, fall=FALL, busy=BUSY))


def passes(batch: TrainingBatch, rank: int, world: int, budget: int) -> list[list[int]]:
    """Return the texts of each forward pass that one of several processes makes, longest first.

    Every process gets long and short texts alike, and all make the same number of passes, because sharded
    weights (FSDP) are gathered by all processes together. A text left over by the division joins the last
    pass, which may then exceed the budget by one text, of the shortest.
    """
    ranked = sorted(range(len(batch.ids)), key=lambda u: (-len(batch.ids[u]), u))
    mine = ranked[rank::world]
    rounds = len(ranked) // world
    groups = length_groups([len(batch.ids[u]) for u in ranked[: rounds * world : world]], budget)
    groups[-1] += range(rounds, len(mine))
    return [[mine[i] for i in group] for group in groups]


@dataclass(frozen=True)
class StepResult:
    """What one batch gave: loss and statistics over all processes, work of this process."""

    loss: float
    statistics: dict[str, float]
    tokens: int
    padded_tokens: int
    chunks: int
    passes: int
    """2 where the gradients were cached."""


class _ChunkEncoder:
    """Encodes chunks of a batch's texts, and counts the positions that it computes."""

    def __init__(self, model: TokenEncoder, batch: TrainingBatch, pad_id: int, device: torch.device) -> None:
        self.model = model
        self.batch = batch
        self.pad_id = pad_id
        self.device = device
        self.padded_tokens = 0

    def __call__(self, chunk: list[int]) -> Tensor:
        stacked = pad([self.batch.ids[u] for u in chunk], [self.batch.skip[u] for u in chunk], self.pad_id)
        input_ids, attention, pooling = (tensor.to(self.device) for tensor in stacked)
        self.padded_tokens += input_ids.numel()
        states = self.model(input_ids=input_ids, attention_mask=attention, use_cache=False).last_hidden_state
        return mean_pool(states, pooling)


def backward(
    model: TokenEncoder,
    batch: TrainingBatch,
    settings: LossSettings,
    *,
    chunk_tokens: int,
    pad_id: int = 0,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    distributed: bool = False,
) -> StepResult:
    """Add the gradients of the batch's loss to the model's parameters.

    Exact for any ``chunk_tokens``: the gradients are those of one forward pass over the whole batch.

    Args:
        model: the encoder; if there are several processes, wrapped in DistributedDataParallel or sharded
            (:mod:`realign.training.sharding`).
        batch: texts of the step; the same in every process.
        settings: of the loss.
        chunk_tokens: positions (padding included) in one forward pass.
        pad_id: id to fill up with.
        device: where the model lies.
        autocast: makes the context of a forward pass.
        distributed: share the texts among the processes of the default group. Gradients are scaled by
            the number of processes, because both ways of sharing divide by it.
    """
    device = torch.device(device)
    rank, world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    if len(batch.ids) < world:
        raise ValueError(f"{world} processes cannot share a batch of {len(batch.ids)} texts")
    chunks = passes(batch, rank, world, chunk_tokens)
    order = torch.tensor([u for chunk in chunks for u in chunk], device=device)
    encode = _ChunkEncoder(model, batch, pad_id, device)
    fits = sum(len(batch.ids[chunk[0]]) * len(chunk) for chunk in chunks) <= chunk_tokens
    # (DistributedDataParallel's hooks expect one forward pass before each synchronised backward pass)
    one_pass = len(chunks) == 1 or (fits and world == 1)
    if one_pass:
        with autocast():
            graph = torch.cat([encode(chunk) for chunk in chunks])
        local = graph.detach()
    else:
        local, random_states = _encode_without_graph(encode, chunks, autocast)
    vectors = _gather(local, order, len(batch.ids), world).requires_grad_()
    same = false_negatives(batch, device)
    queries, candidates = vectors[batch.queries], vectors[batch.candidates]
    loss = nested_info_nce(queries, candidates, same, settings)
    (gradient,) = torch.autograd.grad(loss, vectors)
    gradient = gradient[order] * world
    if one_pass:
        graph.backward(gradient)
    else:
        _backward_by_chunk(encode, chunks, gradient, random_states, autocast)
    return StepResult(
        float(loss.detach()),
        statistics(queries, candidates, same),
        sum(len(batch.ids[u]) for chunk in chunks for u in chunk),
        encode.padded_tokens,
        len(chunks),
        1 if one_pass else 2,
    )


def _encode_without_graph(
    encode: _ChunkEncoder, chunks: list[list[int]], autocast: Autocast
) -> tuple[Tensor, list[_RandomState]]:
    """Return the vectors of all chunks, and the random state that each chunk began with."""
    states, parts = [], []
    # A context of its own: autocast caches cast weights, and those of a pass without graph would
    # take the gradient away from the next.
    with torch.no_grad(), autocast():
        for chunk in chunks:
            states.append(_RandomState(encode.device))
            parts.append(encode(chunk))
    return torch.cat(parts), states


def _backward_by_chunk(
    encode: _ChunkEncoder,
    chunks: list[list[int]],
    gradient: Tensor,
    states: list[_RandomState],
    autocast: Autocast,
) -> None:
    """Encode every chunk again, with the random state of the first pass, and send its gradient back.

    Memory must not grow with the number of chunks, so: the shortest chunk comes first, because what stays
    allocated (cast weights, gradients) then lies between small blocks and fragments memory least; and no
    chunk's output gets a name, because that would keep its graph alive while the next one is built.
    """
    after = _RandomState(encode.device)
    model = encode.model
    with autocast():
        gradients = gradient.split([len(chunk) for chunk in chunks])
        for index in reversed(range(len(chunks))):
            states[index].restore()
            # DistributedDataParallel averages gradients in the last backward pass alone
            with model.no_sync() if index > 0 and hasattr(model, "no_sync") else nullcontext():
                encode(chunks[index]).backward(gradients[index])
    after.restore()


def _gather(local: Tensor, order: Tensor, total: int, world: int) -> Tensor:
    """Put the vectors of all processes in the order of the batch's texts."""
    vectors = local.new_empty((total, local.shape[1]))
    if world == 1:
        vectors[order] = local
        return vectors
    # the processes' numbers of texts differ by at most one: pad to the largest, gather, drop the padding
    longest = -(-total // world)
    rows = local.new_zeros((longest, local.shape[1]))
    places = order.new_full((longest,), -1)
    rows[: len(local)], places[: len(local)] = local, order
    all_rows = [torch.empty_like(rows) for _ in range(world)]
    all_places = [torch.empty_like(places) for _ in range(world)]
    dist.all_gather(all_rows, rows)
    dist.all_gather(all_places, places)
    where, values = torch.cat(all_places), torch.cat(all_rows)
    vectors[where[where >= 0]] = values[where >= 0]
    return vectors
