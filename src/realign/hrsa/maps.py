"""Many models at once: distances between all of them, and a plane on which they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from sklearn.manifold import ClassicalMDS

from realign.hrsa.activations import Activations
from realign.hrsa.arrays import as_groups
from realign.hrsa.checks import instance, layer_numbers, whole_number
from realign.hrsa.grids import cka_grid


@dataclass(frozen=True)
class ModelsMap:
    """Where models lie with respect to one another.

    Attributes:
        places: model, x, y, x_error, y_error (radians; errors are jackknife standard errors over texts).
        distances: a, b, value, error (radians) for every pair.
        explained: share of the squared distances that the plane shows, in [0, 1].
    """

    places: pd.DataFrame
    distances: pd.DataFrame
    explained: float


def models_map(
    models: Mapping[str, Activations],
    *,
    layers: Sequence[int] | None = None,
    tokens: int = 1024,
    parts: int = 10,
    seed: int = 0,
) -> ModelsMap:
    """Place models on a plane by classical scaling of their mean debiased-CKA distance.

    Args:
        models: states of each model on the same tokens.
        layers: the layers whose distances are averaged; None is six, evenly spaced.
        tokens: size of a seeded sample of rows.
        parts: parts of the texts that are left out in turn; each map is turned onto the whole one.
        seed: of the sample and of the parts.

    Raises:
        ValueError: fewer than 3 models, fewer texts than parts, or different tokens.
    """
    if not isinstance(models, Mapping):
        raise ValueError(f"models must map names to Activations, got {type(models).__name__}")
    tokens, parts = whole_number(tokens, "tokens", 4), whole_number(parts, "parts", 2)
    seed = whole_number(seed, "seed", 0)
    if len(models) < 3:
        raise ValueError(f"a map needs at least 3 models, got {len(models)}")
    rows = _rows(models, tokens, seed)
    first = next(iter(models.values()))
    groups = as_groups(first.text_keys[first.text_ids[rows]], len(rows))
    texts = int(groups.max()) + 1
    if texts < parts:
        raise ValueError(f"{texts} texts cannot be left out in {parts} parts")
    depth = len(first.states)
    if layers is not None:
        layers = layer_numbers(layers, depth)
    else:
        layers = sorted({int(v) for v in np.linspace(0, depth - 1, 6).round()})
    whole = _distances(models, rows, layers)
    points = plane(whole)
    part = np.random.default_rng(seed).permutation(texts)[groups] % parts
    left_out = np.stack([_distances(models, rows[part != p], layers) for p in range(parts)])
    planes = [plane(distance) for distance in left_out]
    turned = np.stack([each @ orthogonal_procrustes(each, points)[0] for each in planes])

    def error(values: np.ndarray) -> np.ndarray:
        return np.sqrt((parts - 1) / parts * ((values - values.mean(0)) ** 2).sum(0))

    names = list(models)
    places = pd.DataFrame({"model": names, "x": points[:, 0], "y": points[:, 1]})
    places["x_error"], places["y_error"] = error(turned).T
    a, b = np.triu_indices(len(names), 1)
    spread = error(left_out)
    distances = pd.DataFrame({"a": np.array(names)[a], "b": np.array(names)[b]})
    distances["value"], distances["error"] = whole[a, b], spread[a, b]
    shown = np.linalg.norm(points[a] - points[b], axis=1)
    explained = 1 - ((shown - whole[a, b]) ** 2).sum() / (whole[a, b] ** 2).sum()
    return ModelsMap(places, distances, float(explained))


def _rows(models: Mapping[str, Activations], tokens: int, seed: int) -> NDArray[np.int64]:
    name, first = next(iter(models.items()))
    for other, states in models.items():
        instance(states, f"models[{other!r}]", Activations)
        if len(states.states) != len(first.states):
            raise ValueError(
                f"'{other}' has {len(states.states)} layers and '{name}' {len(first.states)}; a map needs equal depth"
            )
        if not np.array_equal(states.token_ids, first.token_ids):
            raise ValueError(f"'{other}' and '{name}' hold different tokens; read the same texts with both")
    rows = np.arange(first.states.shape[1])
    return rows if tokens >= len(rows) else np.sort(np.random.default_rng(seed).permutation(rows)[:tokens])


def _distances(
    models: Mapping[str, Activations], rows: NDArray[np.int64], layers: Sequence[int]
) -> NDArray[np.float64]:
    total = np.zeros((len(models), len(models)))
    for layer in layers:
        stack = [np.asarray(m.states[layer][rows]) for m in models.values()]
        total += np.arccos(np.clip(cka_grid(stack, stack), -1, 1))
    np.fill_diagonal(total, 0.0)
    return (total + total.T) / 2 / len(layers)


def plane(distance: np.ndarray) -> NDArray[np.float64]:
    """Place items on a plane whose Euclidean distances resemble ``distance`` (m, m): (m, 2).

    Classical (Torgerson) scaling. Each axis has the sign that makes its largest coordinate positive, and is 0
    where the distances leave nothing for it (an eigenvalue that is not positive).
    """
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(ClassicalMDS(metric="precomputed").fit_transform(distance))
