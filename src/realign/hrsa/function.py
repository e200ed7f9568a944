"""Function level: does a linear classifier trained on one model's texts work on the other's?

Every text is tested once, by cross-validation: a fold's probe, its scaling and its regularisation see the
source's training texts only. The probe of the paper's public code (one 0.8/0.1/0.1 split, C = 1, the
source's scaling) is :func:`paper_probe`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from realign.hrsa.arrays import Array, as_groups, as_pair, numpy, plain, times_power, unit_exponent
from realign.hrsa.checks import flag, one_of, positive_numbers, whole_number
from realign.hrsa.rotation import orthogonal_procrustes

Task = Literal["classification", "regression"]
FOLDS, STRENGTHS = 5, (0.001, 0.01, 0.1)


@dataclass(frozen=True)
class ProbeResult:
    """Predictions of probes trained on the source, on the same held-out texts of both models.

    Attributes:
        task: 'classification' (scores are accuracies) or 'regression' (scores are R^2).
        tested: (m,) index of the tested texts.
        truth: (m,) their labels (class number or value).
        predictions: by name: 'own' the source's own texts; 'source', 'target', 'procrustes' the
            target's texts, scaled with the source's or the target's training texts, or first rotated
            onto the source; 'ceiling' a probe trained on the target; 'shuffled' the source's own
            texts after training on shuffled labels. Each (m,).
        regularisation: chosen C (or alpha) of each fold.
    """

    task: Task
    tested: NDArray[np.int64]
    truth: np.ndarray
    predictions: dict[str, np.ndarray]
    regularisation: list[float] = field(default_factory=list)

    def correct(self, name: str) -> NDArray[np.float64]:
        """(m,) 1 where the prediction is right, 0 where not (regression: minus squared error)."""
        predicted = self.predictions[name]
        if self.task == "regression":
            return -((predicted - self.truth) ** 2)
        return (predicted == self.truth).astype(np.float64)

    def score(self, name: str) -> float:
        """Accuracy in [0, 1], or R^2 (at most 1)."""
        if self.task == "regression":
            return float(1 + self.correct(name).mean() / self.truth.var())
        return float(self.correct(name).mean())

    def f1(self, name: str, average: Literal["macro", "weighted"] = "macro") -> float:
        """F1 in [0, 1], averaged over classes equally or by how many texts they have; NaN for regression."""
        return float(self.f1_resampled(name, np.ones((1, len(self.truth))), average)[0])

    def f1_resampled(
        self, name: str, weights: np.ndarray, average: Literal["macro", "weighted"] = "macro"
    ) -> NDArray[np.float64]:
        """F1 (r,) of each row of ``weights`` (r, m), which say how often every tested text counts."""
        if self.task == "regression":
            return np.full(len(weights), np.nan)
        predicted = self.predictions[name]
        classes = np.arange(int(max(self.truth.max(), predicted.max())) + 1)
        true, named = self.truth[:, None] == classes, predicted[:, None] == classes
        support = weights @ true
        total = support + weights @ named
        with np.errstate(invalid="ignore"):
            score = np.where(total > 0, 2 * (weights @ (true & named)) / total, 0.0)
        # As scikit-learn: a class counts where it is true or predicted.
        shares = (total > 0).astype(np.float64) if average == "macro" else support
        return (score * shares).sum(axis=1) / shares.sum(axis=1)

    @property
    def majority(self) -> float:
        """Accuracy of always naming the most frequent class (regression: 0, the R^2 of the mean)."""
        if self.task == "regression":
            return 0.0
        return float(np.bincount(self.truth).max() / len(self.truth))

    def transfer_ratio(self, name: str = "source") -> float:
        """How much of what the target allows survives transfer, above the majority floor.

        (score - majority) / (ceiling - majority): 1 means that a probe from the other model does as well
        as the target's own; NaN where the ceiling is not above the floor.
        """
        room = self.score("ceiling") - self.majority
        return (self.score(name) - self.majority) / room if room > 0 else float("nan")

    def transfer_influence(self, name: str = "source") -> NDArray[np.float64]:
        """Influence (m,) of each tested text on :meth:`transfer_ratio` (majority held fixed)."""
        m = len(self.truth)
        room = self.score("ceiling") - self.majority
        if room <= 0 or self.task == "regression":
            return np.full(m, np.nan)
        got, best = self.correct(name), self.correct("ceiling")
        return ((got - got.mean()) - self.transfer_ratio(name) * (best - best.mean())) / (room * m)


def cross_model_probe(
    source: Array,
    target: Array,
    labels: Sequence[object] | np.ndarray,
    *,
    groups: Sequence[object] | None = None,
    task: Task = "classification",
    folds: int = FOLDS,
    strengths: Sequence[float] = STRENGTHS,
    normalise: bool = True,
    controls: bool = True,
    seed: int = 0,
) -> ProbeResult:
    """Train linear probes on one model's text embeddings and test them on another's.

    Args:
        source: (n, d) embeddings that probes are trained on.
        target: (n, d) embeddings of the same texts, same axes.
        labels: (n,) classes, or numbers for regression.
        groups: (n,) texts of one group are never split between training and test.
        task: 'classification' (multinomial logistic regression) or 'regression' (ridge).
        folds: of the cross-validation.
        strengths: candidates for C (1/alpha for ridge); the best on an inner split of the source's
            training texts is used. One candidate: no choice is made.
        normalise: scale each embedding to length 1 first.
        controls: also fit the rotated target, the ceiling and the shuffled-label floor.
        seed: of splits and shuffles.

    Raises:
        ValueError: one class only, a class with fewer texts than folds, sizes that differ.
    """
    one_of(task, "task", get_args(Task))
    folds, seed = whole_number(folds, "folds", 2), whole_number(seed, "seed", 0)
    strengths, controls = positive_numbers(strengths, "strengths"), flag(controls, "controls")
    left, right = _embeddings(source, target, 4)
    if flag(normalise, "normalise"):
        left, right = _unit(left, "source"), _unit(right, "target")
    truth = _labels(labels, len(left), task, folds)
    numbers = None if groups is None else as_groups(groups, len(left))
    names = ["own", "source", "target", *(["procrustes", "ceiling", "shuffled"] if controls else [])]
    predictions = {name: np.empty(len(truth), dtype=truth.dtype) for name in names}
    chosen = []
    rng = np.random.default_rng(seed)
    for train, test in _splits(truth, numbers, task, folds, seed):
        inner = None if numbers is None else numbers[train]
        strength = _choose(left[train], truth[train], inner, task, strengths, seed)
        chosen.append(strength)
        fit = _fit(left[train], truth[train], task, strength)
        predictions["own"][test] = fit.predict(left[test])
        predictions["source"][test] = fit.predict(right[test])
        own_scale = StandardScaler().fit(right[train])
        predictions["target"][test] = fit[1:].predict(own_scale.transform(right[test]))
        if controls:
            turn = orthogonal_procrustes(right[train], left[train])
            predictions["procrustes"][test] = fit.predict(turn.transform(right[test]))
            best = _choose(right[train], truth[train], inner, task, strengths, seed)
            ceiling = _fit(right[train], truth[train], task, best)
            predictions["ceiling"][test] = ceiling.predict(right[test])
            shuffled = _fit(left[train], rng.permutation(truth[train]), task, strength)
            predictions["shuffled"][test] = shuffled.predict(left[test])
    return ProbeResult(task, np.arange(len(truth)), truth, predictions, chosen)


def paper_probe(
    source: Array, target: Array, labels: Sequence[object] | np.ndarray, *, seed: int = 0
) -> ProbeResult:
    """The public code's classifier: one stratified 0.8/0.1/0.1 split, C = 1, source scaling.

    The validation tenth is set aside unused, as there. Predictions: 'own' and 'source'.
    """
    left, right = _embeddings(source, target, 10)
    left, right = _unit(left, "source"), _unit(right, "target")
    truth = _labels(labels, len(left), "classification", 2)
    folds = [test for _, test in _splits(truth, None, "classification", 10, seed, strict=False)]
    test, train = folds[0], np.sort(np.concatenate(folds[2:]))
    fit = _fit(left[train], truth[train], "classification", 1.0)
    predictions = {"own": fit.predict(left[test]), "source": fit.predict(right[test])}
    return ProbeResult("classification", test, truth[test], predictions, [1.0])


def _embeddings(source: Array, target: Array, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sides in float64, at about unit scale together: one is scaled by the other's spread."""
    left, right = as_pair(source, target, rows=rows, same_width=True)
    exponent = unit_exponent(left, right)
    first, second = (numpy(times_power(v.double(), exponent)) for v in (left, right))
    return first, second


