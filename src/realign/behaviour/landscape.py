"""A map of the base's hidden states, and what is measured on it: landscape and trajectories.

The map is fitted once, on the base's states of fixed texts. *Landscape*: base and tuned model read the same
text, and the distance between their states is measured. *Trajectories*: each model writes, the base reads
what was written, and the places of the written tokens are compared. All states are those after the final
norm, in causal mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from realign.behaviour import policy
from realign.models import batching

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH = 24


@dataclass(frozen=True)
class Written:
    """What a model wrote: prompt and completion ids, one of each a prompt."""

    prompts: list[list[int]]
    completions: list[list[int]]


@dataclass(frozen=True)
class Map:
    """Standardised principal axes of the base's states of fixed texts, and regions of the plane.

    Attributes:
        mean: (d,) of the states; scale: (d,) their standard deviations.
        axes: (d, p) principal axes of the standardised states.
        centres: (r, p) region centres (k-means).
        spread: root mean square distance of the fixed states from their centroid, in map units.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]
    centres: NDArray[np.float64]
    spread: float

    def __call__(self, states: NDArray[Any]) -> NDArray[np.float64]:
        """Place states (n, d) on the map: (n, p), in units of the fixed texts' spread."""
        placed: NDArray[np.float64] = ((states - self.mean) / self.scale) @ self.axes / self.spread
        return placed

    def regions(self, placed: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the region (0..r-1) of each placed state."""
        nearest: NDArray[np.int64] = cdist(placed, self.centres).argmin(axis=1)
        return nearest


def fit_map(states: NDArray[Any], *, components: int = 16, regions: int = 12, seed: int = 0) -> Map:
    """Fit a map on states (n, d) of fixed texts.

    Raises:
        ValueError: for fewer states than regions or components.
    """
    from sklearn.cluster import KMeans

    x = np.asarray(states, dtype=np.float64)
    if len(x) <= max(components, regions):
        raise ValueError(f"a map of {components} axes and {regions} regions needs more than {len(x)} states")
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1
    z = (x - mean) / scale
    axes = np.linalg.svd(z, full_matrices=False)[2][:components].T
    placed = z @ axes
    spread = float(np.sqrt((placed**2).sum(axis=1).mean()))
    centres = KMeans(regions, n_init=4, random_state=seed).fit(placed / spread).cluster_centers_
    return Map(mean, scale, axes, centres, spread)


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    length: int,
    seed: int,
) -> Written:
    """Let a model continue prompts, sampling at temperature 1; ``length`` is the most new tokens."""
    ids = [list(row) for row in tokenizer(list(prompts)).input_ids]
    order = sorted(range(len(prompts)), key=lambda i: len(ids[i]))
    written: list[list[int]] = [[] for _ in prompts]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for start in range(0, len(order), 2 * _BATCH):
            batch = order[start : start + 2 * _BATCH]
            new = policy.generate(
                model, tokenizer, [prompts[i] for i in batch], max_new_tokens=length, sample=True
            )
            for i, tokens in zip(batch, new, strict=True):
                written[i] = tokens
    return Written(ids, written)


def read(model: PreTrainedModel, written: Written, pad: int) -> list[NDArray[np.float32]]:
    """Return the model's states of the completion tokens of each text, (tokens, d) after the final norm."""
    by_text: list[NDArray[np.float32]] = []
    for batch, inputs in _batches(model, written, pad):
        with torch.no_grad():
            states = model.base_model(**inputs).last_hidden_state
        for row, i in enumerate(batch):
            start = len(written.prompts[i])
            by_text.append(states[row, start : start + len(written.completions[i])].float().cpu().numpy())
    return by_text


def next_token_agreement(a: PreTrainedModel, b: PreTrainedModel, written: Written, pad: int) -> pd.DataFrame:
    """Compare two models' next-token distributions on every completion token of the same texts.

    Returns:
        One row a text: ``top1`` (share of tokens where both prefer the same one), ``js``
        (Jensen-Shannon divergence in bits, 0..1, mean over tokens), tokens.
    """
    rows = []
    for (batch, inputs), (_, others) in zip(
        _batches(a, written, pad), _batches(b, written, pad), strict=True
    ):
        with torch.no_grad():
            p, q = (torch.log_softmax(m(**i).logits.float(), dim=-1) for m, i in ((a, inputs), (b, others)))
        q = q.to(p.device)
        for row, i in enumerate(batch):
            start, count = len(written.prompts[i]), len(written.completions[i])
            x, y = (t[row, start - 1 : start - 1 + count] for t in (p, q))
            rows.append(
                {
                    "top1": float((x.argmax(-1) == y.argmax(-1)).float().mean()),
                    "js": float(jensen_shannon(x, y).mean()),
                    "tokens": count,
                }
            )
    return pd.DataFrame(rows)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence in bits (0..1) of distributions given as natural logs, last axis."""
    middle = torch.logaddexp(log_p, log_q) - np.log(2)
    gap = (log_p.exp() * (log_p - middle)).sum(-1) + (log_q.exp() * (log_q - middle)).sum(-1)
    return gap / (2 * np.log(2))


def _batches(
    model: PreTrainedModel, written: Written, pad: int
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    texts = [[*p, *c] for p, c in zip(written.prompts, written.completions, strict=True)]
    for start in range(0, len(texts), _BATCH):
        batch = list(range(start, min(start + _BATCH, len(texts))))
        ids, mask, _ = batching.pad([texts[i] for i in batch], [0] * len(batch), pad)
        yield batch, {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


# --- what is measured on the map -------------------------------------------------------------------

Paths = Sequence[NDArray[np.float64]]  # one (tokens, p) array a text, in order along the text
Value = float | NDArray[np.float64]  # one number, or (R,) where bootstrap weights (R, texts) were given


def _rows(weights: NDArray[Any] | None, paths: Paths) -> NDArray[np.float64]:
    """Return bootstrap weights as (R, texts) numbers; every text once if there are none."""
    return np.ones((1, len(paths))) if weights is None else np.asarray(weights, dtype=float)


def _value(values: NDArray[np.float64], weights: NDArray[Any] | None) -> Value:
    """Return (R,) values, or the one value of a measure that was asked without weights."""
    return values if weights is not None else float(values[0])


def energy_distance(a: Paths, b: Paths, weights: NDArray[Any] | None = None) -> Value:
    """Return the energy distance of the tokens of two sets of paths, as a share (0: same, 1: far apart).

    ``(2 E|x - y| - E|x - x'| - E|y - y'|) / 2 E|x - y|``. Tokens of texts with the same prompt are never
    compared: they share its topic.

    Args:
        a: paths of one model.
        b: of the other, on the same prompts in the same order.
        weights: (R, texts) bootstrap weights; if given, (R,) values are returned.
    """

    def sums(x: Paths, y: Paths) -> tuple[NDArray[Any], NDArray[Any]]:
        distances = cdist(np.concatenate(x), np.concatenate(y))
        rows, columns = (np.repeat(np.arange(len(p)), [len(t) for t in p]) for p in (x, y))
        one, two = (np.eye(len(x))[rows], np.eye(len(y))[columns])
        total, count = one.T @ distances @ two, one.sum(axis=0)[:, None] * two.sum(axis=0)[None, :]
        np.fill_diagonal(total, 0)
        np.fill_diagonal(count, 0)
        return total, count

    pieces = [sums(a, b), sums(a, a), sums(b, b)]
    w = _rows(weights, a)
    ab, aa, bb = (
        np.einsum("ri,ij,rj->r", w, total, w) / np.einsum("ri,ij,rj->r", w, count, w)
        for total, count in pieces
    )
    value: NDArray[np.float64] = (2 * ab - aa - bb) / (2 * ab)
    return _value(value, weights)


def occupancy_distance(a: Paths, b: Paths, chart: Map, weights: NDArray[Any] | None = None) -> Value:
    """Return the total variation (0..1) between the shares of tokens in each region of the map."""
    shares = []
    w = _rows(weights, a)
    for paths in (a, b):
        counts = np.stack([np.bincount(chart.regions(p), minlength=len(chart.centres)) for p in paths])
        total = w @ counts
        shares.append(total / total.sum(axis=1, keepdims=True))
    value = np.abs(shares[0] - shares[1]).sum(axis=1) / 2
    return _value(value, weights)


def spread(paths: Paths, weights: NDArray[Any] | None = None) -> Value:
    """Return the root mean square distance of tokens from their centroid, in map units."""
    w = _rows(weights, paths)
    count = w @ np.array([len(p) for p in paths])
    square = w @ np.array([(p**2).sum() for p in paths])
    centre = (w @ np.stack([p.sum(axis=0) for p in paths])) / count[:, None]
    value = np.sqrt(np.maximum(square / count - (centre**2).sum(axis=1), 0))
    return _value(value, weights)


def step_length(paths: Paths, weights: NDArray[Any] | None = None) -> Value:
    """Return the mean distance between consecutive tokens of a text, in map units (NaN without any)."""
    w = _rows(weights, paths)
    total = w @ np.array([np.linalg.norm(np.diff(p, axis=0), axis=1).sum() for p in paths])
    count = w @ np.array([max(len(p) - 1, 0) for p in paths])
    with np.errstate(invalid="ignore"):
        value = total / count
    return _value(value, weights)


def shift(a: Paths, b: Paths, weights: NDArray[Any] | None = None) -> Value:
    """Return the mean distance of two models' states of the same tokens, in map units."""
    w = _rows(weights, a)
    total = w @ np.array([np.linalg.norm(x - y, axis=1).sum() for x, y in zip(a, b, strict=True)])
    value = total / (w @ np.array([len(x) for x in a]))
    return _value(value, weights)


def with_interval(measure: Callable[[NDArray[Any] | None], Value], weights: NDArray[Any]) -> dict[str, float]:
    """Return value, low and high (95%, bootstrap over texts) of a measure.

    Resampled texts repeat, which biases distances; so the interval is centred on the value, and only its width
    comes from the draws.
    """
    value, draws = float(measure(None)), np.asarray(measure(weights))
    low, high = np.nanquantile(draws, [0.025, 0.975]) - np.nanmean(draws)
    return {"value": value, "low": value + float(low), "high": value + float(high)}
