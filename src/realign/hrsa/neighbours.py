"""Exact nearest neighbours among the rows of one matrix of states.

Rules, the same everywhere: a row is never its own neighbour (masked by index, so exact copies of it may
be); equal similarities are taken in row order, the same order in both models; rows of the same group (text)
can be excluded. Exact copies of a row get exactly equal similarities because they are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from realign.hrsa.arrays import (
    Array,
    as_groups,
    as_matrix,
    center,
    full_precision,
    numpy,
    row_squares,
    unit_scale,
)
from realign.hrsa.checks import one_of, whole_number

Metric = Literal["cosine", "euclidean"]

BLOCK = 4096
"""Side of a tile of similarities."""

STRIP = 512
"""Rows that are worked on at a time where that takes further copies."""

TINY = 1e-15
"""Norms below this, of rows beside others of size 1, are taken in float64: their squares lose digits in float32."""

RUN = 8
"""Columns of a tile whose largest similarity is looked at first."""


def nearest(
    x: Array,
    k: int,
    *,
    metric: Metric = "cosine",
    groups: Sequence[object] | Array | None = None,
    block: int = BLOCK,
) -> np.ndarray:
    """Exact nearest neighbours among the rows of ``x`` (n, d): (n, k) int64, nearest first.

    Args:
        x: states.
        k: neighbours a row.
        metric: 'cosine' (rows must not be zero) or 'euclidean'.
        groups: (n,) group of each row; rows of a row's own group are not its neighbours.
        block: side of a tile of similarities; memory is about 12 x block x block bytes.
    """
    values = as_matrix(x, "X")
    k, block = whole_number(k, "k"), whole_number(block, "block")
    numbers = as_groups(groups, len(values))
    return numpy(neighbour_lists(values, k, metric, [numbers], block)[0])


def neighbour_lists(
    x: Tensor,
    k: int,
    metric: str,
    groupings: list[np.ndarray],
    block: int,
    name: str = "X",
    buffer: Tensor | None = None,
) -> list[Tensor]:
    """Neighbour lists under several groupings from one pass over the similarities."""
    n = x.shape[0]
    for numbers in groupings:
        available = n - np.bincount(numbers).max()
        if k > available:
            raise ValueError(f"k={k} needs more neighbours than the {available} that a row of {name} has")
    keys, offset = _keys(unit_scale(x), metric, name)
    groups = [
        None if np.bincount(numbers).max() == 1 else torch.from_numpy(numbers).to(x.device)
        for numbers in groupings
    ]
    with full_precision():
        copies = _unique_rows(keys)
        if copies is not None:
            return _with_copies(keys, offset, k, groups, block, *copies)
        buffer = tile_buffer(keys, block) if buffer is None else buffer
        return _by_tiles(keys, offset, k, groups, block, buffer)


def tile_buffer(x: Tensor, block: int = BLOCK) -> Tensor:
    """Room for one tile of similarities of the rows of ``x``.

    Allocated once for all layers, to avoid memory fragmentation by the small results kept from each layer.
    """
    return torch.empty(min(block, len(x)) ** 2, dtype=x.dtype, device=x.device)


def _by_tiles(
    keys: Tensor, offset: Tensor | None, k: int, groups: list[Tensor | None], tile: int, buffer: Tensor
) -> list[Tensor]:
    """Top k from square tiles of the similarities: a tile serves its rows and, mirrored, its columns."""
    n = len(keys)
    spans = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
    best: list[list[list[tuple[Tensor, Tensor]]]] = [[[] for _ in spans] for _ in groups]
    for i, rows in enumerate(spans):
        for j, columns in enumerate(spans[i:], start=i):
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            product = buffer[: shape[0] * shape[1]].view(shape)
            if j > i:
                torch.mm(keys[rows], keys[columns].T, out=product)
            else:
                _self_product(keys[rows], product)
                product.fill_diagonal_(-torch.inf)
            across = down = product
            if offset is not None:
                across, down = product - offset[columns], product.sub_(offset[rows, None])
            # The strictest grouping last: masks only ever grow.
            for lists, numbers in zip(best, groups, strict=True):
                if numbers is not None:
                    for similarity in (across,) if across is down else (across, down):
                        _mask_group(similarity, numbers[rows], numbers[columns])
                lists[i].append(_of_tile(across, k, columns.start))
                if j > i:
                    lists[j].append(_of_tile(down.T, k, rows.start))
    out = []
    for lists in best:
        parts = []
        for tiles in lists:  # tiles arrive in column order, so equal values stay in column order
            values, indices = (torch.cat(side, dim=1) for side in zip(*tiles, strict=True))
            parts.append(indices.gather(1, _top(values, k)) if len(tiles) > 1 else indices)
        out.append(torch.cat(parts))
    return out


def _of_tile(similarity: Tensor, k: int, start: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row and their columns, which count from ``start``."""
    top = _top(similarity, min(k, similarity.shape[1]))
    return similarity.gather(1, top), top + start


def _self_product(x: Tensor, out: Tensor) -> None:
    """Write x x' to ``out``, the half below the diagonal mirrored."""
    for start in range(0, len(x), STRIP):
        stop = start + STRIP
        torch.mm(x[start:stop], x[start:].T, out=out[start:stop, start:])
        out[stop:, start:stop] = out[start:stop, stop:].T


