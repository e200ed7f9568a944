"""The registry: every metric of HRSA, declared once.

A report, its summary, tables, figures, the demonstration and the invariance tests iterate :data:`METRICS`.
A new metric is one entry here, its compute function (in the module of what it measures) and its test; one compute
function may return the rows of several metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from realign.hrsa.correlation import correlation
from realign.hrsa.geometry import cka
from realign.hrsa.intervals import Scale
from realign.hrsa.knn import knn
from realign.hrsa.pair import Pair
from realign.hrsa.probes import probe
from realign.hrsa.procrustes import procrustes
from realign.hrsa.rows import Rows, metric_id, split_id

Level = Literal["representation", "global geometry", "local geometry", "function"]
Invariance = Literal["orthogonal", "axis permutation", "axis scaling", "isotropic scaling", "translation"]
ESTIMATORS = ("reference", "paper")

BOTH, REFERENCE, PAPER = ESTIMATORS, ("reference",), ("paper",)
VARIANTS = {
    "": "all tokens",
    "no_sinks": "without sinks",
    "standardised": "standardised",
    "centred": "centred",
    "text": "text means",
}
"""Variants in words."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: what the rows of the table carry.
        level: the level of the hierarchy that it belongs to.
        title: its name in words, for axes and tables.
        compute: returns its rows; called once for all metrics that share it.
        estimators: the estimators that it has: reference (what we stand behind), paper (as its public code).
        invariances: changes of either model that leave its reference value as it is.
        variant: the variant that the reference reading shows, '' for the plain one.
        headline: how its level's headline number is made of its layers; '' where another metric gives that.
        scale: the range of its values, and how intervals are made in it (see intervals).
        paper_scale: that of the paper's estimator, where it is another.
        estimate: what exactly the reference value is, where the title does not say it.
        sees: what it sees, for the methods table and the demonstration; '' for companions of another metric.
        misses: what it does not see.
    """

    name: str
    level: Level
    title: str
    compute: Callable[[Pair], Rows]
    estimators: tuple[str, ...] = BOTH
    invariances: frozenset[Invariance] = frozenset()
    variant: str = ""
    headline: Literal["mean", "last", ""] = ""
    scale: Scale = "any"
    paper_scale: Scale | None = None
    estimate: str = ""
    sees: str = ""
    misses: str = ""

    def scale_of(self, estimator: str) -> Scale:
        """Return the scale of an estimator's values."""
        return self.paper_scale or self.scale if estimator == "paper" else self.scale


AFFINE: frozenset[Invariance] = frozenset(("isotropic scaling", "translation"))
RIGID: frozenset[Invariance] = frozenset(("orthogonal", "axis permutation", "translation"))

_ALL = (
    Metric("correlation", "representation", "dimension-wise correlation (r)", correlation, REFERENCE,
           AFFINE | {"axis scaling"}, headline="last", scale="correlation",
           sees="any change of the coordinate axes", misses="whether the space itself is the same"),
    Metric("r2", "representation", "Procrustes R²", procrustes, BOTH, RIGID, scale="at most one",
           estimate="Procrustes R², held out",
           sees="whether one space is a rotation of the other", misses="rotations, and permutations of axes"),
    Metric("unrotated_r2", "representation", "R² without rotation", procrustes, REFERENCE,
           frozenset(("translation",)), scale="at most one"),
    Metric("rotated_correlation", "representation", "correlation after Procrustes (r)", procrustes,
           REFERENCE, frozenset(("axis permutation", "translation")), scale="correlation"),
    Metric("cosine", "representation", "cosine after Procrustes", procrustes, BOTH, RIGID | AFFINE,
           scale="correlation"),
    Metric("residual_variance", "representation", "residual variance after Procrustes", procrustes,
           BOTH, RIGID, scale="positive"),
    Metric("inverse_row_entropy", "representation", "inverse row entropy of O", procrustes, BOTH,
           AFFINE | {"axis permutation"}, scale="share", sees="how mixed the axes are",
           misses="permutations of axes, and changes that no rotation makes"),
    Metric("diagonal_energy", "representation", "share of O on its diagonal", procrustes, BOTH, AFFINE,
           scale="share"),
    Metric("permutation_energy", "representation", "share of O on its best permutation", procrustes,
           PAPER, AFFINE | {"axis permutation"}, scale="share"),
    Metric("cka", "global geometry", "linear CKA", cka, BOTH, RIGID | AFFINE,
           variant="no_sinks", headline="mean", scale="correlation", paper_scale="similarity",
           estimate="debiased CKA",
           sees="the large-scale arrangement of points",
           misses="rotations, shifts, scale, and small neighbourhoods"),
    Metric("knn", "local geometry", "k-NN overlap", knn, BOTH,
           frozenset(("orthogonal", "axis permutation", "isotropic scaling")),
           headline="mean", scale="at most one", paper_scale="share", estimate="corrected k-NN overlap",
           sees="who is next to whom", misses="distances, and everything far away"),
    Metric("probe_accuracy", "function", "probe accuracy", probe, BOTH,
           frozenset(("isotropic scaling",)), scale="share",
           sees="whether the same linear readout still works", misses="directions that no label uses"),
    Metric("probe_transfer", "function", "probe transfer ratio", probe, REFERENCE,
           frozenset(("isotropic scaling",)), headline="mean"),
)  # fmt: skip
METRICS: dict[str, Metric] = {each.name: each for each in _ALL}
"""All metrics by name, in order of display."""


def metric(name: str) -> Metric:
    """Return a metric of the registry.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric '{name}'; choose from {', '.join(METRICS)}")
    return METRICS[name]


def middle(ks: Iterable[int]) -> int:
    """Return the middle one of the values of k."""
    ordered = sorted(set(ks))
    return ordered[len(ordered) // 2]


def id_title(name: str, at: str = "") -> str:
    """Write an id in words: 'debiased CKA, without sinks', 'corrected k-NN overlap, k = 10'.

    Args:
        name: an id, as in influences and summaries.
        at: 'mean' (over layers) or 'last' (layer) to say that too; then the metric goes by its title.
    """
    base, variant, k = split_id(name)
    entry = metric(base)
    words = [entry.title if at else entry.estimate or entry.title]
    words += [f"k = {k}"] if k else []
    words += [VARIANTS.get(variant, variant)] if variant or (entry.variant and not at) else []
    if at and base != "probe_transfer":  # not a number of a layer
        words.append("mean over layers" if at == "mean" else "last layer")
    return ", ".join(words)


def headlines(summary: pd.DataFrame) -> list[tuple[str, str]]:
    """Choose one number a level: (id, at) as they stand in a summary, of all tokens and the middle k.

    Of probes, one for each text set.

    Args:
        summary: of :meth:`Report.summary`, or frames of several joined.
    """
    known = list(dict.fromkeys(zip(summary["metric"], summary["at"], strict=True)))
    ids = [split_id(name) for name, _ in known]
    chosen: list[tuple[str, str]] = []
    for entry in METRICS.values():
        held = {variant for base, variant, _ in ids if base == entry.name}
        for variant in [""] if "" in held or entry.level != "function" else sorted(held):
            ks = [k for base, other, k in ids if (base, other) == (entry.name, variant)]
            wanted = (metric_id(entry.name, variant, middle(ks)), entry.headline) if ks else None
            if wanted in known:
                chosen.append(wanted)
    return chosen
