"""What a metric's compute function returns: rows of the long table, influences, and details.

One row of the table is one number of one layer::

    metric, estimator, variant, k, layer, value, low, high, null, ceiling

``variant`` is '' and ``k`` 0 where a metric has none; ``low`` and ``high`` are the 95% interval over texts;
``null`` is what unrelated models give and ``ceiling`` the best that is possible, NaN where not measured.

An **id** names the rows of a metric, a variant and a k together, for influences and summaries: 'cka',
'cka:no_sinks', 'knn@10', 'knn@10:text'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from realign.hrsa.intervals import ROUNDING, Scale, interval

COLUMNS = ["metric", "estimator", "variant", "k", "layer", "value", "low", "high", "null", "ceiling"]
ORDER = COLUMNS[:5]
"""The table is sorted by these."""


def metric_id(metric: str, variant: str = "", k: int = 0) -> str:
    """Name the rows of a metric: 'cka', 'cka:no_sinks', 'knn@10'."""
    return metric + (f"@{k}" if k else "") + (f":{variant}" if variant else "")


def split_id(name: str) -> tuple[str, str, int]:
    """Return metric, variant and k of an id; any text is an id, of a metric that may not exist."""
    rest, _, variant = name.partition(":")
    metric, _, k = rest.partition("@")
    return (metric, variant, int(k or 0)) if k.isdigit() or not k else (name, "", 0)


def between(value: np.ndarray | float, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Move a value that passes its interval by rounding to the end; NaN ends leave it."""
    moved = np.fmin(np.fmax(value, low), high)
    return np.where(np.abs(moved - value) <= ROUNDING, moved, value)


@dataclass
class Rows:
    """Rows of the table, with what goes beside them; compute functions fill one, `compare` joins them.

    Attributes:
        curves: parts of the table.
        grids: parts of the detail 'grid': metric, estimator, layer_a, layer_b, value, low, high.
        details: frames by name of what is not one number a layer.
        influence: by id, (layers, texts) float32 influence of each text on the reference value.
        rotation: (d, d) float16 Procrustes map of the last layer.
        meta: facts for the report's ``meta``.
    """

    curves: list[pd.DataFrame] = field(default_factory=list)
    grids: list[pd.DataFrame] = field(default_factory=list)
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    influence: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    rotation: NDArray[np.float16] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def add(
        self,
        metric: str,
        estimator: str,
        layer: Sequence[int],
        value: np.ndarray,
        ends: tuple[np.ndarray, np.ndarray],
        *,
        variant: str = "",
        k: int = 0,
        null: np.ndarray | float = np.nan,
        ceiling: np.ndarray | float = np.nan,
        influence: np.ndarray | None = None,
    ) -> None:
        """Add one number of several layers.

        Args:
            metric: its name in the registry.
            estimator: 'reference' or 'paper'.
            layer: (L,) layers, ascending; ``value`` and both ``ends`` are (L,) as well.
            value: the number of each.
            ends: low and high; a value that passes them by rounding is moved to the end.
            variant: for example 'no_sinks'.
            k: number of neighbours.
            null: (L,), or one for all layers, as ``ceiling``.
            ceiling: the best that is possible.
            influence: (L, texts) of a reference number, for means over layers and differences of reports.
        """
        numbers = dict(zip(COLUMNS[5:], (between(value, *ends), *ends, null, ceiling), strict=True))
        names = dict(zip(ORDER, (metric, estimator, variant, k, layer), strict=True))
        self.curves.append(pd.DataFrame({**names, **numbers}).astype(dict.fromkeys(numbers, float)))
        if influence is not None:
            self.influence[metric_id(metric, variant, k)] = influence.astype(np.float32)

    def add_grid(
        self, metric: str, estimator: str, value: np.ndarray, influence: np.ndarray, scale: Scale
    ) -> None:
        """Add every layer with every layer: values (L, M) and influences of parts of the texts (P, L, M).

        The units of the intervals are the parts (the delete-a-group jackknife, Kott 2001): there are too many cells
        to keep the influence of every text.
        """
        a, b = np.indices(value.shape)
        low, high = interval(value, np.moveaxis(influence, 0, -1), scale)
        names = {"metric": metric, "estimator": estimator, "layer_a": a.ravel(), "layer_b": b.ravel()}
        numbers = {"value": between(value, low, high), "low": low, "high": high}
        self.grids.append(pd.DataFrame({**names, **{name: cell.ravel() for name, cell in numbers.items()}}))

    def extend(self, other: Rows) -> None:
        """Take over what another compute function returned."""
        self.curves += other.curves
        self.grids += other.grids
        self.details |= other.details
        self.influence |= other.influence
        self.meta |= other.meta
        self.rotation = other.rotation if self.rotation is None else self.rotation

    def table(self) -> pd.DataFrame:
        """Return the long table, sorted."""
        if not self.curves:
            return pd.DataFrame(columns=COLUMNS)
        return pd.concat(self.curves, ignore_index=True).sort_values(ORDER, ignore_index=True)

    def all_details(self) -> dict[str, pd.DataFrame]:
        """Return the details, the grids among them."""
        grids = {"grid": pd.concat(self.grids, ignore_index=True)} if self.grids else {}
        return grids | self.details
