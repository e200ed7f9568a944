"""Global geometry of a report: CKA in both estimators, its null, and what could fake it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from realign.hrsa import geometry as geo
from realign.hrsa import uncertainty as unc
from realign.hrsa.arrays import center, numpy
from realign.hrsa.grids import cka_grids, hsic
from realign.hrsa.pair import Pair
from realign.hrsa.rows import Rows

FORMS = {"paper": "biased", "reference": "debiased"}


def cka(pair: Pair) -> Rows:
    """CKA of all tokens, without sinks and (full detail) standardised; details `energy` and `cka_null`."""
    rows = Rows()
    sinks = _sinks(pair)
    rows.meta["sinks"] = int(sinks.sum())
    for (estimator, variant), (values, influences) in _diagonals(pair, np.flatnonzero(~sinks)).items():
        low, high = pair.interval(values, influences)
        kept = influences if estimator == "reference" and variant != "standardised" else None
        ends = low, np.minimum(high, np.maximum(1.0, values))  # CKA is at most 1
        rows.add("cka", estimator, pair.every, values, ends, variant=variant, influence=kept)
    if pair.detail == "full":
        grids = cka_grids(*pair.stacks(), parts=pair.parts)
        for estimator, form in FORMS.items():
            rows.add_grid("cka", estimator, *grids[form])
        rows.details["cka_null"] = _cka_null(pair)
        rows.details["energy"] = _energy(pair)
    return rows


def _sinks(pair: Pair) -> NDArray[np.bool_]:
    """Mark the rows (n,) that are sinks at any layer of either model."""
    sinks = np.zeros(len(pair.rows), dtype=bool)
    for layer in pair.every:
        for x in pair.layer(layer):
            norm = torch.sqrt((x * x).sum(1, dtype=torch.float64))
            sinks |= numpy(norm > geo.SINK_RATIO * norm.median())
    return sinks


def _diagonals(
    pair: Pair, kept: NDArray[np.int64]
) -> dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """CKA (L,) of matching layers and its influences (L, texts), by estimator and variant.

    Args:
        pair: the two models.
        kept: the rows that are no sinks.
    """
    variants: dict[str, tuple[Callable[[Tensor], Tensor], NDArray[np.int64]]] = {
        "": (lambda x: x, pair.groups),
        "no_sinks": (lambda x: x[kept], pair.groups[kept]),
    }
    if pair.detail == "full":
        variants["standardised"] = (geo.standardise, pair.groups)
    count = len(pair.every)
    curves = {(e, v): (np.empty(count), np.zeros((count, pair.texts))) for e in FORMS for v in variants}
    for i, layer in enumerate(pair.every):
        x, y = pair.layer(layer)
        for variant, (change, groups) in variants.items():
            if variant == "no_sinks" and len(kept) == len(pair.rows):
                for estimator in FORMS:
                    for mine, same in zip(curves[estimator, variant], curves[estimator, ""], strict=True):
                        mine[i] = same[i]
                continue
            result = geo.cka_with_influence(change(x), change(y))
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
    for layer in pair.every:
        for model, x in zip("ab", pair.layer(layer), strict=True):
            measured = geo.energy(x)
            record: dict[str, object] = {"layer": layer, "model": model}
            for name, value, per_row in zip(
                ("top_dimension_share", "top_rows_share"),
                (measured.top_dimension, measured.top_rows),
                measured.influence,
                strict=True,
            ):
                low, high = pair.interval(value, pair.by_text(per_row))
                record |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
            records.append(record)
    return pd.DataFrame(records)


def _cka_null(pair: Pair, permutations: int = 100) -> pd.DataFrame:
    """Debiased CKA of text means against re-paired texts; -1 is the maximum over layers."""
    order = np.argsort(pair.a.text_keys, kind="stable")
    n = len(order)
    upper = torch.triu_indices(n, n, 1, device=pair.device)
    pairs, diagonals = [], []
    for side in (pair.a, pair.b):
        x = [center(torch.from_numpy(p[order]).to(pair.device)) for p in side.pooled]
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

    def statistic(rows: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(rows).to(pair.device)
        other = moved.index_select(0, at[upper[0]] * n + at[upper[1]])
        return numpy(debiased(still[0], other, diagonals[0], diagonals[1][:, at]) / scale)

    test = unc.permutation_test(statistic, n, permutations=permutations, seed=pair.options.seed)
    frame = pd.DataFrame(
        {"layer": range(pair.layers), **{c: test[c] for c in ("value", "null_mean", "null_high", "p")}}
    )
    frame.loc[len(frame)] = [-1, test["max_value"][0], np.nan, test["max_null_high"][0], test["max_p"][0]]
    return frame.astype({"layer": int})
