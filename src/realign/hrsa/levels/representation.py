"""Axes and rotations of a report: dimension-wise correlation and Procrustes, in both estimators."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from realign.hrsa import representation as rep
from realign.hrsa import uncertainty as unc
from realign.hrsa.arrays import center, group_sums, numpy, row_squares
from realign.hrsa.correlation_grids import correlation_grid_by_part
from realign.hrsa.pair import Pair
from realign.hrsa.rows import Rows

SHAPE = ("inverse_row_entropy", "diagonal_energy")
"""What is reported of a rotation itself."""

STORED_WIDTH = 576
"""Rotations wider than this are kept as the largest absolute value of each block."""

Scores: TypeAlias = dict[str, tuple[float, np.ndarray]]
"""By metric: its value and the influence (texts,) of each text on it."""


def correlation(pair: Pair) -> Rows:
    """Dimension-wise correlation; detail `correlation_histogram` (r of every dimension, last layer)."""
    rows = Rows()
    if pair.detail == "full":
        rows.add_grid("correlation", "reference", *correlation_grid_by_part(*pair.stacks(), pair.parts))
    groups = torch.from_numpy(pair.groups).to(pair.device)
    values, influences = np.empty(len(pair.every)), np.empty((len(pair.every), pair.texts))
    for i, layer in enumerate(pair.every):
        x, y = pair.layer(layer)
        r, influences[i] = _correlation_influence(x, y, groups, pair.texts)
        values[i] = np.nanmean(r)
    ends = pair.interval(values, influences)
    rows.add("correlation", "reference", pair.every, values, ends, influence=influences)
    rows.details["correlation_histogram"] = pd.DataFrame({"dimension": range(len(r)), "r": r})
    return rows


def _correlation_influence(x: Tensor, y: Tensor, groups: Tensor, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Pearson r (d,) and the jackknife influence (texts,) of each text on its mean over dimensions."""
    r = rep.dimension_correlation(x, y)
    xc, yc = center(x), center(y)
    ones = torch.ones(len(x), dtype=torch.float64, device=x.device)
    count = len(x) - group_sums(ones, groups, texts)[:, None]

    def without(v: Tensor) -> Tensor:
        """Mean over rows when one text is left out: (texts, d)."""
        sums = group_sums(v, groups, texts)
        return (sums.sum(0) - sums) / count

    mx, my = without(xc), without(yc)
    cov = without(xc * yc) - mx * my
    var = (without(xc * xc) - mx * mx) * (without(yc * yc) - my * my)
    left_out = cov / torch.sqrt(var.clamp_min(1e-300))
    left_out = left_out[:, torch.from_numpy(np.isfinite(r)).to(x.device)].mean(1)
    return r, numpy(left_out.mean() - left_out)


def procrustes(pair: Pair) -> Rows:
    """All metrics of the Procrustes map, its last layer's rotation, and (full detail) `rotation_angles`."""
    rows = Rows()
    half = unc.halves(pair.groups, pair.options.seed)
    folds = (np.flatnonzero(half), np.flatnonzero(~half))
    points: dict[tuple[str, str], list[tuple[int, float, np.ndarray, float]]] = defaultdict(list)
    full, last = pair.detail == "full", pair.layers - 1
    for layer in pair.picked:
        x, y = pair.layer(layer)
        whole = rep.orthogonal_procrustes(x, y, fast=True)
        in_sample, held_out = _in_sample(pair, whole, x, y), _held_out(pair, x, y, folds)
        null: dict[str, float] = {}
        if full and (layer % 5 == 0 or layer == last):
            null = _procrustes_null(pair, x, y, folds, draws=10 if layer == last else 1)
        if layer == last:
            rows.rotation, rows.meta["rotation_block"] = shrink_rotation(whole.rotation)
            if full:
                rows.details["rotation_angles"] = pd.DataFrame({"angle": rep.rotation_angles(whole.rotation)})
                in_sample["permutation_energy"] = _permutation(pair, whole, x, y)
        for metric, (value, influence) in in_sample.items():
            points[metric, "paper"].append((layer, value, influence, np.nan))
        for metric, (value, influence) in held_out.items():
            points[metric, "reference"].append((layer, value, influence, null.get(metric, np.nan)))
    for (metric, estimator), mine in points.items():
        layers, values, influences, nulls = map(np.array, zip(*mine, strict=True))
        kept = influences if estimator == "reference" and metric in ("r2", *SHAPE) else None
        ends = pair.interval(values, influences)
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
        "inverse_row_entropy": float(rep.inverse_row_entropy(rotation).mean()),
        "diagonal_energy": rep.diagonal_energy(rotation),
    }


