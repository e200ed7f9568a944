"""Procrustes in a report: how well a rotation maps one model onto the other, and the rotation's shape."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from realign.hrsa import rotation as rot
from realign.hrsa import uncertainty as unc
from realign.hrsa.arrays import numpy, row_squares
from realign.hrsa.correlation import correlation_influence
from realign.hrsa.pair import Pair
from realign.hrsa.rows import Rows

SHAPE = ("inverse_row_entropy", "diagonal_energy")
"""What is reported of a rotation itself."""

STORED_WIDTH = 576
"""Rotations wider than this are kept as the largest absolute value of each block."""

Scores: TypeAlias = dict[str, tuple[float, np.ndarray]]
"""By metric: its value and the influence (texts,) of each text on it."""


def procrustes(pair: Pair) -> Rows:
    """All metrics of the Procrustes map; details `rotation_rank`, (full) `rotation_angles` and the last layer's rotation."""
    rows = Rows()
    half = unc.halves(pair.groups, pair.options.seed)
    folds = (np.flatnonzero(half), np.flatnonzero(~half))
    points: dict[tuple[str, str], list[tuple[int, float, np.ndarray, float]]] = defaultdict(list)
    ranks, full, last = [], pair.detail == "full", pair.layers - 1
    for layer in pair.picked:
        x, y = pair.layer(layer)
        whole = rot.orthogonal_procrustes(x, y)
        ranks.append(whole.rank)
        in_sample, held_out = _in_sample(pair, whole, x, y), _held_out(pair, x, y, folds)
        null: dict[str, float] = {}
        if full and (layer % 5 == 0 or layer == last):
            null = _procrustes_null(pair, x, y, folds, draws=10 if layer == last else 1)
        if full and layer == last:
            rows.rotation, rows.meta["rotation_block"] = shrink_rotation(whole.rotation)
            rows.details["rotation_angles"] = pd.DataFrame({"angle": rot.rotation_angles(whole.rotation)})
            in_sample["permutation_energy"] = _permutation(pair, whole, x, y)
        for metric, (value, influence) in in_sample.items():
            points[metric, "paper"].append((layer, value, influence, np.nan))
        for metric, (value, influence) in held_out.items():
            points[metric, "reference"].append((layer, value, influence, null.get(metric, np.nan)))
    rank = {"layer": pair.picked, "rank": ranks, "width": x.shape[1]}
    rows.details["rotation_rank"] = pd.DataFrame(rank)
    for (metric, estimator), mine in points.items():
        layers, values, influences, nulls = map(np.array, zip(*mine, strict=True))
        kept = influences if estimator == "reference" else None
        ends = pair.interval(metric, estimator, values, influences)
        rows.add(metric, estimator, layers.tolist(), values, ends, null=nulls, influence=kept)
    return rows


