"""Global geometry of a report: CKA in both estimators, its null, and what could fake it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import calibration as cal
from realign.hrsa import geometry as geo
from realign.hrsa.arrays import center, numpy
from realign.hrsa.grids import cka_grids, hsic
from realign.hrsa.report import grid_frame
from realign.hrsa.work import Work


def energy(work: Work) -> None:
    """Frame `energy`: what a single dimension or 1% of the rows hold."""
    parts, sinks = [], np.zeros(len(work.rows), dtype=bool)
    for layer in work.every:
        for model, x in zip("ab", work.pair(layer), strict=True):
            found = geo.energy(x)
            sinks |= found.norm_ratio > geo.SINK_RATIO
            row: dict[str, Any] = {"layer": layer, "model": model}
            for name, value, influence in zip(
                ("top_dimension_share", "top_rows_share"),
                (found.top_dimension, found.top_rows),
                found.influence,
                strict=True,
            ):
                by_text = np.bincount(work.groups, influence, minlength=work.texts)
                low, high = work.interval(value, by_text)
                row |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
            parts.append(row)
    work.report.frames["energy"] = pd.DataFrame(parts)
    work.report.meta["sinks"] = int(sinks.sum())


def _sinks(work: Work) -> NDArray[np.bool_]:
    sinks = np.zeros(len(work.rows), dtype=bool)
    for layer in work.every:
        for x in work.pair(layer):
            norm = torch.sqrt((x * x).sum(1, dtype=torch.float64))
            sinks |= numpy(norm > geo.SINK_RATIO * norm.median())
    return sinks


def cka(work: Work) -> None:
    """Frames `cka_diagonal` and (full detail) `cka` and `cka_null`."""
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
    influences = {key: np.zeros((count, work.texts)) for key in values}
    for i, layer in enumerate(work.every):
        x, y = work.pair(layer)
        for variant, (change, groups) in variants.items():
            if variant == "no_sinks" and len(kept) == len(work.rows):
                for estimator in ("paper", "reference"):
                    for kept_of in (values, influences):
                        kept_of[estimator, variant][i] = kept_of[estimator, "all"][i]
                continue
            found = geo.cka_with_influence(change(x), change(y))
            values["paper", variant][i] = found.biased
            values["reference", variant][i] = found.debiased
            for estimator, rows in (("paper", found.biased_influence), ("reference", found.influence)):
                influences[estimator, variant][i] = np.bincount(groups, rows, minlength=work.texts)
    diagonal = []
    for (estimator, variant), value in values.items():
        low, high = work.interval(value, influences[estimator, variant])
        high = np.minimum(high, np.maximum(1.0, value))  # CKA is at most 1
        where = {"estimator": estimator, "variant": variant}
        at = {"layer": work.every, "value": value, "low": low, "high": high}
        diagonal.append(pd.DataFrame({**where, **at}))
    if full:
        grids = cka_grids(*work.stacks(), parts=work.parts)
        cells = [
            grid_frame(*grids[form]).assign(estimator=estimator)
            for estimator, form in (("paper", "biased"), ("reference", "debiased"))
        ]
        columns = ["estimator", "layer_a", "layer_b", "value", "low", "high"]
        work.report.frames["cka"] = pd.concat(cells, ignore_index=True)[columns]
        work.report.frames["cka_null"] = _cka_null(work)
    work.report.frames["cka_diagonal"] = pd.concat(diagonal, ignore_index=True)
    work.keep("cka", work.every, influences["reference", "all"])
    work.keep("cka_no_sinks", work.every, influences["reference", "no_sinks"])


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

    def debiased(k: Tensor, l_: Tensor, dk: Tensor, dl: Tensor) -> Tensor:
        dot = (dk * dl).sum(1)
        off = 2 * torch.einsum("pl,pl->l", k, l_).double()
        return hsic(off + dot, dot, dk.sum(1) * dl.sum(1), n, "debiased")

    still = [p[upper[0], upper[1]] for p in pairs]
    scale = torch.sqrt(
        debiased(still[0], still[0], diagonals[0], diagonals[0])
        * debiased(still[1], still[1], diagonals[1], diagonals[1])
    )
    moved = pairs[1].view(n * n, -1)

    def statistic(rows: NDArray[Any]) -> NDArray[Any]:
        at = torch.from_numpy(rows).to(work.device)
        other = moved.index_select(0, at[upper[0]] * n + at[upper[1]])
        return numpy(debiased(still[0], other, diagonals[0], diagonals[1][:, at]) / scale)

    found = cal.permutation_test(statistic, n, permutations=permutations, seed=work.options.seed)
    frame = pd.DataFrame(
        {"layer": range(work.layers), **{c: found[c] for c in ("value", "null_mean", "null_high", "p")}}
    )
    frame.loc[len(frame)] = [-1, found["max_value"][0], np.nan, found["max_null_high"][0], found["max_p"][0]]
    return frame.astype({"layer": int})
