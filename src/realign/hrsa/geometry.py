"""Global geometry: linear CKA of one pair of layers with influences, what could fake it, its rows in a report.

For the formulas, and for all pairs of layers at once, see :mod:`realign.hrsa.grids`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import arrays
from realign.hrsa import uncertainty as unc
from realign.hrsa.activations import Activations
from realign.hrsa.arrays import Array, as_matrix, as_pair, center, numpy, row_squares, unit_scale
from realign.hrsa.grids import Estimator, cka_grid, cka_grids, hsic, varying
from realign.hrsa.intervals import interval
from realign.hrsa.pair import Pair
from realign.hrsa.rows import Rows

FORMS = {"paper": "biased", "reference": "debiased"}
SINK_RATIO = 5.0
"""A row is a sink where its norm exceeds this many times the median norm of its layer."""


def linear_cka(x: Array, y: Array, *, estimator: Estimator = "biased") -> float:
    """Linear CKA of two representations of the same rows, in float64.

    Args:
        x: states (n, d1).
        y: states (n, d2).
        estimator: 'biased' or 'debiased' (n >= 4), see :func:`realign.hrsa.cka_grid`.

    Raises:
        ValueError: rows differ, a value is not finite, too few rows, or no variance on a side.
    """
    left, right = as_pair(x, y, unit=True)
    return float(cka_grid([left.double()], [right.double()], estimator=estimator)[0, 0])


@dataclass(frozen=True)
class CKAResult:
    """CKA of one pair with the influence (n,) of each row on the debiased and the biased value."""

    biased: float
    debiased: float
    influence: np.ndarray
    biased_influence: np.ndarray


def cka_with_influence(x: Array, y: Array) -> CKAResult:
    """Both CKA estimators of one pair, and how much each row moves the debiased one.

    Row p contributes ``sum_q K_pq L_pq = (x_p' X'Y) . y_p`` to <K, L>; because K and L are centred,
    moving the centre has no first-order effect, so twice the contribution is the row's influence on HSIC.
    Sum the influences of a text's rows to get the text's.

    Returns:
        CKAResult with influence (n,), summing to 0.
    """
    left, right = as_pair(x, y, rows=4, unit=True)
    n = left.shape[0]
    with arrays.full_precision():
        xc, yc = varying(center(left), "X"), varying(center(right), "Y")
        if n < min(xc.shape[1], yc.shape[1]):
            k, l_ = xc @ xc.T, yc @ yc.T
            rows = [(a * b).sum(1, dtype=torch.float64) for a, b in ((k, l_), (k, k), (l_, l_))]
        else:
            rows = [_form(a, a.T @ b, b) for a, b in ((xc, yc), (xc, xc), (yc, yc))]
        k, l_ = row_squares(xc), row_squares(yc)
    biased = float(rows[0].sum() / torch.sqrt(rows[1].sum() * rows[2].sum()))
    shares_of = [row / row.sum() for row in rows]
    plain = numpy(biased * (2 * shares_of[0] - shares_of[1] - shares_of[2]))
    pairs = ((k, l_), (k, k), (l_, l_))
    shares = [
        hsic(row, p * q, (p * q.sum() + p.sum() * q) / 2, n, "debiased")
        for row, (p, q) in zip(rows, pairs, strict=True)
    ]
    cross_hsic, hsic_x, hsic_y = (share.sum() for share in shares)
    if float(hsic_x) <= 0 or float(hsic_y) <= 0:
        return CKAResult(biased, float("nan"), np.full(n, np.nan), plain)
    scale = torch.sqrt(hsic_x * hsic_y)
    value = cross_hsic / scale
    influence = 2 * shares[0] / scale - value * (shares[1] / hsic_x + shares[2] / hsic_y)
    return CKAResult(biased, float(value), numpy(influence), plain)


def _form(a: Tensor, matrix: Tensor, b: Tensor) -> Tensor:
    """Return ``a_p' matrix b_p`` of every row p, a few rows at a time: (n,) float64."""
    parts = zip(a.split(1024), b.split(1024), strict=True)
    return torch.cat([((p @ matrix) * q).sum(1, dtype=torch.float64) for p, q in parts])