def shrink_rotation(rotation: np.ndarray, width: int = STORED_WIDTH) -> tuple[np.ndarray, int]:
    """Return O as float16, or, where it is wider than ``width``, maxima of its absolute values over square blocks; and the block."""
    block = -(-len(rotation) // width)
    if block == 1:
        return rotation.astype(np.float16), 1
    padded = np.pad(np.abs(rotation), (0, -len(rotation) % block))
    small = padded.reshape(len(padded) // block, block, -1, block).max(axis=(1, 3))
    return small.astype(np.float16), block


def _axes(rotation: np.ndarray) -> dict[str, float]:
    return {
        "inverse_row_entropy": float(rot.inverse_row_entropy(rotation).mean()),
        "diagonal_energy": rot.diagonal_energy(rotation),
    }


def _in_sample(pair: Pair, fitted: rot.Procrustes, x: Tensor, y: Tensor) -> Scores:
    """Scores on the rows of the fit as the public code has them: fitted on centred states, scored on uncentred ones.

    ``residual_variance`` is ||X O - Y||^2 / ||Y||^2, ``r2`` 1 minus that, ``cosine`` the mean of cos(X O, Y).
    """
    turned = x.double() @ rot.like(fitted.rotation, x.double())
    error, total = numpy(row_squares(turned - y)), numpy(row_squares(y.double()))
    raw = numpy(torch.nn.functional.cosine_similarity(turned, y.double(), dim=1))
    ratio = float(error.sum() / total.sum())
    # The map minimises the centred part of the error; what is left, n ||m_x O - m_y||^2, moves with it.
    slope = -2 * len(x) * np.outer(fitted.source_mean, fitted.target_mean) / total.sum()
    effect = (error - ratio * total) / total.sum() + rot.turning_influence(fitted, x, y, slope)
    by_text = pair.by_text(effect)
    shape = rot.shape_influence(fitted, x, y)
    return {
        "r2": (1 - ratio, -by_text),
        "cosine": (float(raw.mean()), unc.mean_influence(raw, pair.groups, pair.texts)),
        "residual_variance": (ratio, by_text),
        **{name: (value, pair.by_text(shape[name])) for name, value in _axes(fitted.rotation).items()},
    }


def _permutation(pair: Pair, fitted: rot.Procrustes, x: Tensor, y: Tensor) -> tuple[float, np.ndarray]:
    """Energy of the map on its best axis permutation, which is held fixed: the diagonal's, Y's axes permuted."""
    value, axes = rot.permutation_energy(fitted.rotation)
    permuted = replace(fitted, rotation=fitted.rotation[:, axes], target_mean=fitted.target_mean[axes])
    columns = torch.from_numpy(axes).to(y.device)
    return value, pair.by_text(rot.shape_influence(permuted, x, y[:, columns])["diagonal_energy"])


def _held_out(pair: Pair, x: Tensor, y: Tensor, folds: tuple[np.ndarray, ...]) -> Scores:
    """Cross-fitted scores over both halves (the map held fixed), and the mean shape of the two maps."""
    error, total, cosine, unturned = (np.empty(len(x)) for _ in range(4))
    aligned = torch.empty_like(y)
    shapes = {name: np.empty(len(x)) for name in SHAPE}
    axes, residual = [], []
    for train, test in (folds, folds[::-1]):
        fitted = rot.orthogonal_procrustes(x[train], y[train])
        mean, turned = rot.like(fitted.target_mean, y), fitted.aligned(x[test])
        target = y[test] - mean
        score = rot.alignment_score(turned, target)
        error[test], total[test], cosine[test] = score.squared_error, score.squared_total, score.row_cosine
        aligned[test] = turned + mean
        unturned[test] = numpy(row_squares(target - x[test] + rot.like(fitted.source_mean, x)))
        axes.append(_axes(fitted.rotation))
        residual.append(score.residual_variance)
        for name, influence in rot.shape_influence(fitted, x[train], y[train]).items():
            shapes[name][train] = influence / 2
    r2 = float(1 - error.sum() / total.sum())
    effect = pair.by_text(((1 - r2) * total - error) / total.sum())
    plain = float(1 - unturned.sum() / total.sum())
    groups = torch.from_numpy(pair.groups).to(x.device)
    r, r_effect = correlation_influence(aligned, y, groups, pair.texts)
    return {
        "r2": (r2, effect),
        # How well the models agree without the rotation, and their correlation after it.
        "unrotated_r2": (plain, pair.by_text(((1 - plain) * total - unturned) / total.sum())),
        "rotated_correlation": (float(np.nanmean(r)), r_effect),
        "cosine": (float(cosine.mean()), unc.mean_influence(cosine, pair.groups, pair.texts)),
        "residual_variance": (float(np.mean(residual)), -effect),
        **{name: (float(np.mean([a[name] for a in axes])), pair.by_text(shapes[name])) for name in SHAPE},
    }


def _procrustes_null(
    pair: Pair, x: Tensor, y: Tensor, folds: tuple[np.ndarray, ...], draws: int
) -> dict[str, float]:
    """Mean scores when the texts of each half are paired with other texts of that half."""
    rng = np.random.default_rng(pair.options.seed)
    draws_of = []
    for _ in range(draws):
        train, test = folds
        shuffled = train[unc.text_order(pair.groups[train], rng)]
        fitted = rot.orthogonal_procrustes(x[train], y[shuffled])
        other = test[unc.text_order(pair.groups[test], rng)]
        score = fitted.score(x[test], y[other])
        draws_of.append(
            {"r2": score.r2, "cosine": score.cosine, "residual_variance": score.residual_variance}
            | _axes(fitted.rotation)
        )
    return {name: float(np.mean([draw[name] for draw in draws_of])) for name in draws_of[0]}
