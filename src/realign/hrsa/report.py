"""What a comparison of two models found: numbers, details and influences; and what two reports say together.

The table is described in :mod:`realign.hrsa.rows`; layer 0 is the token embedding, the last layer follows the
final norm. Details, and their columns:

- grid (full detail): metric ('cka', 'correlation'), estimator, layer_a, layer_b, value, low, high
- correlation_histogram: dimension, r (last layer); rotation_angles: angle (degrees, sorted)
- rotation_rank: layer, rank, width (the Procrustes map of a layer is determined where rank equals width)
- cka_null: layer, value, null_mean, null_high, p (debiased CKA of text means against re-paired texts;
  layer -1 is the maximum over layers)
- energy: layer, model ('a', 'b'), top_dimension_share and top_rows_share, each with _low and _high
- knn: estimator, variant, layer, k, jaccard, overlap, chance, corrected; knn_labels (last layer): layer, label,
  k, corrected, low, high, tokens
- probe: text_set, direction, scaler, accuracy, low, high, majority, and macro_f1 and weighted_f1, each with _low
  and _high; probe_controls: text_set, direction, control ('procrustes', 'shuffled', 'transfer_ratio',
  'transfer_ratio_procrustes'), value, low, high; probe_paper: the columns of probe
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from realign.hrsa import metrics
from realign.hrsa.intervals import SCALES, effective_freedom, interval
from realign.hrsa.rows import between, metric_id, split_id

TABLE = "table"


@dataclass
class Report:
    """What `compare_activations` measured.

    Attributes:
        table: the long table: metric, estimator, variant, k, layer, value, low, high, null, ceiling.
        details: frames by name of what is not one number a layer, see the module's text.
        rotation: (d, d) float16 Procrustes O of the last layer fitted on all rows; wider than 576 it holds
            block maxima of its absolute values (``meta['rotation_block']`` > 1), enough for a heat map.
        influence: by id, (layers, texts) float32 influence of each text on the reference value of every layer
            of :meth:`curve` (see uncertainty).
        meta: counts, settings, estimator notes, seconds of each computation.
    """

    table: pd.DataFrame
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    rotation: NDArray[np.float16] | None = None
    influence: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> int:
        """How many layers each model has, embeddings included."""
        return int(self.meta["layers"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that were measured, in the registry's order."""
        measured = set(self.table["metric"])
        return tuple(name for name in metrics.METRICS if name in measured)

    @property
    def ks(self) -> tuple[int, ...]:
        """Numbers of neighbours that were used."""
        return tuple(sorted({int(k) for k in self.table["k"]} - {0}))

    def by_layer(
        self, metric: str, estimator: str = "reference", *, variant: str | None = None, k: int | None = None
    ) -> pd.DataFrame:
        """Return one metric by layer: layer, value, low, high (95% over texts), null; sorted by layer.

        Args:
            metric: its name in the registry.
            estimator: 'reference' or 'paper'; a metric without it is read by the one that it has.
            variant: None is the metric's own variant for the reference reading (CKA without sinks) where that
                was computed, and otherwise the plain one ('').
            k: number of neighbours; None is the middle one that was computed.

        Raises:
            ValueError: an unknown metric or estimator, or one that this report does not hold.
        """
        rows = self._reading(metric, estimator, variant, k).sort_values("layer")
        return rows[["layer", "value", "low", "high", "null"]].reset_index(drop=True)

    def reference_id(self, metric: str) -> str:
        """Return the id of what :meth:`by_layer` shows of a metric by the reference estimator.

        It is the plain name where the report has no influences of that.
        """
        shown = self._reading(metric, "reference", None, None).iloc[0]
        name = metric_id(metric, shown["variant"], shown["k"])
        return name if name in self.influence else metric

    def _reading(self, metric: str, estimator: str, variant: str | None, k: int | None) -> pd.DataFrame:
        """Choose the rows of the table as :meth:`by_layer` says."""
        entry = metrics.metric(metric)
        if estimator not in metrics.ESTIMATORS:
            raise ValueError(f"unknown estimator '{estimator}'; choose from {', '.join(metrics.ESTIMATORS)}")
        if estimator not in entry.estimators:
            estimator = entry.estimators[0]
        held = self.table[self.table["estimator"] == estimator]
        rows = held[held["metric"] == metric]
        if variant is None:
            own = entry.variant if estimator == "reference" else ""
            variant = own if own in set(rows["variant"]) else ""
        rows = rows[rows["variant"] == variant]
        if k is None and len(rows):
            k = metrics.middle(rows["k"])
        rows = rows[rows["k"] == k]
        if rows.empty:
            ids = held[["metric", "variant", "k"]].drop_duplicates().itertuples(index=False)
            raise ValueError(
                f"the report does not hold {metric_id(metric, variant, k or 0)} by the {estimator} estimator; "
                f"it holds {', '.join(metric_id(*one) for one in ids)}"
            )
        return rows

    def curve(self, name: str) -> pd.DataFrame:
        """:meth:`by_layer` of an id, such as 'cka:no_sinks' or 'knn@10', by the reference estimator."""
        metric, variant, k = split_id(name)
        return self.by_layer(metric, variant=variant, k=k)

    def grid(self, metric: str, estimator: str = "reference") -> pd.DataFrame:
        """Return every layer with every layer: layer_a, layer_b, value, low, high.

        Raises:
            ValueError: an unknown metric, or one without a grid in this report.
        """
        entry = metrics.metric(metric)
        if estimator not in entry.estimators:
            estimator = entry.estimators[0]
        cells = self.detail("grid")
        rows = cells[(cells["metric"] == metric) & (cells["estimator"] == estimator)]
        if rows.empty:
            raise ValueError(
                f"the report has no grid of {metric}; it has {', '.join(cells['metric'].unique())}"
            )
        return rows.drop(columns=["metric", "estimator"]).reset_index(drop=True)

    def detail(self, name: str) -> pd.DataFrame:
        """Return a copy of a detail.

        Raises:
            ValueError: the comparison did not compute it.
        """
        if name not in self.details:
            raise ValueError(f"the report has no detail '{name}'; it has {', '.join(sorted(self.details))}")
        return self.details[name].copy()

    def summary(self) -> pd.DataFrame:
        """Reference values in brief: metric (an id), at, value, low, high.

        Every id that has influences, at 'mean' (over the report's layers) and 'last' (layer), with an interval
        over texts; and the headlines that have none, such as the probes' transfer ratio.
        """
        records = []
        for name, influence in self.influence.items():
            values = self.curve(name)["value"].to_numpy()
            scale = metrics.metric(split_id(name)[0]).scale
            for at, number, effect in (
                ("mean", float(values.mean()), influence.mean(axis=0)),
                ("last", float(values[-1]), influence[-1]),
            ):
                low, high = map(float, interval(number, effect, scale))
                records.append((name, at, float(between(number, low, high)), low, high))
        with_influence = {split_id(name)[0] for name in self.influence}
        for metric in self.metrics:
            at = metrics.metric(metric).headline
            if at and metric not in with_influence:
                rows = self.by_layer(metric)[["value", "low", "high"]]
                records.append((metric, at, *(rows.mean() if at == "mean" else rows.iloc[-1])))
        return pd.DataFrame(records, columns=["metric", "at", "value", "low", "high"])

    def save(self, directory: Path | str) -> None:
        """Write table.csv.gz, a csv.gz for each detail, arrays.npz and meta.json.

        The same report gives the same bytes.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name, frame in {TABLE: self.table, **self.details}.items():
            frame.to_csv(
                directory / f"{name}.csv.gz",
                index=False,
                float_format="%.8g",
                compression={"method": "gzip", "mtime": 0},
            )
        # Influences are of size 1/texts, below float16's normal range: scaled up, then halved in size.
        arrays: dict[str, np.ndarray] = {
            f"influence/{name}": (values * values.shape[-1]).astype(np.float16)
            for name, values in self.influence.items()
        }
        if self.rotation is not None:
            arrays["rotation"] = self.rotation
        save_arrays(directory / "arrays.npz", arrays)
        (directory / "meta.json").write_text(json.dumps(self.meta, indent=1, sort_keys=True))

    @classmethod
    def load(cls, directory: Path | str) -> Report:
        """Read what :meth:`save` wrote."""
        directory = Path(directory)
        frames = {}
        for path in sorted(directory.glob("*.csv.gz")):
            frame = pd.read_csv(path)
            empty = {"variant": ""} if "variant" in frame else {}  # its empty cells are text
            frames[path.name.removesuffix(".csv.gz")] = frame.fillna(empty)
        influence = {}
        with np.load(directory / "arrays.npz") as arrays:
            rotation = arrays["rotation"] if "rotation" in arrays.files else None
            for name in arrays.files:
                if name.startswith("influence/"):
                    values = arrays[name].astype(np.float32)
                    influence[name.removeprefix("influence/")] = values / values.shape[-1]
        meta = json.loads((directory / "meta.json").read_text())
        return cls(frames.pop(TABLE), frames, rotation, influence, meta)


@dataclass(frozen=True)
class Difference:
    """Difference of one number between two reports: value, its 95% interval, and p (two-sided).

    Both by t at the effective number of texts (:func:`realign.hrsa.intervals.effective_freedom`).
    """

    value: float
    low: float
    high: float
    p: float


def by_layer(report: Report) -> pd.DataFrame:
    """Reference value of every id that has influences, layer by layer: metric (id), layer, value, low, high."""
    frames = [report.curve(name).assign(metric=name) for name in report.influence]
    return pd.concat(frames, ignore_index=True)[["metric", "layer", "value", "low", "high"]]


def difference(first: Report, second: Report, name: str, *, layer: int | None = None) -> Difference:
    """Difference of one metric between two comparisons on the same tokens, with its interval.

    Answers "is RLVR's drop in overlap smaller than SFT's?" with texts paired, so what both comparisons
    share cancels.

    Args:
        first: report of one pair of models.
        second: report of another pair on the same texts and sample.
        name: an id that has influences: 'cka', 'cka:no_sinks', 'correlation', 'r2', 'knn@10', ...
        layer: which layer; None is the mean over layers.

    Returns:
        first - second.

    Raises:
        ValueError: no influences of that id, or the reports differ in tokens or layers.
    """
    if first.meta["sample"] != second.meta["sample"]:
        raise ValueError("the two reports read different tokens; compare them on the same texts and seed")
    for report in (first, second):
        if name not in report.influence:
            raise ValueError(f"'{name}' has no influences; there are those of {', '.join(report.influence)}")
    mine, theirs = first.curve(name), second.curve(name)
    layers = mine["layer"].tolist()
    if layers != theirs["layer"].tolist():
        raise ValueError(f"the two reports hold {name} for different layers")
    effects = first.influence[name].astype(np.float64) - second.influence[name]
    gaps = (mine["value"] - theirs["value"]).to_numpy()
    if layer is None:
        value, influence = float(gaps.mean()), effects.mean(axis=0)
    else:
        if layer not in layers:
            raise ValueError(f"layer {layer} was not compared; there are {layers}")
        at = layers.index(layer)
        value, influence = float(gaps[at]), effects[at]
    lowest, highest, *_ = SCALES[metrics.metric(split_id(name)[0]).scale]
    low, high = np.clip(interval(value, influence, "any"), lowest - highest, highest - lowest)
    error = float(np.sqrt((influence**2).sum() * len(influence) / max(1, len(influence) - 1)))
    p = 2 * student.sf(abs(value) / error, effective_freedom(influence)) if error > 0 else np.nan
    return Difference(value, float(low), float(high), float(p))


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed .npz as numpy.savez_compressed does, but without the time of day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values))
