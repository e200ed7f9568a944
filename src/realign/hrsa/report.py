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
- probe_sets: text_set, own_a, own_b (accuracy of the own probes), majority, flag ('saturated', 'chance', or ''
  where the set can tell whether a probe transfers)
- probe: text_set, direction, scaler, accuracy, low, high, majority, and macro_f1 and weighted_f1, each with _low
  and _high; probe_controls: text_set, direction, control ('procrustes', 'shuffled', 'transfer_ratio',
  'transfer_ratio_procrustes'), value, low, high; probe_paper: the columns of probe
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from realign.hrsa import metrics
from realign.hrsa.checks import instance
from realign.hrsa.effects import Effect, Units
from realign.hrsa.metrics import Metric
from realign.hrsa.rows import between, metric_id, split_id

TABLE = "table"
CALIBRATED = ("calibrated", "calibrated_low", "calibrated_high")
"""Columns of the table of a report with floor and ceiling: 0 is what unrelated texts give, 1 a replicate."""


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
        units: of a mean over pairs of models (:func:`realign.hrsa.mean`), by id: influences of seeds and runs, (layers,)
            by kind and level. Not saved, and nor are the next two.
        floor: the same comparison on texts that are paired wrongly.
        ceiling: the same comparison of a model with a replicate of itself.
    """

    table: pd.DataFrame
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    rotation: NDArray[np.float16] | None = None
    influence: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    units: dict[str, Units] = field(default_factory=dict)
    floor: Report | None = None
    ceiling: Report | None = None

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
        """Return one metric by layer, sorted by layer: layer, value, low, high (95%), null, determined.

        A report with floor and ceiling adds calibrated, calibrated_low and calibrated_high. ``determined`` is False
        where the metric speaks of a rotation that the data leave open.

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
        columns = ["layer", "value", "low", "high", "null", *(c for c in CALIBRATED if c in rows)]
        return rows[columns].assign(determined=self.determined(metric, rows["layer"])).reset_index(drop=True)

    def determined(self, metric: str, layers: Iterable[int]) -> NDArray[np.bool_]:
        """Say for each layer whether the metric is determined there: of a rotation, where its rank is the width."""
        at, rank = np.array([*layers]), self.details.get("rotation_rank")
        if rank is None or metrics.METRICS[metric].compute is not metrics.METRICS["r2"].compute:
            return np.ones(len(at), dtype=bool)
        return ~np.isin(at, rank.loc[rank["rank"] < rank["width"], "layer"])

    def effect(self, name: str) -> Effect:
        """Return the reference values (layers,) of an id with what they depend on; no intervals without influences."""
        texts = self.influence.get(name)
        values = self.curve(name)["value"].to_numpy(dtype=np.float64)
        return Effect(values, None if texts is None else texts.astype(np.float64), self.units.get(name, {}))

    def at(self, name: str, at: str | int) -> Effect:
        """Return one number of an id: the 'mean' over the layers where it is determined, the 'last' layer's, or a layer's.

        Raises:
            ValueError: the layer was not compared.
        """
        layers = self.curve(name)["layer"].tolist()
        if at == "mean":
            known = self.determined(split_id(name)[0], layers)
            return self.effect(name).take(known if known.any() else np.ones(len(known), dtype=bool)).mean()
        if at != "last" and at not in layers:
            raise ValueError(f"layer {at} was not compared; there are {layers}")
        return self.effect(name).take(-1 if at == "last" else layers.index(at))

    def reference_id(self, metric: str, variant: str | None = None) -> str:
        """Return the id of what :meth:`by_layer` shows of a metric by the reference estimator.

        It is the plain name where the report has no influences of that.
        """
        shown = self._reading(metric, "reference", variant, None).iloc[0]
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
            variant = self._variant(entry, estimator, list(dict.fromkeys(rows["variant"])))
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

    def _variant(self, entry: Metric, estimator: str, held: list[str]) -> str:
        """Choose the metric's own variant, the plain one, or the first text set on which probes tell anything."""
        own = entry.variant if estimator == "reference" else ""
        if own in held or "" in held or not held:
            return own if own in held else ""
        sets = self.details.get("probe_sets", pd.DataFrame({"text_set": held, "flag": ""}))
        ordered = [*sets.loc[sets["flag"] == "", "text_set"], *sets["text_set"], *held]
        return next(one for one in ordered if one in held)

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
        """Reference values in brief: metric (an id), at, value, low, high (95%).

        Every id that has influences, at 'mean' (over the layers where it is determined) and 'last' (layer), but for
        probes on text sets that are flagged; and the headlines that have no influences.
        """
        sets = self.details.get("probe_sets")
        flagged = set() if sets is None else set(sets.loc[sets["flag"] != "", "text_set"])
        records = []
        for name in self.influence:
            metric, variant, _ = split_id(name)
            entry = metrics.metric(metric)
            if entry.level == "function" and variant in flagged:
                continue
            for at in ("mean", "last") if len(self.curve(name)) > 1 else ("mean",):
                effect = self.at(name, at)
                low, high = map(float, effect.interval(entry.scale))
                records.append((name, at, float(between(effect.value, low, high)), low, high))
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
            empty = {
                name: "" for name in ("variant", "flag") if name in frame
            }  # empty cells of these are text
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


def by_layer(report: Report) -> pd.DataFrame:
    """Reference value of every id that has influences, layer by layer: metric (id), layer, value, low, high."""
    instance(report, "report", Report)
    frames = [report.curve(name).assign(metric=name) for name in report.influence]
    return pd.concat(frames, ignore_index=True)[["metric", "layer", "value", "low", "high"]]


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed .npz as numpy.savez_compressed does, but without the time of day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values))
