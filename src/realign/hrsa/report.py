"""The result of comparing two models: tidy frames, the last layer's rotation, influences of texts.

Frames and their columns (layer 0 is the token embedding, the last layer follows the final norm):

- correlation (full detail): layer_a, layer_b, value, low, high (mean Pearson r over dimensions, -1 to 1)
- correlation_diagonal: layer, value, low, high; correlation_histogram: dimension, r (last layer)
- cka (full detail): estimator ('paper' is biased, 'reference' debiased), layer_a, layer_b, value, low, high, of
  all tokens; cka_diagonal: estimator, variant ('all', 'no_sinks', 'standardised'), layer, value, low, high
- cka_null: layer, value, null_mean, null_high, p (debiased CKA of text means against re-paired texts;
  layer -1 is the maximum over layers)
- knn: estimator ('paper' excludes self only, 'reference' the whole text), layer, k, jaccard, overlap,
  chance, corrected, low, high (interval of `jaccard` for paper, of `corrected` for reference);
  knn_variants: variant ('centred', 'standardised', 'text'), then the same; knn_labels (last layer): layer,
  label, k, corrected, low, high, tokens
- procrustes: estimator ('paper' in sample, 'reference' held out), layer, quantity (r2, cosine,
  residual_variance, inverse_row_entropy, diagonal_energy; full detail, last layer: permutation_energy),
  value, low, high, null
- rotation_angles: angle (degrees, sorted)
- probe: text_set, direction, scaler, accuracy, low, high, majority, and macro_f1 and weighted_f1, each with
  _low and _high; probe_controls: text_set,
  direction, control ('procrustes', 'shuffled', 'transfer_ratio', 'transfer_ratio_procrustes'), value, low, high;
  probe_paper: the columns of probe
- energy: layer, model ('a', 'b'), top_dimension_share and top_rows_share, each with _low and _high
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from realign.hrsa.calibration import part_interval

STORED_WIDTH = 576
"""Rotations wider than this are kept as the largest absolute value of each block."""


@dataclass
class Report:
    """What `compare_activations` found.

    Attributes:
        frames: tidy frames by name, see the module's text.
        rotation: (d, d) float16 Procrustes O of the last layer fitted on all rows; wider than 576 it holds
            block maxima of |O| (``meta['rotation_block']`` > 1), enough for a heat map.
        influence: by metric, (layers, texts) float32 influence of each text on the reported number (see
            calibration); ``meta['influence_layers'][metric]`` lists the layers.
        meta: counts, settings, estimator notes, seconds of each metric.
    """

    frames: dict[str, pd.DataFrame]
    rotation: NDArray[np.float16] | None = None
    influence: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def frame(self, name: str) -> pd.DataFrame:
        """Return a copy of a frame.

        Raises:
            ValueError: the comparison did not compute it.
        """
        if name not in self.frames:
            raise ValueError(f"the report has no frame '{name}'; it has {', '.join(sorted(self.frames))}")
        return self.frames[name].copy()

    @property
    def layers(self) -> int:
        """How many layers each model has, embeddings included."""
        return int(self.meta["layers"])

    def save(self, directory: Path | str) -> None:
        """Write one gzipped CSV per frame, arrays.npz and meta.json; the same report gives the same bytes."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name, frame in self.frames.items():
            frame.to_csv(
                directory / f"{name}.csv.gz",
                index=False,
                float_format="%.8g",
                compression={"method": "gzip", "mtime": 0},
            )
        # Influences are of size 1/texts, below float16's normal range: scaled up, then halved in size.
        arrays: dict[str, NDArray[Any]] = {
            f"influence/{name}": (values * values.shape[-1]).astype(np.float16)
            for name, values in self.influence.items()
        }
        if self.rotation is not None:
            arrays["rotation"] = self.rotation
        np.savez_compressed(directory / "arrays.npz", **arrays)  # type: ignore[arg-type]
        (directory / "meta.json").write_text(json.dumps(self.meta, indent=1, sort_keys=True))

    @classmethod
    def load(cls, directory: Path | str) -> Report:
        """Read what :meth:`save` wrote."""
        directory = Path(directory)
        frames = {
            path.name.removesuffix(".csv.gz"): pd.read_csv(path)
            for path in sorted(directory.glob("*.csv.gz"))
        }
        influence = {}
        with np.load(directory / "arrays.npz") as arrays:
            rotation = arrays["rotation"] if "rotation" in arrays.files else None
            for name in arrays.files:
                if name.startswith("influence/"):
                    values = arrays[name].astype(np.float32)
                    influence[name.removeprefix("influence/")] = values / values.shape[-1]
        return cls(frames, rotation, influence, json.loads((directory / "meta.json").read_text()))


def shrink_rotation(rotation: NDArray[Any], width: int = STORED_WIDTH) -> tuple[NDArray[np.float16], int]:
    """Return O as float16, or, where it is wider than ``width``, |O|'s maxima over square blocks; and the block."""
    d = len(rotation)
    block = -(-d // width)
    if block == 1:
        return rotation.astype(np.float16), 1
    padded = np.pad(np.abs(rotation), ((0, -d % block), (0, -d % block)))
    small = padded.reshape(len(padded) // block, block, -1, block).max(axis=(1, 3))
    return small.astype(np.float16), block


def grid_frame(values: NDArray[Any], influence: NDArray[Any]) -> pd.DataFrame:
    """Tidy a matrix of layer pairs with the influences of parts of the texts: layer_a, layer_b, value, low, high.

    No similarity exceeds 1, and no interval does.
    """
    a, b = np.indices(values.shape)
    low, high = part_interval(values, influence)
    cells = {"value": values, "low": low, "high": np.minimum(high, np.maximum(1.0, values))}
    return pd.DataFrame(
        {"layer_a": a.ravel(), "layer_b": b.ravel(), **{name: cell.ravel() for name, cell in cells.items()}}
    )
