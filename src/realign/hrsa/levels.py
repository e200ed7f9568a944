"""What each metric adds to a report: frames, and influences of texts for intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import calibration as cal
from realign.hrsa import geometry as geo
from realign.hrsa import representation as rep
from realign.hrsa.arrays import as_groups, center, group_sums, numpy
from realign.hrsa.function import ProbeResult, cross_model_probe, paper_probe
from realign.hrsa.neighbours import KNNOverlap, knn_overlap, overlaps
from realign.hrsa.report import shrink_rotation
from realign.hrsa.work import Probe, Work


def energy(work: Work) -> None:
    """Frame `energy`: what a single dimension or 1% of the rows hold."""
    records, sinks = [], np.zeros(len(work.rows), dtype=bool)
    for layer in work.every:
        for model, x in zip("ab", work.pair(layer), strict=True):
            found = geo.energy(x)
            sinks |= found.norm_ratio > geo.SINK_RATIO
            records.append((layer, model, found.top_dimension, found.top_rows))
    columns = ["layer", "model", "top_dimension_share", "top_rows_share"]
    work.report.frames["energy"] = pd.DataFrame(records, columns=columns)
    work.report.meta["sinks"] = int(sinks.sum())


def _sinks(work: Work) -> NDArray[np.bool_]:
    sinks = np.zeros(len(work.rows), dtype=bool)
    for layer in work.every:
        for x in work.pair(layer):
            norm = torch.sqrt((x * x).sum(1, dtype=torch.float64))
            sinks |= numpy(norm > geo.SINK_RATIO * norm.median())
    return sinks


def _grid_frame(values: NDArray[Any]) -> pd.DataFrame:
    a, b = np.indices(values.shape)
    return pd.DataFrame({"layer_a": a.ravel(), "layer_b": b.ravel(), "value": values.ravel()})


def correlation(work: Work) -> None:
    """Frames `correlation` (full detail), `correlation_diagonal` and `correlation_histogram`."""
    frames = work.report.frames
    if work.detail == "full":
        frames["correlation"] = _grid_frame(rep.correlation_grid(*work.stacks()))
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


def cka(work: Work) -> None:
    """Frames `cka`, `cka_diagonal` and (full detail) `cka_null`."""
    full = work.detail == "full"
    sinks = _sinks(work)
    work.report.meta["sinks"] = int(sinks.sum())
    kept = np.flatnonzero(~sinks)
    variants: dict[str, tuple[Callable[[Tensor], Any], NDArray[Any]]] = {
        "all": (lambda x: x, work.groups),
        "no_sinks": (lambda x: x[kept], work.groups[kept]),
        "standardised": (geo.standardise, work.groups),
    }
    if not full:
        del variants["standardised"]
    count = len(work.every)
    values = {(e, v): np.empty(count) for e in ("paper", "reference") for v in variants}
    influences = {v: np.zeros((count, work.texts)) for v in variants}
    for i, layer in enumerate(work.every):
        x, y = work.pair(layer)
        for variant, (change, groups) in variants.items():
            if variant == "no_sinks" and len(kept) == len(work.rows):
                for estimator in ("paper", "reference"):
                    values[estimator, variant][i] = values[estimator, "all"][i]
                influences[variant][i] = influences["all"][i]
                continue
            found = geo.cka_with_influence(change(x), change(y))
            values["paper", variant][i] = found.biased
            values["reference", variant][i] = found.debiased
            influences[variant][i] = np.bincount(groups, found.influence, minlength=work.texts)
    diagonal, grid = [], []
    for (estimator, variant), value in values.items():
        low = high = np.full(count, np.nan)
        if estimator == "reference":
            low, high = work.interval(value, influences[variant])
            high = np.minimum(high, np.maximum(1.0, value))  # CKA is at most 1
        where = {"estimator": estimator, "variant": variant}
        at = {"layer": work.every, "value": value, "low": low, "high": high}
        diagonal.append(pd.DataFrame({**where, **at}))
        if variant != "all" or not full:
            grid.append(pd.DataFrame({**where, "layer_a": work.every, "layer_b": work.every, "value": value}))
    if full:
        grids = geo.cka_grids(*work.stacks())
        for estimator, name in (("paper", "biased"), ("reference", "debiased")):
            frame = _grid_frame(grids[name])
            frame.insert(0, "variant", "all")
            frame.insert(0, "estimator", estimator)
            grid.append(frame)
        work.report.frames["cka_null"] = _cka_null(work)
    work.report.frames["cka_diagonal"] = pd.concat(diagonal, ignore_index=True)
    work.report.frames["cka"] = pd.concat(grid, ignore_index=True)
    work.keep("cka", work.every, influences["all"])
    work.keep("cka_no_sinks", work.every, influences["no_sinks"])


def _cka_null(work: Work, permutations: int = 100) -> pd.DataFrame:
    """Debiased CKA of text means against re-paired texts; -1 is the maximum over layers."""
    order = np.argsort(work.a.text_keys, kind="stable")
    n = len(order)
    upper = torch.triu_indices(n, n, 1, device=work.device)
    pairs, diagonals = [], []
    for side in (work.a, work.b):
        x = [center(torch.from_numpy(p[order]).to(work.device)) for p in side.pooled]
        # (n, n, layers): a permutation then moves whole rows of layers.
        pairs.append(torch.stack([v @ v.T for v in x], dim=2))
        diagonals.append(torch.stack([(v * v).sum(1, dtype=torch.float64) for v in x]))

    def hsic(k: Tensor, l_: Tensor, dk: Tensor, dl: Tensor) -> Tensor:
        dot = (dk * dl).sum(1)
        off = 2 * torch.einsum("pl,pl->l", k, l_).double()
        return geo.hsic(off + dot, dot, dk.sum(1) * dl.sum(1), n, "debiased")

    still = [p[upper[0], upper[1]] for p in pairs]
    scale = torch.sqrt(
        hsic(still[0], still[0], diagonals[0], diagonals[0])
        * hsic(still[1], still[1], diagonals[1], diagonals[1])
    )
    moved = pairs[1].view(n * n, -1)

    def statistic(rows: NDArray[Any]) -> NDArray[Any]:
        at = torch.from_numpy(rows).to(work.device)
        other = moved.index_select(0, at[upper[0]] * n + at[upper[1]])
        return numpy(hsic(still[0], other, diagonals[0], diagonals[1][:, at]) / scale)

    found = cal.permutation_test(statistic, n, permutations=permutations, seed=work.options.seed)
    frame = pd.DataFrame(
        {"layer": range(work.layers), **{c: found[c] for c in ("value", "null_mean", "null_high", "p")}}
    )
    frame.loc[len(frame)] = [-1, found["max_value"][0], np.nan, found["max_null_high"][0], found["max_p"][0]]
    return frame.astype({"layer": int})


def _knn_rows(found: KNNOverlap, **where: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **where,
            "k": found.k,
            "jaccard": found.jaccard,
            "overlap": found.overlap,
            "chance": found.chance,
            "corrected": found.corrected,
        }
    )


def knn(work: Work, labels: Sequence[Any] | None) -> None:
    """Frames `knn`, `knn_labels` (with labels) and `knn_variants` (full detail)."""
    rows = work.sample(work.options.knn_tokens)
    groups = as_groups(work.all_groups[rows], len(rows))
    texts = int(groups.max()) + 1
    weights = (
        work.weights
        if texts == work.texts
        else cal.resample_weights(texts, work.options.resamples, work.options.seed)
    )
    candidates = len(rows) - int(np.bincount(groups).max())
    ks = tuple(k for k in work.options.k if k <= candidates)
    if not ks:
        raise ValueError(f"k={work.options.k}: {len(rows)} tokens leave only {candidates} candidates a token")
    frames, influences = [], np.empty((len(ks), len(work.picked), texts))
    for i, layer in enumerate(work.picked):
        x, y = work.pair(layer, rows)
        both = overlaps(x, y, ks, "cosine", [np.arange(len(rows)), groups])
        for estimator, found in zip(("paper", "reference"), both, strict=True):
            per_row = found.jaccard_rows if estimator == "paper" else found.corrected_rows
            influence = cal.mean_influence(per_row, groups, texts)
            frame = _knn_rows(found, estimator=estimator, layer=layer)
            frame["low"], frame["high"] = cal.interval(per_row.mean(1), influence, weights)
            frames.append(frame)
        influences[:, i] = influence
    work.report.frames["knn"] = pd.concat(frames, ignore_index=True).sort_values(
        ["estimator", "layer", "k"], ignore_index=True
    )
    for i, k in enumerate(ks):
        work.keep(f"knn@{k}", work.picked, influences[i])
    if labels is not None:
        given = np.asarray(labels)
        if given.shape != work.a.text_keys.shape:
            raise ValueError(
                f"labels has shape {given.shape}; one for each of the {len(work.a.text_keys)} texts"
            )
        of_row = given[work.a.text_ids[rows]]
        work.report.frames["knn_labels"] = pd.DataFrame(
            [
                (
                    layer,
                    label,
                    k,
                    both[1].corrected_rows[i][of_row == label].mean(),
                    int((of_row == label).sum()),
                )
                for label in np.unique(of_row)
                for i, k in enumerate(ks)
            ],
            columns=["layer", "label", "k", "corrected", "tokens"],
        )
    if work.detail == "full":
        work.report.frames["knn_variants"] = _knn_variants(work, rows, groups, ks)


def _knn_variants(work: Work, rows: NDArray[Any], groups: NDArray[Any], ks: tuple[int, ...]) -> pd.DataFrame:
    """Centred and standardised tokens at the first, middle and last layer; text means at every layer."""
    frames = []
    for layer in sorted({0, work.layers // 2, work.layers - 1}):
        x, y = work.pair(layer, rows)
        for variant, change in (("centred", center), ("standardised", geo.standardise)):
            found = knn_overlap(change(x), change(y), k=ks, groups=groups)
            frames.append(_knn_rows(found, variant=variant, layer=layer))
    texts = work.a.pooled.shape[1]
    small = tuple(k for k in ks if k < texts)
    for layer in range(work.layers if small else 0):
        found = knn_overlap(work.a.pooled[layer], work.b.pooled[layer], k=small)
        frames.append(_knn_rows(found, variant="text", layer=layer))
    return pd.concat(frames, ignore_index=True)


def procrustes(work: Work) -> None:
    """Frames `procrustes` and (full detail) `rotation_angles`; the last layer's rotation."""
    half = cal.halves(work.groups, work.options.seed)
    folds = (np.flatnonzero(half), np.flatnonzero(~half))
    records: list[dict[str, Any]] = []
    influences = np.empty((len(work.picked), work.texts))
    last = work.layers - 1
    for i, layer in enumerate(work.picked):
        x, y = work.pair(layer)
        whole = rep.orthogonal_procrustes(x, y, fast=True)
        score = whole.score(x, y)
        # The public code fits on centred states but takes the cosine of uncentred ones.
        turned = x @ torch.from_numpy(whole.rotation).to(x)
        raw = torch.nn.functional.cosine_similarity(turned, y, dim=1).mean(dtype=torch.float64)
        paper = {
            "r2": 1 - score.residual_variance,
            "cosine": float(raw),
            "residual_variance": score.residual_variance,
        }
        paper |= _axes(whole.rotation)
        records += [
            {"estimator": "paper", "layer": layer, "quantity": q, "value": v} for q, v in paper.items()
        ]
        held, influences[i], cosine_influence = _held_out(x, y, folds, work.groups, work.texts)
        null: dict[str, float] = {}
        if work.detail == "full" and (layer % 5 == 0 or layer == last):
            null = _procrustes_null(work, x, y, folds, draws=10 if layer == last else 1)
        spans: dict[str, tuple[Any, Any]] = {
            "r2": work.interval(held["r2"], influences[i]),
            "cosine": work.interval(held["cosine"], cosine_influence),
        }
        if layer == last and work.detail == "full":
            spans.update(_axes_intervals(work, x, y, held))
            work.report.frames["rotation_angles"] = pd.DataFrame(
                {"angle": rep.rotation_angles(whole.rotation)}
            )
            held["permutation_energy"] = rep.permutation_energy(whole.rotation)[0]
        for quantity, value in held.items():
            low, high = spans.get(quantity, (np.nan, np.nan))
            records.append(
                {
                    "estimator": "reference",
                    "layer": layer,
                    "quantity": quantity,
                    "value": value,
                    "low": float(low),
                    "high": float(high),
                    "null": null.get(quantity, np.nan),
                }
            )
        if layer == last:
            small, block = shrink_rotation(whole.rotation)
            work.report.rotation = small
            work.report.meta["rotation_block"] = block
    columns = ["estimator", "layer", "quantity", "value", "low", "high", "null"]
    work.report.frames["procrustes"] = pd.DataFrame(records, columns=columns)
    work.keep("procrustes_r2", work.picked, influences)


