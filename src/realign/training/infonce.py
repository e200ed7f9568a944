"""InfoNCE with cached gradients (GradCache, Gao et al. 2101.06983) in chunks bounded by tokens.

A batch is its distinct texts plus indices: each text is encoded once however often it occurs. Texts of
similar length share a forward pass, so little is padded. A batch that fits the budget as a whole is done
in one pass; a larger one is encoded without a graph first, and again chunk by chunk with the gradients of
the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from realign.models.batching import budget_batches, pad
from realign.models.embedder import mean_pool

Tensor = torch.Tensor
# A new pass starts where lengths have fallen by this share, once the old one has this many positions.
FALL = 0.25
BUSY = 256


@dataclass(frozen=True)
class Batch:
    """Texts of one optimiser step, over all processes.

    ``ids[u]`` are the tokens of distinct text u, of which the first ``skip[u]`` (an instruction) are
    read and not pooled. Query i is text ``queries[i]`` with positive ``candidates[i]``; candidates
    beyond the positives are hard negatives. Every query is compared with every candidate.
    """

    name: str
    ids: list[list[int]]
    skip: list[int]
    queries: list[int]
    candidates: list[int]
    # same text with and without instruction is one content: for the false-negative mask
    content: list[int]

    @property
    def tokens(self) -> int:
        """Number of tokens in the distinct texts."""
        return sum(map(len, self.ids))


@dataclass(frozen=True)
class LossSettings:
    """What the loss depends on besides the vectors."""

    temperature: float = 0.02
    symmetric: bool = False
    mask_false_negatives: bool = True
    margin: float | None = None
    """Also drop candidates whose cosine exceeds the positive's by more than this."""
    dimensions: tuple[int, ...] = ()
    """Leading coordinates that must be good vectors too (Matryoshka, Kusupati et al. 2205.13147)."""


def false_negatives(batch: Batch, device: torch.device | str = "cpu") -> Tensor:
    """Return (B, C) bool: True where a candidate is the query's positive or query text in another place."""
    content = torch.tensor(batch.content, device=device)
    queries, candidates = content[batch.queries], content[batch.candidates]
    positives = candidates[: len(batch.queries)]
    same = (positives[:, None] == candidates[None]) | (queries[:, None] == candidates[None])
    same[range(len(batch.queries)), range(len(batch.queries))] = False
    return same


def info_nce(queries: Tensor, candidates: Tensor, same: Tensor, settings: LossSettings) -> Tensor:
    """Mean cross-entropy of each query's positive among all candidates.

    Args:
        queries: (B, d), rows of length 1.
        candidates: (C, d), C >= B, rows of length 1; row i < B is the positive of query i.
        same: (B, C) bool, True where a candidate is no negative (see :func:`false_negatives`).
        settings: temperature and options; ``symmetric`` averages with the direction from positives to
            queries (in-batch queries only).

    Returns:
        Scalar in the dtype of the vectors.
    """
    size = queries.shape[0]
    labels = torch.arange(size, device=queries.device)
    cosine = queries @ candidates.T
    dropped = same if settings.mask_false_negatives else torch.zeros_like(same)
    if settings.margin is not None:
        positive = cosine.diagonal()[:, None].detach()
        dropped = dropped | (cosine.detach() > positive + settings.margin)
    scores = (cosine / settings.temperature).masked_fill(dropped, -torch.inf)
    loss = torch.nn.functional.cross_entropy(scores, labels)
    if not settings.symmetric:
        return loss
    return (loss + torch.nn.functional.cross_entropy(scores[:, :size].T, labels)) / 2


def nested_info_nce(queries: Tensor, candidates: Tensor, same: Tensor, settings: LossSettings) -> Tensor:
    """Mean of :func:`info_nce` over the whole vectors and their first ``settings.dimensions`` coordinates.

    Each shortened vector is normalised again. Without dimensions this is :func:`info_nce` itself.

    Raises:
        ValueError: a dimension is not below the vectors' own.
    """
    whole = info_nce(queries, candidates, same, settings)
    if not settings.dimensions:
        return whole
    width = queries.shape[1]
    if not all(0 < d < width for d in settings.dimensions):
        raise ValueError(f"matryoshka dimensions {settings.dimensions} must lie between 1 and {width - 1}")
    losses = [whole]
    for d in settings.dimensions:
        short = [torch.nn.functional.normalize(v[:, :d], dim=1) for v in (queries, candidates)]
        losses.append(info_nce(short[0], short[1], same, settings))
    return torch.stack(losses).mean()


