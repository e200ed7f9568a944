"""One comparison in progress: the settings it reads, the rows it uses, the report that grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import calibration as cal
from realign.hrsa.activations import Activations
from realign.hrsa.arrays import as_groups
from realign.hrsa.report import Report

Detail = Literal["full", "summary"]


@dataclass(frozen=True)
class Probe:
    """Labelled texts for the probes: embeddings (n, d) of both models, one label a text.

    ``groups`` (n,) keeps texts together that must not be split between training and test.
    """

    a: Any
    b: Any
    labels: Sequence[Any] | NDArray[Any]
    groups: Sequence[Any] | None = None


@dataclass(frozen=True)
class Options:
    """The settings that a comparison reads; names and defaults as in realign.config.HRSASettings."""

    cka_tokens: int = 4096
    knn_tokens: int = 4096
    k: tuple[int, ...] = (5, 10, 50)
    resamples: int = 200
    seed: int = 0

    @classmethod
    def read(cls, settings: Any) -> Options:
        """Take what ``settings`` has, defaults for the rest."""
        given = {n: getattr(settings, n) for n in cls.__dataclass_fields__ if hasattr(settings, n)}
        return cls(**{**given, "k": tuple(given.get("k", cls.k))})


@dataclass
class Work:
    """One comparison in progress."""

    a: Activations
    b: Activations
    options: Options
    device: torch.device
    picked: list[int]  # layers of the metrics that are costly per layer; with 'summary' of all
    detail: Detail
    report: Report = field(default_factory=lambda: Report({}))

    def __post_init__(self) -> None:
        self.layers = self.a.states.shape[0]
        self.n = self.a.states.shape[1]
        self.every = self.picked if self.detail == "summary" else list(range(self.layers))
        self.rows = self.sample(self.options.cka_tokens)
        keys = self.a.text_keys[self.a.text_ids]
        self.all_groups = as_groups(keys, self.n)
        self.groups = as_groups(keys[self.rows], len(self.rows))
        self.texts = int(self.groups.max()) + 1
        self.parts = cal.text_parts(self.groups, self.options.seed)
        self.weights = cal.resample_weights(self.texts, self.options.resamples, self.options.seed)

    def sample(self, tokens: int) -> NDArray[np.int64]:
        """Choose a seeded sample of the stored rows, sorted."""
        if tokens >= self.n:
            return np.arange(self.n)
        return np.sort(np.random.default_rng(self.options.seed).permutation(self.n)[:tokens])

    def pair(self, layer: int, rows: NDArray[np.int64] | None = None) -> tuple[Tensor, Tensor]:
        """States of one layer of both models on the device."""
        rows = self.rows if rows is None else rows
        whole = len(rows) == self.n
        chosen = ((m.states[layer] if whole else m.states[layer][rows]) for m in (self.a, self.b))
        # Copied only where torch could not own it (a file that is read only); no metric writes to its input.
        x, y = (torch.from_numpy(np.require(s, requirements="W")).to(self.device) for s in chosen)
        return x, y

    def stacks(self) -> tuple[list[Tensor], list[Tensor]]:
        """All layers of both models on the device."""
        pairs = [self.pair(layer) for layer in range(self.layers)]
        return [x for x, _ in pairs], [y for _, y in pairs]

    def keep(self, name: str, layers: Sequence[int], influence: NDArray[Any]) -> None:
        """Store the influences (layers, texts) of a reported number."""
        self.report.influence[name] = influence.astype(np.float32)
        self.report.meta.setdefault("influence_layers", {})[name] = list(layers)

    def interval(self, value: Any, influence: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """95% interval of a reported number."""
        return cal.interval(value, influence, self.weights)
