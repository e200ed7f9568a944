"""Influences and nulls. The resampled unit is the text, never the token.

A text's tokens depend on one another, so intervals speak of other texts. For U-statistics such as debiased CKA a plain
bootstrap counts pairs of copies of one token and is biased upwards; therefore every statistic hands over its
**influence**: how much the value moves when one text is given more weight (the infinitesimal jackknife).
:mod:`realign.hrsa.intervals` makes intervals of them. Influences of two comparisons on the same texts subtract, which
gives intervals of differences, and average, which gives intervals of layer means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from realign.hrsa.arrays import as_groups, plain
from realign.hrsa.checks import whole_number


def resample_weights(texts: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw how often each text occurs in each bootstrap resample: (resamples, texts)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(texts, np.full(texts, 1 / texts), size=resamples).astype(np.float64)


def text_parts(groups: np.ndarray, seed: int, parts: int = 20) -> NDArray[np.int64]:
    """Deal the texts into random parts of equal size: the part (n,) of each row, fewer where texts are few."""
    texts = int(groups.max()) + 1
    return np.random.default_rng(seed).permutation(texts)[groups] % min(parts, texts)


def mean_influence(per_row: np.ndarray, groups: np.ndarray, texts: int) -> NDArray[np.float64]:
    """Influence of each text on the mean over rows (tokens) of ``per_row`` (..., n): (..., texts)."""
    n = per_row.shape[-1]
    centred = per_row - per_row.mean(axis=-1, keepdims=True)
    flat = centred.reshape(-1, n)
    sums = np.stack([np.bincount(groups, weights=row, minlength=texts) for row in flat])
    return (sums / n).reshape(*per_row.shape[:-1], texts)


def text_order(groups: np.ndarray, rng: np.random.Generator) -> NDArray[np.int64]:
    """Row order (n,) that puts whole texts in another order and keeps the order within each text.

    Pairing X's rows with ``Y[order]`` breaks the pairing but keeps each text's dependence: the null of
    "these two models were shown unrelated texts".
    """
    numbers = as_groups(groups, len(groups))
    rank = rng.permutation(int(numbers.max()) + 1)
    return np.argsort(rank[numbers], kind="stable")


def halves(groups: np.ndarray, seed: int) -> NDArray[np.bool_]:
    """Mark the rows of a random half of the texts: (n,) bool, about half of the rows True."""
    numbers = as_groups(groups, len(groups))
    count = int(numbers.max()) + 1
    if count < 2:
        raise ValueError("at least 2 texts are needed to hold one half out")
    chosen = np.zeros(count, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    return chosen[numbers]


def p_value(observed: float, null: Sequence[float] | np.ndarray, *, larger: bool = True) -> float:
    """Permutation p-value (b + 1) / (m + 1) of Phipson and Smyth (2010): never 0, valid for any m."""
    draws = np.asarray(null, dtype=np.float64)
    beyond = np.sum(draws >= observed) if larger else np.sum(draws <= observed)
    return float((beyond + 1) / (len(draws) + 1))


def _numbers(given: object, like: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """What a statistic gave, as (L,) finite numbers (a single number is one layer), as many as ``like`` has."""
    values = np.atleast_1d(plain(given, "what the statistic gives"))
    if values.dtype.kind not in "iuf" or values.ndim != 1 or not len(values):
        raise ValueError(
            f"the statistic must give numbers (layers,), got {values.dtype} of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"the statistic is not finite at entry {int(np.argmax(~np.isfinite(values)))}; it has no p-value"
        )
    if like is not None and values.shape != like.shape:
        raise ValueError(
            f"the statistic gives {len(values)} numbers for one order and {len(like)} for another"
        )
    return values.astype(np.float64)


def permutation_test(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, *, permutations: int = 200, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Test per-layer numbers and their maximum over layers against re-paired texts.

    Args:
        statistic: maps an order (n,) of the second model's rows to values (L,); called with
            ``arange(n)`` for the observed pairing.
        n: number of rows (texts).
        permutations: how many random orders.
        seed: of the orders.

    Raises:
        ValueError: a setting is out of range, or the statistic gives something else than (L,) finite numbers.

    Returns:
        value (L,), null_mean (L,), null_high (L,) the 95% quantile, p (L,), and for the maximum over
        layers max_value (1,), max_null_high (1,), max_p (1,): the null of the maximum is the maximum
        of the null, so searching over layers is paid for.
    """
    if not callable(statistic):
        raise ValueError(
            f"statistic must be a function of an order of the rows, got {type(statistic).__name__}"
        )
    n, permutations = whole_number(n, "n", 2), whole_number(permutations, "permutations")
    rng = np.random.default_rng(whole_number(seed, "seed", 0))
    value = _numbers(statistic(np.arange(n)), None)
    null = np.stack([_numbers(statistic(rng.permutation(n)), value) for _ in range(permutations)])
    top = null.max(axis=1)
    return {
        "value": value,
        "null_mean": null.mean(axis=0),
        "null_high": np.quantile(null, 0.95, axis=0),
        "p": np.array([p_value(v, null[:, i]) for i, v in enumerate(value)]),
        "max_value": np.array([value.max()]),
        "max_null_high": np.quantile(top, [0.95]),
        "max_p": np.array([p_value(float(value.max()), top)]),
    }