@torch.no_grad()
def statistics(queries: Tensor, candidates: Tensor, same: Tensor) -> dict[str, float]:
    """In-batch accuracy, alignment, uniformity (Wang & Isola 2005.10242) and the smallest cosine.

    Accuracy is the share of queries whose positive scores highest; alignment the mean squared distance
    of a pair (0 is best); uniformity the log of the mean exp(-2 squared distance) over distinct
    positives (lower is more spread); ``min_cosine`` the smallest cosine between positives (1: collapsed).
    """
    size = queries.shape[0]
    cosine = queries @ candidates.T
    accuracy = (cosine.masked_fill(same, -2).argmax(1) == torch.arange(size, device=cosine.device)).float()
    positives = candidates[:size]
    inner = positives @ positives.T
    off = ~torch.eye(size, dtype=torch.bool, device=inner.device) & ~same[:, :size]
    pairs = inner[off] if bool(off.any()) else inner.flatten()
    return {
        "accuracy": float(accuracy.mean()),
        "alignment": float((2 - 2 * cosine.diagonal()).mean()),
        "uniformity": float(torch.exp(-2 * (2 - 2 * pairs)).mean().log()),
        "min_cosine": float(pairs.min()),
    }


class _Replay:
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


def passes(batch: Batch, rank: int, world: int, budget: int) -> list[list[int]]:
    """Return the texts of each forward pass that one of several processes makes, longest first.

    Every process gets long and short texts alike, and all make the same number of passes: in each of them
    they meet where weights are shared out (FSDP). What does not come out even joins the last pass, so that
    one may exceed the budget by one text, of the shortest.
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


def backward(
    model: Callable[..., Any],
    batch: Batch,
    settings: LossSettings,
    *,
    chunk_tokens: int,
    pad_id: int = 0,
    device: torch.device | str = "cpu",
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    distributed: bool = False,
) -> StepResult:
    """Add the gradients of the batch's loss to the model's parameters.

    Exact for any ``chunk_tokens``: the gradients are those of one forward pass over the whole batch.

    Args:
        model: called with ``input_ids`` and ``attention_mask``, gives ``last_hidden_state``; if there are
            several processes, wrapped in DistributedDataParallel or sharded (:mod:`realign.training.sharding`).
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
    fits = sum(len(batch.ids[chunk[0]]) * len(chunk) for chunk in chunks) <= chunk_tokens
    padded = 0

    def encode(chunk: list[int]) -> Tensor:
        nonlocal padded
        stacked = pad([batch.ids[u] for u in chunk], [batch.skip[u] for u in chunk], pad_id)
        input_ids, attention, pooling = (tensor.to(device) for tensor in stacked)
        padded += input_ids.numel()
        states = model(input_ids=input_ids, attention_mask=attention, use_cache=False).last_hidden_state
        return mean_pool(states, pooling)

    order = torch.tensor([u for chunk in chunks for u in chunk], device=device)
    graph: Tensor | None = None
    replays: list[_Replay] = []
    # (DistributedDataParallel's hooks expect one forward pass before each synchronised backward pass)
    if len(chunks) == 1 or (fits and world == 1):
        with autocast():
            graph = torch.cat([encode(chunk) for chunk in chunks])
        local = graph.detach()
    else:
        # A context of its own: autocast keeps cast weights, and those of a pass without graph would
        # take the gradient away from the next.
        parts = []
        with torch.no_grad(), autocast():
            for chunk in chunks:
                replays.append(_Replay(device))
                parts.append(encode(chunk))
        local = torch.cat(parts)
    vectors = _gather(local, order, len(batch.ids), world).requires_grad_()
    same = false_negatives(batch, device)
    queries, candidates = vectors[batch.queries], vectors[batch.candidates]
    loss = nested_info_nce(queries, candidates, same, settings)
    (gradient,) = torch.autograd.grad(loss, vectors)
    gradient = gradient[order] * world
    if graph is not None:
        graph.backward(gradient)
    else:
        after = _Replay(device)
        with autocast():
            # So that memory does not grow with the number of chunks: shortest first, because what stays (cast
            # weights, gradients) then lies between small blocks; and no chunk's output is kept under a name,
            # because the nodes of its graph part the blocks that it freed, which then cannot be joined.
            shares = gradient.split([len(chunk) for chunk in chunks])
            for index in reversed(range(len(chunks))):
                replays[index].restore()
                sync = nullcontext() if index == 0 or not hasattr(model, "no_sync") else model.no_sync()
                with sync:
                    encode(chunks[index]).backward(shares[index])
        after.restore()
    return StepResult(
        float(loss.detach()),
        statistics(queries, candidates, same),
        sum(len(batch.ids[u]) for chunk in chunks for u in chunk),
        padded,
        len(chunks),
        1 if graph is not None else 2,
    )


def _gather(local: Tensor, order: Tensor, total: int, world: int) -> Tensor:
    """Put the vectors of all processes in the order of the batch's texts."""
    vectors = local.new_empty((total, local.shape[1]))
    if world == 1:
        vectors[order] = local
        return vectors
    # shares differ by at most one text: pad to the longest, gather, and undo both
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