def _unit(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    if (norm == 0).any():
        raise ValueError(f"row {int(np.argmin(norm))} of the {name} embeddings is zero")
    return x / norm


def _labels(labels: Sequence[object] | np.ndarray, n: int, task: str, folds: int) -> np.ndarray:
    values = plain(labels, "labels")
    if values.shape != (n,):
        raise ValueError(f"labels has shape {values.shape}; one label for each of the {n} texts is needed")
    if task == "regression":
        if values.dtype.kind not in "iuf":
            raise ValueError(f"labels must be numbers for a regression, got {values.dtype}")
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all() or numbers.std() == 0:
            raise ValueError("labels must be finite numbers that are not all equal")
        return numbers
    missing = pd.isna(values)
    if missing.any():
        raise ValueError(f"label {int(np.argmax(missing))} is missing; labels needs one for each text")
    try:
        classes, coded, counts = np.unique(values, return_inverse=True, return_counts=True)
    except TypeError:
        raise ValueError("labels mix kinds that have no order; make all of them strings or numbers") from None
    if len(classes) < 2:
        raise ValueError(f"labels hold one class only ({classes[0]!r}); a probe needs at least two")
    if counts.min() < folds:
        rare = classes[counts.argmin()]
        raise ValueError(f"class {rare!r} has {counts.min()} texts; at least {folds} (one a fold) are needed")
    return coded


def _splits(
    truth: np.ndarray, groups: np.ndarray | None, task: str, folds: int, seed: int, strict: bool = True
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    rows = np.zeros(len(truth))
    with warnings.catch_warnings():
        if not strict:  # fewer members of a class than folds
            warnings.simplefilter("ignore", UserWarning)
        if task == "regression":
            kind = KFold(folds, shuffle=True, random_state=seed) if groups is None else GroupKFold(folds)
        elif groups is None:
            kind = StratifiedKFold(folds, shuffle=True, random_state=seed)
        else:
            kind = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        return list(kind.split(rows, truth, groups))


def _fit(x: np.ndarray, y: np.ndarray, task: str, strength: float) -> Pipeline:
    regression = task == "regression"
    model = Ridge(alpha=1 / strength) if regression else LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # A penalised linear model is the same in any orthogonal basis, and needs no direction without texts: with
        # fewer texts than dimensions, the principal axes of the texts give it as many unknowns as texts.
        return make_pipeline(StandardScaler(), PCA(svd_solver="full"), model).fit(x, y)


def _choose(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, task: str, strengths: Sequence[float], seed: int
) -> float:
    """Return the strength that does best on an inner split, the smallest of those that tie."""
    if len(strengths) == 1:
        return strengths[0]
    train, held = _splits(y, groups, task, 4, seed, strict=False)[0]
    return max(sorted(strengths), key=lambda one: _fit(x[train], y[train], task, one).score(x[held], y[held]))
