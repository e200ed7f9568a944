"""What moves a number: the texts that it was computed on, and the seeds and runs of the models; intervals from that.

An influence says how much a number moves when one text is given more weight, or, for seeds and runs, when all models
of one are left out (the jackknife). Both add up: numbers on the same texts and models subtract and average, and what
they share cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import EllipsisType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from realign.hrsa import intervals

Floats = NDArray[np.float64]
Units = Mapping[str, Mapping[str, Floats]]


@dataclass(frozen=True)
class Effect:
    """Numbers with what they depend on.

    Attributes:
        value: (...) the numbers.
        texts: (..., texts) influence of each text; None where it is not known, and then nor is an interval.
        units: by kind ('seed', 'run') and level, (...) influence of all models of that level; NaN where there are
            too few levels to tell.
    """

    value: Floats
    texts: Floats | None = None
    units: Units = field(default_factory=dict)

    def take(self, where: int | slice | NDArray[np.bool_] | EllipsisType) -> Effect:
        """Choose some of the numbers, along the first axis."""
        units = {kind: {u: x[where] for u, x in levels.items()} for kind, levels in self.units.items()}
        return Effect(self.value[where], None if self.texts is None else self.texts[where], units)

    def mean(self) -> Effect:
        """Average over the first axis."""
        units = {kind: {u: x.mean(axis=0) for u, x in levels.items()} for kind, levels in self.units.items()}
        return Effect(self.value.mean(axis=0), None if self.texts is None else self.texts.mean(axis=0), units)

    def error(self) -> tuple[Floats, Floats]:
        """Standard error (...) and its degrees of freedom (...): texts, seeds and runs vary independently.

        Each part is ``n / (n - 1) sum I^2`` with n - 1 degrees of freedom (texts: as many as are effective), put
        together by Satterthwaite's rule.
        """
        if self.texts is None:
            return np.full(self.value.shape, np.nan), np.ones(self.value.shape)
        parts = [(self.texts, intervals.effective_freedom(np.nan_to_num(self.texts)))]
        for levels in self.units.values():
            stacked = np.stack(list(levels.values()), axis=-1)
            parts.append((stacked, np.full(self.value.shape, max(1.0, len(levels) - 1.0))))
        variances = [x.shape[-1] / max(1, x.shape[-1] - 1) * (x**2).sum(axis=-1) for x, _ in parts]
        total = np.sum(variances, axis=0)
        shares = [v**2 / f for v, (_, f) in zip(variances, parts, strict=True)]
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.where(total > 0, total**2 / np.sum(shares, axis=0), parts[0][1])
        return np.sqrt(total), freedom

    def interval(self, scale: intervals.Scale = "any") -> tuple[Floats, Floats]:
        """95% interval (...), inside the range of a scale; NaN where something that it depends on is not known."""
        error, freedom = self.error()
        return intervals.around(self.value, error, freedom, scale)


def combine(terms: Sequence[tuple[ArrayLike, Effect]], constant: ArrayLike = 0.0) -> Effect:
    """``constant + sum_i w_i e_i`` of effects on the same texts; a weight is one number, or one for each number."""
    weighted = [(np.asarray(weight, dtype=np.float64), effect) for weight, effect in terms]
    value = constant + np.sum([w * effect.value for w, effect in weighted], axis=0)
    each = [w[..., None] * effect.texts for w, effect in weighted if effect.texts is not None]
    texts = np.sum(each, axis=0) if len(each) == len(weighted) else None
    units: dict[str, dict[str, Floats]] = {}
    for w, effect in weighted:
        for kind, levels in effect.units.items():
            mine = units.setdefault(kind, {})
            for level, moved in levels.items():
                mine[level] = mine.get(level, 0.0) + w * moved
    return Effect(np.asarray(value), texts, units)


def calibrated(value: Effect, floor: Effect, ceiling: Effect) -> Effect:
    """Share of the way from floor to ceiling, ``(v - f) / (c - f)``, with its influences (delta method).

    0 is what unrelated texts give, 1 what a replicate gives. NaN where floor and ceiling are not told apart: the 95%
    interval of their difference, where it is known, holds 0.
    """
    room = combine([(1.0, ceiling), (-1.0, floor)])
    low, high = room.interval()
    apart = (room.value != 0) & ~((low <= 0) & (high >= 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(apart, 1 / room.value, np.nan)
        share = scale * (value.value - floor.value)
    moved = combine([(scale, value), (-(1 - share) * scale, floor), (-share * scale, ceiling)])
    return Effect(share, moved.texts, moved.units)
