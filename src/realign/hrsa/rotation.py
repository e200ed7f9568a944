"""The rotation that takes one model's space onto the other's: its fit, how well it fits, and its shape.

Rows are the same tokens in both models. Everything is computed in float64 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from realign.hrsa.arrays import (
    Array,
    as_matrix,
    as_pair,
    center,
    column_sums,
    full_precision,
    numpy,
    row_squares,
    times_power,
    unit_exponent,
)

RANK_TOLERANCE = 1e-10
"""A direction counts where its singular value of Xc'Yc exceeds this share of the largest: 1e-5 of the data's spread."""


@dataclass(frozen=True)
class AlignmentScore:
    """How well a fitted rotation maps source rows onto target rows.

    Attributes:
        r2: 1 - squared error / squared distance of the target from its training mean; at most 1.
        cosine: mean cosine of aligned and target rows, both relative to their training means.
        residual_variance: variance of the residual / variance of the target, each about its own mean.
        squared_error: (n,) squared error of each row.
        squared_total: (n,) squared distance of each target row from the training mean.
        row_cosine: (n,) cosine of each row.
    """

    r2: float
    cosine: float
    residual_variance: float
    squared_error: np.ndarray
    squared_total: np.ndarray
    row_cosine: np.ndarray


@dataclass(frozen=True)
class Procrustes:
    """An orthogonal map from X to Y: ``(x - source_mean) @ rotation + target_mean``.

    ``left_vectors`` (d, d) and ``singular_values`` (d,) are U and S of Xc'Yc = U S V'. The data determine the
    rotation of ``rank`` directions; where that is less than d, it is as near to the identity as it can be.
    """

    rotation: np.ndarray
    source_mean: np.ndarray
    target_mean: np.ndarray
    singular_values: np.ndarray
    left_vectors: np.ndarray
    rank: int

    def transform(self, x: Array) -> np.ndarray:
        """Map rows (m, d) of the source space into the target space."""
        values = self._of_width(as_matrix(x, "X", rows=1))
        return numpy(self.aligned(values) + like(self.target_mean, values))

    def score(self, x: Array, y: Array) -> AlignmentScore:
        """Score the map on rows (m, d), as a rule held-out ones, with the means of the training rows."""
        left, right = as_pair(x, y, rows=1, same_width=True)
        return alignment_score(self.aligned(self._of_width(left)), right - like(self.target_mean, right))

    def _of_width(self, x: Tensor) -> Tensor:
        if x.shape[1] != len(self.source_mean):
            raise ValueError(
                f"X has {x.shape[1]} dimensions and the map was fitted on {len(self.source_mean)}"
            )
        return x

    def aligned(self, x: Tensor) -> Tensor:
        """Rows (m, d) of the source space on the target's axes, about the target's training mean."""
        with full_precision():
            return (x - like(self.source_mean, x)) @ like(self.rotation, x)


def alignment_score(aligned: Tensor, target: Tensor) -> AlignmentScore:
    """Score aligned rows (m, d) against target rows, both about the training means."""
    exponent = unit_exponent(aligned, target)
    aligned, target = times_power(aligned, exponent), times_power(target, exponent)
    unit = 4.0**-exponent  # back to squares of the data
    residual = target - aligned
    error, total = row_squares(residual), row_squares(target)
    if float(total.sum()) == 0:
        raise ValueError("Y does not vary on the scored rows; R^2 is not defined")
    cosine = (aligned * target).sum(1, dtype=torch.float64) / torch.sqrt(
        (row_squares(aligned) * total).clamp_min(1e-300)
    )
    spread = row_squares(center(target)).sum()
    ratio = float(row_squares(center(residual)).sum() / spread) if spread > 0 else float("nan")
    return AlignmentScore(
        r2=float(1 - error.sum() / total.sum()),
        cosine=float(cosine.mean()),
        residual_variance=ratio,
        squared_error=numpy(error * unit),
        squared_total=numpy(total * unit),
        row_cosine=numpy(cosine),
    )


def like(values: np.ndarray, x: Tensor) -> Tensor:
    """Return an array on the device and in the precision of ``x``."""
    return torch.from_numpy(values).to(x.device, x.dtype)


def orthogonal_procrustes(x: Array, y: Array) -> Procrustes:
    """Fit the orthogonal O that minimises ||Xc O - Yc|| (Schoenemann 1966), data centred.

    Where several do, as when there are fewer rows than dimensions, it is the one nearest to the identity, the
    largest trace: with Xc'Yc = U S V' and U_0, V_0 the directions whose singular value is at most RANK_TOLERANCE of
    the largest, O = U_r V_r' + U_0 W V_0' with W the polar factor of U_0' V_0. So identical data have O = I.
    Products and decomposition are in float64 whatever the data's precision: in float32 O depends on the number of
    threads.

    Args:
        x: source rows (n, d).
        y: target rows (n, d).

    Raises:
        ValueError: shapes differ, or either side does not vary.
    """
    left, right = as_pair(x, y, same_width=True)
    source_mean, target_mean = (column_sums(side) / len(side) for side in (left, right))
    cross = torch.zeros(left.shape[1], left.shape[1], dtype=torch.float64, device=left.device)
    for p, q in zip(left.split(1024), right.split(1024), strict=True):
        cross += (p.double() - source_mean).T @ (q.double() - target_mean)
    largest = cross.abs().max()
    if float(largest) == 0:
        raise ValueError(
            "X or Y does not vary, or nothing in one goes with the other; no rotation is defined"
        )
    u, s, vt = torch.linalg.svd(cross / largest)
    rank = int((s > RANK_TOLERANCE * s[0]).sum())
    if rank < len(s):
        p, _, qt = torch.linalg.svd(u[:, rank:].T @ vt[rank:].T)
        vt[rank:] = p @ qt @ vt[rank:]
    return Procrustes(
        numpy(u @ vt), numpy(source_mean), numpy(target_mean), numpy(s * largest), numpy(u), rank
    )


def inverse_row_entropy(rotation: Array) -> np.ndarray:
    """1 - H(squared row) / ln d of each row: 1 is axis-aligned, 0 fully mixed. (d,) float64 in [0, 1]."""
    squared = as_matrix(rotation, "rotation", rows=1).double() ** 2
    if squared.shape[0] != squared.shape[1] or squared.shape[0] < 2:
        raise ValueError(f"rotation must be square and at least 2 wide, got {tuple(squared.shape)}")
    mass = squared.sum(1, keepdim=True)
    if bool((mass == 0).any()):
        raise ValueError(f"row {int(torch.nonzero(mass[:, 0] == 0)[0])} of the rotation is zero")
    p = squared / mass
    entropy = -torch.special.xlogy(p, p).sum(1)
    return numpy((1 - entropy / np.log(p.shape[1])).clamp(0, 1))


def diagonal_energy(rotation: Array) -> float:
    """Share of O's squared entries on its diagonal: 1 is the identity up to signs, 1/d is chance."""
    o = as_matrix(rotation, "rotation", rows=1).double()
    return float((o.diagonal() ** 2).sum() / (o**2).sum())


