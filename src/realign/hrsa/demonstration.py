"""What each metric sees and does not see, on synthetic data whose change is known.

One synthetic model (clusters of texts, tokens that share their text's place, uneven axes) is compared with
changed copies of itself, in both estimators. The methods page shows the result.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import ortho_group

from realign.hrsa.activations import Activations
from realign.hrsa.comparison import compare_activations
from realign.hrsa.metrics import ESTIMATORS, METRICS
from realign.hrsa.pair import Probe

TEXTS, EACH, WIDTH, CLASSES = 120, 6, 24, 6
TEXT_OF = np.repeat(np.arange(TEXTS), EACH)
LABELS = np.arange(TEXTS) % CLASSES
SETTINGS = SimpleNamespace(cka_tokens=TEXTS * EACH, knn_tokens=TEXTS * EACH, k=(10,), resamples=200, seed=0)


def base() -> NDArray[np.float64]:
    """States (tokens, width) of the synthetic model."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(CLASSES, WIDTH))[LABELS[TEXT_OF]]
    texts = rng.normal(size=(TEXTS, WIDTH))[TEXT_OF]
    tokens = 0.5 * rng.normal(size=(TEXTS * EACH, WIDTH))
    return (centres + texts + tokens) * np.linspace(2, 0.5, WIDTH) + 1


def changes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of models by what was done to the second one."""
    x, rng = base(), np.random.default_rng(1)
    spread = x.std(axis=0)
    other = rng.normal(size=x.shape) + rng.normal(size=(TEXTS, WIDTH))[TEXT_OF]
    other = other * spread / np.sqrt(2) + 1
    # Every class keeps its inside; their centres move from all over the space onto one circle.
    means = np.stack([x[LABELS[TEXT_OF] == c].mean(0) for c in range(CLASSES)])
    angle = 2 * np.pi * np.arange(CLASSES) / CLASSES
    circle = (
        25 * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ ortho_group.rvs(WIDTH, random_state=rng)[:2]
    )
    moved = x + (circle - means)[LABELS[TEXT_OF]]
    sink = np.zeros((len(x), 1))
    sink[:: len(x) // 8] = 60
    along = rng.normal(size=WIDTH)
    return {
        "nothing": (x, x + 1e-3 * rng.normal(size=x.shape)),
        "scale and shift": (x, 3 * x + 5),
        "axes permuted": (x, x[:, rng.permutation(WIDTH)]),
        "rotation": (x, x @ ortho_group.rvs(WIDTH, random_state=rng)),
        "local noise": (x, x + 0.6 * spread * rng.normal(size=x.shape)),
        "classes rearranged": (x, moved),
        "unrelated": (x, other),
        "unrelated, with sink tokens": (x + sink * along, other + sink * along[::-1]),
    }


@cache
def demonstration() -> pd.DataFrame:
    """Compare every pair: change, metric, estimator, value, low, high (95%, over texts)."""
    rows = []
    for change, states in changes().items():
        a, b = map(_activations, states)
        probe = Probe(a.pooled[-1], b.pooled[-1], LABELS)
        report = compare_activations(a, b, SETTINGS, probes={"class": probe})
        for metric in (each.name for each in METRICS.values() if each.sees):
            for estimator in ESTIMATORS:
                last = report.by_layer(metric, estimator).iloc[-1]
                rows.append((change, metric, estimator, *last[["value", "low", "high"]]))
    return pd.DataFrame(rows, columns=["change", "metric", "estimator", "value", "low", "high"])


def _activations(states: np.ndarray) -> Activations:
    values = states.astype(np.float32)
    return Activations(
        values[None],
        TEXT_OF,
        np.zeros(len(TEXT_OF), dtype=np.int64),
        np.tile(np.arange(EACH), TEXTS),
        values.reshape(TEXTS, EACH, WIDTH).mean(1)[None],
        np.arange(TEXTS, dtype=np.uint64),
    )