def _axes(rotation: NDArray[Any]) -> dict[str, float]:
    return {
        "inverse_row_entropy": float(rep.inverse_row_entropy(rotation).mean()),
        "diagonal_energy": rep.diagonal_energy(rotation),
    }


def _held_out(
    x: Tensor, y: Tensor, folds: tuple[NDArray[Any], ...], groups: NDArray[Any], texts: int
) -> tuple[dict[str, float], NDArray[Any], NDArray[Any]]:
    """Cross-fitted scores over both halves, and influences of texts on R^2 and cosine."""
    error, total, cosine = (np.empty(len(x)) for _ in range(3))
    axes, residual = [], []
    for train, test in (folds, folds[::-1]):
        fitted = rep.orthogonal_procrustes(x[train], y[train], fast=True)
        score = fitted.score(x[test], y[test])
        error[test], total[test], cosine[test] = score.squared_error, score.squared_total, score.row_cosine
        axes.append(_axes(fitted.rotation))
        residual.append(score.residual_variance)
    r2 = 1 - error.sum() / total.sum()
    held = {
        "r2": float(r2),
        "cosine": float(cosine.mean()),
        "residual_variance": float(np.mean(residual)),
        **{name: float(np.mean([a[name] for a in axes])) for name in axes[0]},
    }
    per_row = ((1 - r2) * total - error) / total.sum()
    r2_influence = np.bincount(groups, per_row, minlength=texts)
    return held, r2_influence, cal.mean_influence(cosine, groups, texts)


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