def _in_sample(pair: Pair, fitted: rep.Procrustes, x: Tensor, y: Tensor) -> Scores:
    """Scores on the rows of the fit, as the public code has them."""
    aligned = fitted.aligned(x)
    score = rep.alignment_score(aligned, y - rep.like(fitted.target_mean, y))
    # The public code fits on centred states but takes the cosine of uncentred ones.
    turned = aligned + rep.like(fitted.source_mean @ fitted.rotation, x)
    raw = numpy(torch.nn.functional.cosine_similarity(turned, y, dim=1).double())
    r2 = 1 - score.residual_variance
    error, total = score.squared_error, score.squared_total
    # The map minimises this error, so refitting it without a text would change the error to second order only.
    effect = pair.by_text(((1 - r2) * total - error) / total.sum())
    shape = rep.shape_influence(fitted, x, y)
    return {
        "r2": (r2, effect),
        "cosine": (float(raw.mean()), unc.mean_influence(raw, pair.groups, pair.texts)),
        "residual_variance": (score.residual_variance, -effect),
        **{name: (value, pair.by_text(shape[name])) for name, value in _axes(fitted.rotation).items()},
    }


def _permutation(pair: Pair, fitted: rep.Procrustes, x: Tensor, y: Tensor) -> tuple[float, np.ndarray]:
    """Energy of the map on its best axis permutation, which is held fixed: the diagonal's, Y's axes permuted."""
    value, axes = rep.permutation_energy(fitted.rotation)
    permuted = replace(fitted, rotation=fitted.rotation[:, axes], target_mean=fitted.target_mean[axes])
    columns = torch.from_numpy(axes).to(y.device)
    return value, pair.by_text(rep.shape_influence(permuted, x, y[:, columns])["diagonal_energy"])


def _held_out(pair: Pair, x: Tensor, y: Tensor, folds: tuple[np.ndarray, ...]) -> Scores:
    """Cross-fitted scores over both halves (the map held fixed), and the mean shape of the two maps."""
    error, total, cosine, unturned = (np.empty(len(x)) for _ in range(4))
    aligned = torch.empty_like(y)
    shapes = {name: np.empty(len(x)) for name in SHAPE}
    axes, residual = [], []
    for train, test in (folds, folds[::-1]):
        fitted = rep.orthogonal_procrustes(x[train], y[train], fast=True)
        mean, turned = rep.like(fitted.target_mean, y), fitted.aligned(x[test])
        target = y[test] - mean
        score = rep.alignment_score(turned, target)
        error[test], total[test], cosine[test] = score.squared_error, score.squared_total, score.row_cosine
        aligned[test] = turned + mean
        unturned[test] = numpy(row_squares(target - x[test] + rep.like(fitted.source_mean, x)))
        axes.append(_axes(fitted.rotation))
        residual.append(score.residual_variance)
        for name, influence in rep.shape_influence(fitted, x[train], y[train]).items():
            shapes[name][train] = influence / 2
    r2 = float(1 - error.sum() / total.sum())
    effect = pair.by_text(((1 - r2) * total - error) / total.sum())
    plain = float(1 - unturned.sum() / total.sum())
    groups = torch.from_numpy(pair.groups).to(x.device)
    r, r_effect = _correlation_influence(aligned, y, groups, pair.texts)
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
        fitted = rep.orthogonal_procrustes(x[train], y[shuffled], fast=True)
        other = test[unc.text_order(pair.groups[test], rng)]
        score = fitted.score(x[test], y[other])
        draws_of.append(
            {"r2": score.r2, "cosine": score.cosine, "residual_variance": score.residual_variance}
            | _axes(fitted.rotation)
        )
    return {name: float(np.mean([draw[name] for draw in draws_of])) for name in draws_of[0]}