def permutation_energy(rotation: Array) -> tuple[float, np.ndarray]:
    """Share of O's squared entries on its best axis permutation, and that permutation (d,).

    High permutation energy with low diagonal energy means that axes swapped places; both low means that
    axes were mixed.
    """
    squared = numpy(as_matrix(rotation, "rotation", rows=1).double() ** 2)
    rows, columns = linear_sum_assignment(squared, maximize=True)
    return float(squared[rows, columns].sum() / squared.sum()), columns


def rotation_angles(rotation: Array) -> np.ndarray:
    """Angles of O's eigenvalues in degrees, 0 (kept) to 180 (reflected), sorted. (d,) float64."""
    o = numpy(as_matrix(rotation, "rotation", rows=1).double())
    return np.sort(np.degrees(np.abs(np.angle(np.linalg.eigvals(o)))))


def shape_influence(fitted: Procrustes, x: Array, y: Array) -> dict[str, np.ndarray]:
    """How much each of the rows that a map was fitted on moves the shape of its rotation.

    Args:
        fitted: what :func:`orthogonal_procrustes` made of ``x`` and ``y``.
        x: the same source rows (n, d).
        y: the same target rows (n, d).

    Returns:
        'inverse_row_entropy' (of its mean over rows of O) and 'diagonal_energy', each (n,) float64 that sums
        to 0 (see uncertainty).
    """
    o = fitted.rotation
    d = len(o)
    slopes = {
        "inverse_row_entropy": 2 / d * o * np.log(np.maximum(o * o, 1e-30)) / np.log(d),
        "diagonal_energy": 2 / d * np.diag(np.diag(o)),
    }
    return {name: turning_influence(fitted, x, y, slope) for name, slope in slopes.items()}


def turning_influence(fitted: Procrustes, x: Array, y: Array, slope: np.ndarray) -> np.ndarray:
    """How much each of the rows of a fit moves a number through the rotation: (n,) float64.

    With Xc'Yc = U S V', a change dM of that product turns O by U K V', K_ij = (A_ij - A_ji) / (s_i + s_j) and
    A = U' dM V (the derivative of the polar factor). More weight on row p is dM = x_p y_p', which gives the influence
    ``x_p' G y_p`` for a matrix G that all rows share.

    Args:
        fitted: what :func:`orthogonal_procrustes` made of ``x`` and ``y``.
        x: the same source rows (n, d).
        y: the same target rows (n, d).
        slope: (d, d) derivative of the number by the entries of O.
    """
    left, right = as_pair(x, y, same_width=True)
    o, u, s, slope_ = (
        torch.from_numpy(v).to(left.device, torch.float64)
        for v in (
            fitted.rotation,
            fitted.left_vectors,
            fitted.singular_values / fitted.singular_values[0],
            slope,
        )
    )
    v, r = o.T @ u, fitted.rank
    turned = u.T @ slope_ @ v
    gaps = s[:, None] + s[None, :]
    gaps[r:, r:] = torch.inf  # of two directions without data, no row turns one into the other
    shared = (turned - turned.T) / gaps
    if r < len(s):
        # They follow the space that the data span: U_0 and V_0 turn with it, and so does the polar factor of U_0'V_0.
        between, basis = torch.linalg.eigh(u[:, r:].T @ v[:, r:])
        sums = between[:, None] + between[None, :]
        inner = basis.T @ turned[r:, r:] @ basis
        inner = basis @ ((inner - inner.T) / torch.where(sums > RANK_TOLERANCE, sums, torch.inf)) @ basis.T
        shared[r:, :r] -= inner @ v[:, r:].T @ u[:, :r] / s[:r]
        shared[:r, r:] -= v[:, :r].T @ u[:, r:] @ inner / s[:r, None]
    shared = u @ shared @ v.T
    means = [torch.from_numpy(m).to(left.device) for m in (fitted.source_mean, fitted.target_mean)]
    rows = [
        (((p.double() - means[0]) @ shared) * ((q.double() - means[1]) / fitted.singular_values[0])).sum(1)
        for p, q in zip(left.split(1024), right.split(1024), strict=True)
    ]
    return numpy(torch.cat(rows))
