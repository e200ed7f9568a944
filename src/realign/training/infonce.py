"""The InfoNCE loss of a batch's vectors, which pairs count as negatives, and statistics of the vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from realign.training.data import TrainingBatch


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


def false_negatives(batch: TrainingBatch, device: torch.device | str = "cpu") -> Tensor:
    """Return (B, C) bool: True where another candidate has the text of the query or of its positive."""
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