def standardise(x: Array) -> Tensor:
    """Centre each dimension and divide it by its standard deviation; constant dimensions become 0."""
    values = center(unit_scale(as_matrix(x, "X")))
    scale = torch.sqrt(arrays.column_sums(values * values) / len(values)).to(values.dtype)
    return values / torch.where(scale > 0, scale, torch.inf)


@dataclass(frozen=True)
class Energy:
    """How concentrated the squared Frobenius norm of centred states is.

    Attributes:
        top_dimension: share of the norm in its largest dimension, 1/d to 1.
        top_rows: share in the largest 1% of rows (at least one row).
        influence: (2, n) influence of each row on the two shares; which dimension and rows are on top is
            held fixed.
    """

    top_dimension: float
    top_rows: float
    influence: np.ndarray


def energy(x: Array) -> Energy:
    """Measure how much a single dimension or 1% of the rows can dominate CKA and Procrustes."""
    squared = varying(center(unit_scale(as_matrix(x, "X"))), "X") ** 2
    total = squared.sum(dtype=torch.float64)
    by_row = squared.sum(1, dtype=torch.float64)
    few = max(1, round(0.01 * len(by_row)))
    by_dimension = squared.sum(0, dtype=torch.float64)
    top = by_row.topk(few)
    on_top = torch.zeros_like(by_row).index_fill_(0, top.indices, 1.0)
    shares = [float(by_dimension.max() / total), float(top.values.sum() / total)]
    parts = [squared[:, by_dimension.argmax()].double(), by_row * on_top]
    influence = [numpy((part - share * by_row) / total) for part, share in zip(parts, shares, strict=True)]
    return Energy(shares[0], shares[1], np.stack(influence))


def sinks(x: Tensor) -> Tensor:
    """Mark the rows (n,) of states (n, d) whose norm exceeds SINK_RATIO times the median norm."""
    norm = torch.sqrt(row_squares(unit_scale(x)))
    return norm > SINK_RATIO * norm.median()


def sink_rows(*models: Activations) -> NDArray[np.bool_]:
    """Mark the stored rows (n,) that are sinks at any layer of any of the models."""
    marked = np.zeros(models[0].states.shape[1], dtype=bool)
    for layer in (layer for model in models for layer in model.states):
        marked |= numpy(sinks(torch.from_numpy(np.array(layer))))
    return marked


def cka(pair: Pair) -> Rows:
    """CKA of all tokens, without sinks and (full detail) standardised; details `energy` and `cka_null`."""
    rows = Rows()
    sunk = (sink_rows(pair.a, pair.b) if pair.sinks is None else pair.sinks)[pair.rows]
    rows.meta["sinks"] = int(sunk.sum())
    for (estimator, variant), (values, influences) in _diagonals(pair, np.flatnonzero(~sunk)).items():
        ends = pair.interval("cka", estimator, values, influences)
        kept = influences if estimator == "reference" else None
        rows.add("cka", estimator, pair.picked, values, ends, variant=variant, influence=kept)
    if pair.detail == "full":
        grids = cka_grids(*pair.stacks(), parts=pair.parts)
        for estimator, form in FORMS.items():
            rows.add_grid("cka", estimator, *grids[form], pair.scale("cka", estimator))
        rows.details["cka_null"] = _cka_null(pair)
        rows.details["energy"] = _energy(pair)
    return rows


