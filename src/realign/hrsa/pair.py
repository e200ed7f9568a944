"""The two models of one comparison, as compute functions see them: states, sample of tokens, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import uncertainty as unc
from realign.hrsa.activations import Activations
from realign.hrsa.arrays import Array, as_groups, times_power, unit_exponent
from realign.hrsa.checks import whole_number, whole_numbers
from realign.hrsa.intervals import Scale, interval

Detail = Literal["full", "summary"]


@dataclass(frozen=True)
class Probe:
    """Labelled texts for the probes: embeddings (n, d) of both models, one label a text.

    ``groups`` (n,) keeps texts together that must not be split between training and test.
    """

    a: Array
    b: Array
    labels: Sequence[object] | np.ndarray
    groups: Sequence[object] | None = None


@dataclass(frozen=True)
class Options:
    """The settings that a comparison reads; names and defaults as in realign.config.HRSASettings."""

    cka_tokens: int = 4096
    knn_tokens: int = 4096
    k: tuple[int, ...] = (5, 10, 50)
    layers: int | None = None
    resamples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("cka_tokens", "knn_tokens", "resamples", "seed"):
            least = 0 if name in ("resamples", "seed") else 1
            object.__setattr__(self, name, whole_number(getattr(self, name), name, least))
        object.__setattr__(self, "k", whole_numbers(self.k, "k"))
        if self.layers is not None:
            object.__setattr__(self, "layers", whole_number(self.layers, "layers", 2))

    @classmethod
    def read(cls, settings: object) -> Options:
        """Take what ``settings`` has, defaults for the rest."""
        given = {n: getattr(settings, n) for n in cls.__dataclass_fields__ if hasattr(settings, n)}
        return cls(**given)


def evenly(count: int, layers: int | None) -> list[int]:
    """Choose so many of ``count`` layers, evenly spaced, the first and the last among them; None is all."""
    return sorted({int(layer) for layer in np.linspace(0, count - 1, layers or count).round()})


@dataclass
class Pair:
    """Two models that have read the same texts, and how they are to be compared.

    Attributes:
        a: states of the first model.
        b: states of the second.
        options: the settings.
        device: where to compute.
        picked: the layers that are read; grids and the null of text means read all.
        detail: 'full', or 'summary' for cheap comparisons.
        labels: (n_texts,) label of each text, or None.
        probes: labelled text embeddings by name of the text set.
        scales: the scale of each metric's intervals, by metric and estimator.
        sinks: (stored rows,) bool, the rows that CKA without sinks leaves out; None: those of either model.
        rows: the stored rows (n,) that are compared (a seeded sample, sorted).
        groups: (n,) the text of each of these rows, 0 to ``texts`` - 1.
        parts: (n,) the part of the texts that each row belongs to, for intervals of grids.
    """

    a: Activations
    b: Activations
    options: Options
    device: torch.device
    picked: list[int]
    detail: Detail
    labels: Sequence[object] | np.ndarray | None = None
    probes: Mapping[str, Probe] = field(default_factory=dict)
    scales: Mapping[tuple[str, str], Scale] = field(default_factory=dict)
    sinks: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        self.layers = self.a.states.shape[0]
        self.n = self.a.states.shape[1]
        self.rows = self.sample(self.options.cka_tokens)
        self.groups = self.texts_of(self.rows)
        self.texts = int(self.groups.max()) + 1
        self.parts = unc.text_parts(self.groups, self.options.seed)

    def sample(self, tokens: int) -> NDArray[np.int64]:
        """Choose a seeded sample of the stored rows, sorted."""
        if tokens >= self.n:
            return np.arange(self.n)
        return np.sort(np.random.default_rng(self.options.seed).permutation(self.n)[:tokens])

    def texts_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number the texts of stored rows in order of first appearance: (len(rows),)."""
        return as_groups(self.a.text_keys[self.a.text_ids[rows]], len(rows))

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> tuple[Tensor, Tensor]:
        """States (n, d) of one layer of both models on the device; do not write to them.

        Both are multiplied by the same power of two where the larger is far from unit scale.
        """
        rows = self.rows if rows is None else rows
        whole = len(rows) == self.n
        chosen = ((m.states[layer] if whole else m.states[layer][rows]) for m in (self.a, self.b))
        # torch warns of arrays that are not writeable, as those of a file opened read-only; these are copied.
        x, y = (torch.from_numpy(np.require(s, requirements="W")).to(self.device) for s in chosen)
        exponent = unit_exponent(x, y)
        return times_power(x, exponent), times_power(y, exponent)

    def stacks(self) -> tuple[list[Tensor], list[Tensor]]:
        """All layers of both models on the device."""
        first, second = zip(*map(self.layer, range(self.layers)), strict=True)
        return list(first), list(second)

    def by_text(self, per_row: np.ndarray) -> NDArray[np.float64]:
        """Sum a number of each compared row by text: (n,) to (texts,)."""
        return np.bincount(self.groups, per_row, minlength=self.texts).astype(np.float64)

    def scale(self, metric: str, estimator: str) -> Scale:
        """Return the scale on which intervals of a metric are made, as the registry declares it."""
        return self.scales[metric, estimator]

    def interval(
        self, metric: str, estimator: str, value: np.ndarray | float, influence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """95% interval, in the range of the metric, of numbers (...) from the influence (..., texts) of each text."""
        return interval(value, influence, self.scale(metric, estimator))