def _with_copies(
    keys: Tensor,
    offset: Tensor | None,
    k: int,
    groups: list[Tensor | None],
    block: int,
    unique: Tensor,
    inverse: Tensor,
) -> list[Tensor]:
    """Top k where rows occur more than once: each set of copies is multiplied once, so copies tie exactly."""
    n, columns = len(keys), keys[unique]
    out = [torch.empty(n, k, dtype=torch.int64, device=keys.device) for _ in groups]
    for start in range(0, n, min(block, STRIP)):
        rows = slice(start, min(start + block, start + STRIP, n))
        similarity = keys[rows] @ columns.T
        if offset is not None:
            similarity.sub_(offset[unique])
        similarity = similarity.index_select(1, inverse)
        similarity.diagonal(start).fill_(-torch.inf)
        for lists, numbers in zip(out, groups, strict=True):
            if numbers is not None:
                _mask_group(similarity, numbers[rows], numbers)
            lists[rows] = _top(similarity, k)
    return out


def _keys(x: Tensor, metric: str, name: str) -> tuple[Tensor, Tensor | None]:
    """Vectors whose inner product (minus an offset a column) orders neighbours."""
    if one_of(metric, "metric", get_args(Metric)) == "cosine":
        norm = torch.sqrt(row_squares(x))
        if float(norm.min()) < TINY:
            norm = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
        if bool((norm == 0).any()):
            row = int(torch.nonzero(norm == 0)[0])
            raise ValueError(f"row {row} of {name} is zero; cosine neighbours are not defined")
        keys = torch.empty_like(x)  # a few rows at a time: divided in float64
        for part, rows, norms in zip(keys.split(STRIP), x.split(STRIP), norm.split(STRIP), strict=True):
            part.copy_(rows / norms[:, None])
        return keys, None
    keys = center(x)
    return keys, ((keys * keys).sum(1, dtype=torch.float64) / 2).to(x.dtype)


def _unique_rows(keys: Tensor) -> tuple[Tensor, Tensor] | None:
    """Index of one row of each set of copies, and each row's set; None where all rows differ.

    Rows are hashed by their bits on their own device, and copies are then compared with one another.
    """
    bits = keys.contiguous().view(torch.int32)
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator).to(keys.device) * 2 + 1
    # Rows that differ in their first columns need no further look. (The sums wrap around.)
    for width in sorted({min(64, len(odd)), len(odd)}):
        hashes = [(part[:, :width].long() * odd[:width]).sum(1) for part in bits.split(STRIP)]
        values, inverse = torch.unique(torch.cat(hashes), return_inverse=True)
        if len(values) == len(keys):
            return None
    rows = torch.arange(len(keys), device=keys.device)
    first = torch.full_like(values, len(keys)).scatter_reduce_(0, inverse, rows, "amin")
    if not torch.equal(bits[first[inverse]], bits):
        raise RuntimeError("two different rows have the same 64-bit hash")  # odds of n^2 / 2^65
    return first, inverse


def _mask_group(similarity: Tensor, own: Tensor, others: Tensor) -> None:
    """Take rows (groups ``own``) out of the neighbours of columns of the same group (``others``)."""
    if bool((own[1:] >= own[:-1]).all()) and bool((others[1:] >= others[:-1]).all()):
        present = own.unique()  # texts lie together: one small rectangle each
        bounds = [
            torch.searchsorted(values, present, right=right).tolist()
            for values in (own, others)
            for right in (False, True)
        ]
        for top, bottom, left, right in zip(*bounds, strict=True):
            similarity[top:bottom, left:right] = -torch.inf
    else:
        similarity.masked_fill_(own[:, None] == others[None, :], -torch.inf)


def _top(similarity: Tensor, k: int) -> Tensor:
    """Indices of the k largest, largest first, ties in column order (topk alone leaves their order open)."""
    more = min(k + 1, similarity.shape[1])  # one more, to see a tie at the border
    columns = _candidates(similarity, more)
    values, indices = (similarity if columns is None else similarity.gather(1, columns)).topk(more, dim=1)
    if columns is not None:
        indices = columns.gather(1, indices)
    tied = (values[:, 1:] == values[:, :-1]).any(1)
    indices = indices[:, :k]
    if bool(tied.any()):
        indices = indices.clone()
        for rows in torch.nonzero(tied)[:, 0].split(STRIP):  # takes 64-bit copies of what it sorts
            indices[rows] = _top_stable(similarity[rows], k)
    return indices


def _candidates(similarity: Tensor, k: int) -> Tensor | None:
    """Columns that hold the k largest values of each row, ties aside; None where searching all is quicker.

    For the mirrored side of a tile, whose rows lie far apart in memory: of each run of columns the maximum is
    taken, and nothing outside of the k runs with the largest maxima exceeds any of these.
    """
    runs = similarity.shape[1] // RUN
    if similarity.is_contiguous() or runs < 2 * k:
        return None
    whole = runs * RUN
    maxima = similarity.T[:whole].unflatten(0, (runs, RUN)).amax(1).T.contiguous()
    best = maxima.topk(k, dim=1, sorted=False).indices
    inside = torch.arange(RUN, device=similarity.device)
    columns = (best[:, :, None] * RUN + inside).flatten(1)
    rest = torch.arange(whole, similarity.shape[1], device=similarity.device)
    return torch.cat([columns, rest.expand(len(columns), -1)], dim=1)


def _top_stable(similarity: Tensor, k: int) -> Tensor:
    """Top k under (similarity, then smaller column): both packed into one integer where they fit."""
    if similarity.dtype == torch.float32:
        bits = (similarity + 0.0).view(torch.int32).to(torch.int64)
        ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        width = similarity.shape[1]
        columns = torch.arange(width - 1, -1, -1, device=similarity.device)
        return (ordered * width + columns).topk(k, dim=1).indices
    return similarity.sort(dim=1, descending=True, stable=True).indices[:, :k]
