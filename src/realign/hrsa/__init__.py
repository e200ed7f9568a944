"""Hierarchical representation similarity analysis (HRSA) on plain arrays.

Levels: **representation** (dimension correlation, Procrustes), **geometry**, global (linear CKA) and local
(k-NN overlap), **function** (cross-model probes); :data:`METRICS` declares every metric, and :func:`compare`
measures them. Functions take numpy arrays or torch tensors, on the CPU or on CUDA, compute in float32 or better
with TF32 off, and return numpy. Rows are the same tokens, or texts, in both models. Layer 0 is the token
embedding; the last layer follows the final norm. Layers are paired from the start. States are read without
special tokens.
"""

from realign.hrsa.activations import Activations, collect
from realign.hrsa.comparison import compare, compare_activations
from realign.hrsa.correlation import correlation_grid, dimension_correlation
from realign.hrsa.forward import extract
from realign.hrsa.function import ProbeResult, cross_model_probe
from realign.hrsa.geometry import cka_with_influence, energy, linear_cka, standardise
from realign.hrsa.grids import cka_grid
from realign.hrsa.intervals import calibrated, effective_freedom, influence_interval
from realign.hrsa.knn import KNNOverlap, knn_overlap
from realign.hrsa.maps import ModelsMap, models_map
from realign.hrsa.metrics import METRICS, Metric
from realign.hrsa.neighbours import nearest
from realign.hrsa.pair import Pair, Probe
from realign.hrsa.replicates import Difference, difference
from realign.hrsa.report import Report, by_layer
from realign.hrsa.rotation import (
    Procrustes,
    diagonal_energy,
    inverse_row_entropy,
    orthogonal_procrustes,
    permutation_energy,
    rotation_angles,
)
from realign.hrsa.rows import Rows
from realign.hrsa.uncertainty import permutation_test

__all__ = [
    "METRICS",
    "Activations",
    "Difference",
    "KNNOverlap",
    "Metric",
    "ModelsMap",
    "Pair",
    "Probe",
    "ProbeResult",
    "Procrustes",
    "Report",
    "Rows",
    "by_layer",
    "calibrated",
    "cka_grid",
    "cka_with_influence",
    "collect",
    "compare",
    "compare_activations",
    "correlation_grid",
    "cross_model_probe",
    "diagonal_energy",
    "difference",
    "dimension_correlation",
    "effective_freedom",
    "energy",
    "extract",
    "influence_interval",
    "inverse_row_entropy",
    "knn_overlap",
    "linear_cka",
    "models_map",
    "nearest",
    "orthogonal_procrustes",
    "permutation_energy",
    "permutation_test",
    "rotation_angles",
    "standardise",
]
