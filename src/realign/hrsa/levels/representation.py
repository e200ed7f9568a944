"""Axes and rotations of a report: dimension-wise correlation and Procrustes, in both estimators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import calibration as cal
from realign.hrsa import representation as rep
from realign.hrsa.arrays import center, group_sums, numpy, row_squares
from realign.hrsa.grids import correlation_grid_by_part
from realign.hrsa.report import grid_frame, shrink_rotation
from realign.hrsa.work import Work

SHAPE = ("inverse_row_entropy", "diagonal_energy")
"""What is reported of a rotation itself."""

Found: TypeAlias = dict[str, tuple[float, NDArray[Any]]]
"""By quantity: its value and the influence (texts,) of each text on it."""


def correlation(work: Work) -> None:
    """Frames `correlation` (full detail), `correlation_diagonal` and `correlation_histogram`."""
    frames = work.report.frames
    if work.detail == "full":
        frames["correlation"] = grid_frame(*correlation_grid_by_part(*work.stacks(), work.parts))
    groups = torch.from_numpy(work.groups).to(work.device)
    values, influences = np.empty(len(work.every)), np.empty((len(work.every), work.texts))
    for i, layer in enumerate(work.every):
        x, y = work.pair(layer)
        r, influences[i] = _correlation_influence(x, y, groups, work.texts)
        values[i] = np.nanmean(r)
    low, high = work.interval(values, influences)
    frames["correlation_diagonal"] = pd.DataFrame(
        {"layer": work.every, "value": values, "low": low, "high": high}
    )
    frames["correlation_histogram"] = pd.DataFrame({"dimension": range(len(r)), "r": r})
    work.keep("correlation", work.every, influences)


def _correlation_influence(
    x: Tensor, y: Tensor, groups: Tensor, texts: int
) -> tuple[NDArray[Any], NDArray[Any]]:
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


def procrustes(work: Work) -> None:
    """Frames `procrustes` and (full detail) `rotation_angles`; the last layer's rotation."""
    half = cal.halves(work.groups, work.options.seed)
    folds = (np.flatnonzero(half), np.flatnonzero(~half))
    kept = {name: np.empty((len(work.picked), work.texts)) for name in ("r2", *SHAPE)}
    parts, last = [], work.layers - 1
    for i, layer in enumerate(work.picked):
        x, y = work.pair(layer)
        whole = rep.orthogonal_procrustes(x, y, fast=True)
        paper = _in_sample(work, whole, x, y)
        held = _held_out(work, x, y, folds)
        for name, influences in kept.items():
            influences[i] = held[name][1]
        null: dict[str, float] = {}
        if work.detail == "full" and (layer % 5 == 0 or layer == last):
            null = _procrustes_null(work, x, y, folds, draws=10 if layer == last else 1)
        for estimator, found in (("paper", paper), ("reference", held)):
            frame = pd.DataFrame({"estimator": estimator, "layer": layer, "quantity": list(found)})
            frame["value"] = values = np.array([value for value, _ in found.values()])
            frame["low"], frame["high"] = work.interval(values, np.stack([v for _, v in found.values()]))
            frame["null"] = [null.get(q, np.nan) if estimator == "reference" else np.nan for q in found]
            parts.append(frame)
        if layer == last:
            small, block = shrink_rotation(whole.rotation)
            work.report.rotation = small
            work.report.meta["rotation_block"] = block
            if work.detail == "full":
                work.report.frames["rotation_angles"] = pd.DataFrame(
                    {"angle": rep.rotation_angles(whole.rotation)}
                )
                value, effect = _permutation(work, whole, x, y)
                row = ("paper", layer, "permutation_energy", value, *work.interval(value, effect), np.nan)
                parts.append(pd.DataFrame([row], columns=frame.columns))
    work.report.frames["procrustes"] = pd.concat(parts, ignore_index=True)
    for name, influences in kept.items():
        work.keep("procrustes_r2" if name == "r2" else name, work.picked, influences)


