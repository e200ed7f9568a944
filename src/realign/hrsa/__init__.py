"""Hierarchical representation similarity analysis (HRSA) on plain arrays.

Three levels: **representation** (dimension correlation, Procrustes), **geometry** (linear CKA, k-NN
overlap), **function** (cross-model probes). Functions take numpy arrays or torch tensors, on the CPU or on
CUDA, compute in float32 or better with TF32 off, and return numpy. Rows are the same tokens, or texts, in both
models. Layer 0 is the token embedding; the last layer follows the final norm. Layers are paired from
the start. States are read without special tokens.
"""

from realign.hrsa.activations import Activations, collect, extract
from realign.hrsa.calibration import classical_mds, permutation_test
from realign.hrsa.comparison import compare, compare_activations
from realign.hrsa.function import ProbeResult, cross_model_probe
from realign.hrsa.geometry import cka_with_influence, energy, linear_cka, standardise
from realign.hrsa.grids import cka_grid, correlation_grid
from realign.hrsa.maps import ModelsMap, cka_distances, models_map
from realign.hrsa.neighbours import nearest
from realign.hrsa.overlap import KNNOverlap, knn_overlap
from realign.hrsa.report import Report
from realign.hrsa.representation import (
    Procrustes,
    diagonal_energy,
    dimension_correlation,
    inverse_row_entropy,
    orthogonal_procrustes,
    permutation_energy,
    rotation_angles,
)
from realign.hrsa.summary import by_layer, difference, drift_summary
from realign.hrsa.work import Probe

__all__ = [
    "Activations",
    "KNNOverlap",
    "ModelsMap",
    "Probe",
    "ProbeResult",
    "Procrustes",
    "Report",
    "by_layer",
    "cka_distances",
    "cka_grid",
    "cka_with_influence",
    "classical_mds",
    "collect",
    "compare",
    "compare_activations",
    "correlation_grid",
    "cross_model_probe",
    "diagonal_energy",
    "difference",
    "dimension_correlation",
    "drift_summary",
    "energy",
    "extract",
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