def _axes_intervals(
    work: Work, x: Tensor, y: Tensor, held: Mapping[str, float], parts: int = 10
) -> dict[str, tuple[float, float]]:
    """Normal 95% intervals of the rotation's shape from leaving out a tenth of the texts at a time."""
    if work.texts < 2 * parts:
        return {}
    part = np.random.default_rng(work.options.seed).permutation(work.texts)[work.groups] % parts
    left_out = []
    for p in range(parts):
        rows = np.flatnonzero(part != p)
        left_out.append(_axes(rep.orthogonal_procrustes(x[rows], y[rows], fast=True).rotation))
    spans = {}
    for name in left_out[0]:
        values = np.array([v[name] for v in left_out])
        error = 1.96 * np.sqrt((parts - 1) / parts * ((values - values.mean()) ** 2).sum())
        spans[name] = (held[name] - error, held[name] + error)
    return spans


def probe(work: Work, probes: Mapping[str, Probe]) -> None:
    """Frames `probe`, `probe_controls` and (full detail) `probe_paper`, both directions."""
    if not probes:
        return
    full = work.detail == "full"
    rows, controls, paper = [], [], []
    for text_set, data in probes.items():
        weights = cal.resample_weights(len(data.labels), work.options.resamples, work.options.seed)
        for here, there, source, target in (("a", "b", data.a, data.b), ("b", "a", data.b, data.a)):
            cheap: dict[str, Any] = {} if full else {"folds": 3, "strengths": (0.01,)}
            found = cross_model_probe(
                source, target, data.labels, groups=data.groups, seed=work.options.seed, **cheap
            )
            across = f"{here}->{there}"
            for name, direction, scaler in (
                ("own", f"{here}->{here}", "source"),
                ("source", across, "source"),
                ("target", across, "target"),
            ):
                rows.append(_probe_row(found, name, text_set, direction, scaler, weights))
            for name in ("procrustes", "shuffled"):
                low, high = _accuracy_interval(found, name, weights)
                controls.append((text_set, across, name, found.score(name), low, high))
            for name, control in (("source", "transfer_ratio"), ("procrustes", "transfer_ratio_procrustes")):
                ratio = found.transfer_ratio(name)
                ends = cal.interval(ratio, found.transfer_influence(name), weights)
                controls.append((text_set, across, control, ratio, float(ends[0]), float(ends[1])))
            if full:
                plain = paper_probe(source, target, data.labels, seed=work.options.seed)
                few = cal.resample_weights(len(plain.truth), work.options.resamples, work.options.seed)
                for name, direction in (("own", f"{here}->{here}"), ("source", across)):
                    paper.append(_probe_row(plain, name, text_set, direction, "source", few))
    frames = work.report.frames
    frames["probe"] = pd.DataFrame(rows)
    columns = ["text_set", "direction", "control", "value", "low", "high"]
    frames["probe_controls"] = pd.DataFrame(controls, columns=columns)
    if full:
        frames["probe_paper"] = pd.DataFrame(paper)


def _accuracy_interval(found: ProbeResult, name: str, weights: NDArray[Any]) -> tuple[float, float]:
    right = found.correct(name)
    low, high = cal.interval(right.mean(), (right - right.mean()) / len(right), weights)
    return float(low), float(high)


def _probe_row(
    found: ProbeResult, name: str, text_set: str, direction: str, scaler: str, weights: NDArray[Any]
) -> dict[str, Any]:
    low, high = _accuracy_interval(found, name, weights)
    return {
        "text_set": text_set,
        "direction": direction,
        "scaler": scaler,
        "accuracy": found.score(name),
        "macro_f1": found.macro_f1(name),
        "majority": found.majority,
        "low": low,
        "high": high,
    }