def _axes(rotation: NDArray[Any]) -> dict[str, float]:
    return {
        "inverse_row_entropy": float(rep.inverse_row_entropy(rotation).mean()),
        "diagonal_energy": rep.diagonal_energy(rotation),
    }


def _by_text(work: Work, per_row: NDArray[Any]) -> NDArray[Any]:
    return np.bincount(work.groups, per_row, minlength=work.texts)


def _in_sample(work: Work, fitted: rep.Procrustes, x: Tensor, y: Tensor) -> Found:
    """Scores on the rows of the fit, as the public code has them."""
    aligned = fitted.aligned(x)
    score = rep.alignment_score(aligned, y - rep.like(fitted.target_mean, y))
    # The public code fits on centred states but takes the cosine of uncentred ones.
    turned = aligned + rep.like(fitted.source_mean @ fitted.rotation, x)
    raw = numpy(torch.nn.functional.cosine_similarity(turned, y, dim=1).double())
    r2 = 1 - score.residual_variance
    error, total = score.squared_error, score.squared_total
    # The fit is where its error is least, so that refitting moves it in second order only.
    effect = _by_text(work, ((1 - r2) * total - error) / total.sum())
    shape = rep.shape_influence(fitted, x, y)
    return {
        "r2": (r2, effect),
        "cosine": (float(raw.mean()), cal.mean_influence(raw, work.groups, work.texts)),
        "residual_variance": (score.residual_variance, -effect),
        **{name: (value, _by_text(work, shape[name])) for name, value in _axes(fitted.rotation).items()},
    }


def _permutation(work: Work, fitted: rep.Procrustes, x: Tensor, y: Tensor) -> tuple[float, NDArray[Any]]:
    """Energy of the map on its best axis permutation, which is held fixed: the diagonal's, Y's axes permuted."""
    value, axes = rep.permutation_energy(fitted.rotation)
    permuted = replace(fitted, rotation=fitted.rotation[:, axes], target_mean=fitted.target_mean[axes])
    columns = torch.from_numpy(axes).to(y.device)
    return value, _by_text(work, rep.shape_influence(permuted, x, y[:, columns])["diagonal_energy"])


def _held_out(work: Work, x: Tensor, y: Tensor, folds: tuple[NDArray[Any], ...]) -> Found:
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
    effect = _by_text(work, ((1 - r2) * total - error) / total.sum())
    plain = float(1 - unturned.sum() / total.sum())
    groups = torch.from_numpy(work.groups).to(x.device)
    r, r_effect = _correlation_influence(aligned, y, groups, work.texts)
    return {
        "r2": (r2, effect),
        # The counterfactual: what agreement there is without the rotation, and what it brings back.
        "unrotated_r2": (plain, _by_text(work, ((1 - plain) * total - unturned) / total.sum())),
        "rotated_correlation": (float(np.nanmean(r)), r_effect),
        "cosine": (float(cosine.mean()), cal.mean_influence(cosine, work.groups, work.texts)),
        "residual_variance": (float(np.mean(residual)), -effect),
        **{name: (float(np.mean([a[name] for a in axes])), _by_text(work, shapes[name])) for name in SHAPE},
    }


def _procrustes_null(
    work: Work, x: Tensor, y: Tensor, folds: tuple[NDArray[Any], ...], draws: int
) -> dict[str, float]:
    """Mean scores when the texts of each half are paired with other texts of that half."""
    rng = np.random.default_rng(work.options.seed)
    found = []
    for _ in range(draws):
        train, test = folds
        shuffled = train[cal.text_order(work.groups[train], rng)]
        fitted = rep.orthogonal_procrustes(x[train], y[shuffled], fast=True)
        other = test[cal.text_order(work.groups[test], rng)]
        score = fitted.score(x[test], y[other])
        found.append(
            {"r2": score.r2, "cosine": score.cosine, "residual_variance": score.residual_variance}
            | _axes(fitted.rotation)
        )
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}
