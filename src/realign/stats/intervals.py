"""Intervals of a number from the influence of each unit (text, query), for numbers with a range and heavy tails.

The influence of a unit is how much the value moves when that unit is given more weight; influences of two numbers
on the same units subtract and average. Means, correlations, shares and R^2 all come this way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from realign.stats.inputs import Floats, checked_level, real_array

Transform = Literal["identity", "fisher", "log complement", "log"]
_Map = Callable[[Floats], Floats]
# g, its derivative, its inverse, and the open range on which it is defined
_TRANSFORMS: dict[str, tuple[_Map, _Map, _Map, tuple[float, float]]] = {
    "identity": (lambda v: v, np.ones_like, lambda u: u, (-np.inf, np.inf)),
    "fisher": (np.arctanh, lambda v: 1 / (1 - v**2), np.tanh, (-1.0, 1.0)),
    "log complement": (
        lambda v: np.log(1 - v),
        lambda v: -1 / (1 - v),
        lambda u: 1 - np.exp(u),
        (-np.inf, 1.0),
    ),
    "log": (np.log, lambda v: 1 / v, np.exp, (0.0, np.inf)),
}


def effective_freedom(influence: ArrayLike) -> Floats:
    """Degrees of freedom for an interval of a value with influences (..., units), between 1 and units - 1.

    Satterthwaite's (1946) 2 E(s^2)^2 / Var(s^2) for s^2 = sum I^2 with Var(s^2) = s^4 (kurtosis - 1) / n (Searle,
    Casella and McCulloch 1992) is ``k = 2 / (sum I^4 / (sum I^2)^2 - 1/n)``: n for normal influences, 2 where one
    unit has all. A t with k degrees takes value and variance for independent; but a heavy influence enters both
    (self-normalised sums, Logan et al. 1973), and such intervals cover 96-98% for 95%. Of the rules compared by
    simulation (n; k; 2k; the participation ratio (sum I^2)^2 / sum I^4, which covers 97-98%; normal quantiles, 92-94%)
    ``min(n - 1, 2k)`` stays closest to the level.
    """
    values = np.asarray(influence, dtype=np.float64)
    squares = np.square(values / (np.abs(values).max(axis=-1, keepdims=True) + 1e-300))
    with np.errstate(divide="ignore", invalid="ignore"):
        uneven = (squares**2).sum(axis=-1) / squares.sum(axis=-1) ** 2 - 1 / values.shape[-1]
        return np.clip(4 / np.fmax(uneven, 1e-12), 1.0, max(values.shape[-1] - 1.0, 1.0))


def influence_interval(
    value: ArrayLike, influence: ArrayLike, *, transform: Transform = "identity", level: float = 0.95
) -> tuple[Floats, Floats, Floats]:
    """Interval of values from their influences, inside their range.

    ``g(value) -+ t_f |g'(value)| sqrt(n / (n - 1) sum I^2)``, transformed back, with f from
    :func:`effective_freedom`. Coverage in simulations (tests/stats/test_intervals.py): 94-97% for correlations,
    R^2, ratios and differences where one unit in a hundred is 20 times as influential; 97-98% for a mean of few
    hundred values with symmetric tails. No interval knows of influential units that the sample does not hold.

    Args:
        value: (...) estimates.
        influence: (..., units) influence of each unit on them; sums to about 0 over units.
        transform: "fisher" for correlations, "log complement" (log(1 - v)) for R^2, "log" for shares and ratios
            of them, "identity" for means and differences.
        level: coverage.

    Returns:
        low, high and the effective degrees of freedom, each (...). NaN with fewer than 2 units; a value at the end
        of its range (a correlation of exactly 1) has no width.

    Raises:
        TypeError: values are not real numbers.
        ValueError: an unknown transform, shapes that do not match, or a value outside the range of its transform.
    """
    level = checked_level(level)
    if transform not in _TRANSFORMS:
        raise ValueError(f"transform must be one of {sorted(_TRANSFORMS)}, got {transform!r}")
    values = np.asarray(value)
    parts = np.asarray(influence)
    real_array(values.ravel(), "values")
    real_array(parts.ravel(), "influences")
    if parts.shape[:-1] != values.shape:
        raise ValueError(f"influence must have shape {(*values.shape, 'units')}, got {parts.shape}")
    values, parts = values.astype(np.float64), parts.astype(np.float64)
    forward, slope, back, (least, most) = _TRANSFORMS[transform]
    if ((values < least) | (values > most)).any():
        raise ValueError(f"a value lies outside the range ({least}, {most}) of the transform '{transform}'")
    units = parts.shape[-1]
    if units < 2:
        return (np.full(values.shape, np.nan),) * 3
    freedom = effective_freedom(parts)
    error = np.sqrt(units / (units - 1) * (parts**2).sum(axis=-1))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach = student.ppf((1 + level) / 2, freedom) * error * np.abs(slope(values))
        ends = np.stack([back(forward(values) - reach), back(forward(values) + reach)])
    ends = np.where((error == 0) | (values == least) | (values == most), values, ends)
    return ends.min(axis=0), ends.max(axis=0), freedom


def calibrated(
    value: float, floor: float, ceiling: float, influences: tuple[ArrayLike, ArrayLike, ArrayLike]
) -> tuple[float, Floats]:
    """Share of the way from floor to ceiling, ``(v - f) / (c - f)``, and its influences (delta method).

    Args:
        value: the number.
        floor: what unrelated inputs give.
        ceiling: what a replicate gives.
        influences: (units,) of value, floor and ceiling, on the same units.

    Raises:
        ValueError: the ceiling is not above the floor.
    """
    if not ceiling > floor:
        raise ValueError(f"the ceiling ({ceiling}) must be above the floor ({floor})")
    of_value, of_floor, of_ceiling = (real_array(i, "units") for i in influences)
    share = (value - floor) / (ceiling - floor)
    moved = of_value - (1 - share) * of_floor - share * of_ceiling
    return share, moved / (ceiling - floor)