def _diagonals(
    pair: Pair, kept: NDArray[np.int64]
) -> dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """CKA (L,) of matching layers and its influences (L, texts), by estimator and variant.

    ``kept`` are the rows that are no sinks.
    """
    variants: dict[str, tuple[Callable[[Tensor], Tensor], NDArray[np.int64]]] = {
        "": (lambda x: x, pair.groups),
        "no_sinks": (lambda x: x[kept], pair.groups[kept]),
    }
    if pair.detail == "full":
        variants["standardised"] = (standardise, pair.groups)
    count = len(pair.picked)
    curves = {(e, v): (np.empty(count), np.zeros((count, pair.texts))) for e in FORMS for v in variants}
    for i, layer in enumerate(pair.picked):
        x, y = pair.layer(layer)
        for variant, (change, groups) in variants.items():
            if variant != "no_sinks" or len(kept) < len(pair.rows):  # else as for all tokens
                result = cka_with_influence(change(x), change(y))
            for estimator, value, per_row in (
                ("paper", result.biased, result.biased_influence),
                ("reference", result.debiased, result.influence),
            ):
                values, influences = curves[estimator, variant]
                values[i] = value
                influences[i] = np.bincount(groups, per_row, minlength=pair.texts)
    return curves


def _energy(pair: Pair) -> pd.DataFrame:
    """What a single dimension or 1% of the rows hold of the squared norm, by layer and model, with intervals."""
    records = []
    for layer in pair.picked:
        for model, x in zip("ab", pair.layer(layer), strict=True):
            measured = energy(x)
            record: dict[str, object] = {"layer": layer, "model": model}
            shares = {"top_dimension_share": measured.top_dimension, "top_rows_share": measured.top_rows}
            for (name, value), per_row in zip(shares.items(), measured.influence, strict=True):
                low, high = interval(value, pair.by_text(per_row), "share")
                record |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
            records.append(record)
    return pd.DataFrame(records)


def _cka_null(pair: Pair, permutations: int = 100) -> pd.DataFrame:
    """Debiased CKA of text means against re-paired texts; -1 is the maximum over layers."""
    order = np.argsort(pair.a.text_keys, kind="stable")
    n = len(order)
    numbers = ["value", "null_mean", "null_high", "p"]
    if n < 4:  # the debiased estimator is not defined
        return pd.DataFrame({"layer": [*range(pair.layers), -1], **dict.fromkeys(numbers, np.nan)})
    upper = torch.triu_indices(n, n, 1, device=pair.device)
    pairs, diagonals = [], []
    for side in (pair.a, pair.b):
        x = [center(unit_scale(torch.from_numpy(p[order]).to(pair.device))) for p in side.pooled]
        # (n, n, layers): a permutation then moves whole rows of layers.
        pairs.append(torch.stack([v @ v.T for v in x], dim=2))
        diagonals.append(torch.stack([(v * v).sum(1, dtype=torch.float64) for v in x]))

    def debiased(k: Tensor, l_: Tensor, dk: Tensor, dl: Tensor) -> Tensor:
        dot = (dk * dl).sum(1)
        off = 2 * torch.einsum("pl,pl->l", k, l_).double()
        return hsic(off + dot, dot, dk.sum(1) * dl.sum(1), n, "debiased")

    still = [p[upper[0], upper[1]] for p in pairs]
    scale = torch.sqrt(
        debiased(still[0], still[0], diagonals[0], diagonals[0])
        * debiased(still[1], still[1], diagonals[1], diagonals[1])
    )
    known = numpy(torch.isfinite(scale) & (scale > 0))  # elsewhere a model does not vary
    moved = pairs[1].view(n * n, -1)

    def statistic(rows: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(rows).to(pair.device)
        other = moved.index_select(0, at[upper[0]] * n + at[upper[1]])
        return numpy(debiased(still[0], other, diagonals[0], diagonals[1][:, at]) / scale)[known]

    frame = pd.DataFrame({"layer": range(pair.layers), **dict.fromkeys(numbers, np.nan)})
    if not known.any():
        frame.loc[len(frame)] = [-1, *[np.nan] * len(numbers)]
        return frame.astype({"layer": int})
    test = unc.permutation_test(statistic, n, permutations=permutations, seed=pair.options.seed)
    frame.loc[known, numbers] = np.stack([test[name] for name in numbers], axis=1)
    frame.loc[len(frame)] = [-1, test["max_value"][0], np.nan, test["max_null_high"][0], test["max_p"][0]]
    return frame.astype({"layer": int})
