"""What tuning did to the weights: size, rank, sparsity and direction of the updates of linear layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

# Directions of an update, and of the base weight, that are compared.
TOP, TOP_BASE = 4, 16
_LINEAR = re.compile(r"layers\.(\d+)\..*?(\w+)\.weight$")


@dataclass(frozen=True)
class Update:
    """The update of one weight matrix (out, in).

    Attributes:
        size: Frobenius norm relative to the base weight's.
        rank: effective rank, exp of the entropy of the normalised singular values (Roy & Vetterli 2007).
        moved: share of entries that change when both weights are rounded to bfloat16 (0..1).
        left: (out, TOP) leading left singular vectors; right: (in, TOP).
        overlap: share of the leading left (right) directions that lies in the base weight's TOP_BASE
            leading ones (0..1), and what random directions would give.
    """

    layer: int
    module: str
    size: float
    rank: float
    moved: float
    left: Tensor
    right: Tensor
    overlap: dict[str, float]


def linear_weights(state: Mapping[str, Tensor]) -> dict[tuple[int, str], Tensor]:
    """Return the weight matrices of a decoder's layers by (layer, module); norms and embeddings are left out."""
    return {
        (int(match[1]), match[2]): tensor
        for name, tensor in state.items()
        if (match := _LINEAR.search(name)) and tensor.ndim == 2
    }


def effective_rank(singular: Tensor) -> float:
    """Return exp of the entropy of singular values as shares of their sum: 1 for one direction, n for n equal ones."""
    share = singular.double() / singular.double().sum()
    share = share[share > 0]
    return float(torch.exp(-(share * share.log()).sum()))


def subspace_overlap(a: Tensor, b: Tensor) -> float:
    """Return the mean squared cosine of the principal angles of two subspaces, 0 (orthogonal) to 1 (nested).

    Args:
        a: (d, p) orthonormal columns, p <= q.
        b: (d, q) orthonormal columns. Random subspaces give q / d on average.
    """
    return float((a.T @ b).square().sum() / a.shape[1])


def update_of(
    base: Tensor, tuned: Tensor, layer: int, module: str, *, rank: int | None = None, seed: int = 0
) -> Update | None:
    """Measure the update of one matrix; None if it did not change.

    Args:
        base: (out, in) weight before.
        tuned: (out, in) weight after.
        layer: of the decoder.
        module: name of the matrix.
        rank: largest rank the update can have (a LoRA's); None takes the whole spectrum.
        seed: of the randomised decomposition that finds leading directions.
    """
    base, tuned = base.float(), tuned.float()
    delta = tuned - base
    if not bool(delta.any()):
        return None
    few = min(*delta.shape, max(TOP, rank or 0) + 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(delta, q=few, niter=4)
        base_u, _, base_v = torch.svd_lowrank(base, q=min(*base.shape, TOP_BASE + 8), niter=4)
    spectrum = s[:rank] if rank is not None else torch.linalg.svdvals(delta)
    left, right = u[:, :TOP], v[:, :TOP]
    overlap = {
        "left": subspace_overlap(left, base_u[:, :TOP_BASE]),
        "right": subspace_overlap(right, base_v[:, :TOP_BASE]),
        "left_chance": TOP_BASE / base.shape[0],
        "right_chance": TOP_BASE / base.shape[1],
    }
    moved = (base.bfloat16() != tuned.bfloat16()).float().mean()
    size = float(delta.norm() / base.norm())
    return Update(layer, module, size, effective_rank(spectrum), float(moved), left, right, overlap)


def updates(
    base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], *, rank: int | None = None
) -> dict[tuple[int, str], Update]:
    """Measure the update of every linear layer; see :func:`update_of`.

    Raises:
        ValueError: if the two state dicts do not have the same linear layers.
    """
    before, after = linear_weights(base), linear_weights(tuned)
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        raise ValueError("the two models do not have the same linear layers")
    measured = {key: update_of(before[key], after[key], *key, rank=rank) for key in before}
    return {key: update for key, update in measured.items() if update is not None}


def table(updates: Mapping[tuple[int, str], Update]) -> pd.DataFrame:
    """One row a matrix: layer, module, size, rank, moved, and overlap with the base's leading directions."""
    rows: list[dict[str, Any]] = [
        {"layer": u.layer, "module": u.module, "size": u.size, "rank": u.rank, "moved": u.moved}
        | {f"base_{name}": value for name, value in u.overlap.items()}
        for u in updates.values()
    ]
    return pd.DataFrame(rows)


def agreement(a: Mapping[tuple[int, str], Update], b: Mapping[tuple[int, str], Update]) -> pd.DataFrame:
    """How far two updates point the same way: one row a matrix that both changed.

    Returns:
        layer, module, left, right (mean squared cosine of the principal angles of the TOP leading
        directions, 0..1) and what random directions would give.
    """
    rows = [
        {
            "layer": key[0],
            "module": key[1],
            "left": subspace_overlap(a[key].left, b[key].left),
            "right": subspace_overlap(a[key].right, b[key].right),
            "left_chance": TOP / a[key].left.shape[0],
            "right_chance": TOP / a[key].right.shape[0],
        }
        for key in a
        if key in b
    ]
    columns = ["layer", "module", "left", "right", "left_chance", "right_chance"]
    return pd.DataFrame(rows, columns=columns).sort_values(["layer", "module"], ignore_index=True)
