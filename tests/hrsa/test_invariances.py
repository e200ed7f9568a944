"""One table declares what each metric does not see; every entry is checked, and so is every absence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from realign import hrsa


def held_out_cosine(x, y):
    return hrsa.orthogonal_procrustes(x[:60], y[:60]).score(x[60:], y[60:]).cosine


def held_out_r2(x, y):
    return hrsa.orthogonal_procrustes(x[:60], y[:60]).score(x[60:], y[60:]).r2


def row_entropy(x, y):
    return hrsa.inverse_row_entropy(hrsa.orthogonal_procrustes(x, y).rotation).mean()


METRICS = {
    "dimension_correlation": lambda x, y: np.nanmean(hrsa.dimension_correlation(x, y)),
    "procrustes cosine": held_out_cosine,
    "procrustes r2": held_out_r2,
    "inverse_row_entropy": row_entropy,
    "cka biased": lambda x, y: hrsa.linear_cka(x, y, estimator="biased"),
    "cka debiased": lambda x, y: hrsa.linear_cka(x, y, estimator="debiased"),
    "knn cosine": lambda x, y: hrsa.knn_overlap(x, y, k=10).corrected[0],
    "knn euclidean": lambda x, y: hrsa.knn_overlap(x, y, k=10, metric="euclidean").corrected[0],
}
#                        rotation of X, scale of X, shift of X, axes of X permuted, rows of both permuted
INVARIANCES = {
    "dimension_correlation": (False, True, True, False, True),
    "procrustes cosine": (True, True, True, True, False),  # the split goes by row
    "procrustes r2": (True, False, True, True, False),
    "inverse_row_entropy": (False, True, True, True, True),
    "cka biased": (True, True, True, True, True),
    "cka debiased": (True, True, True, True, True),
    "knn cosine": (True, True, False, True, True),
    "knn euclidean": (True, True, True, True, True),
}
CHANGES = ("rotation", "scale", "shift", "axes", "rows")


def change(name, x, y, rng):
    if name == "rotation":
        return x @ ortho_group.rvs(x.shape[1], random_state=rng), y
    if name == "scale":
        return x * rng.uniform(3, 9), y
    if name == "shift":
        return x + rng.normal(size=x.shape[1]) * 4, y
    if name == "axes":
        return x[:, rng.permutation(x.shape[1])], y
    order = rng.permutation(len(x))
    return x[order], y[order]


def data(rng):
    x = rng.normal(size=(120, 6)) * np.linspace(0.6, 2, 6) + 0.5
    return x, x + 0.6 * rng.normal(size=x.shape)


CASES = [(m, c, INVARIANCES[m][i]) for m in METRICS for i, c in enumerate(CHANGES)]


@pytest.mark.parametrize(("metric", "name"), [(m, c) for m, c, invariant in CASES if invariant])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_declared_invariance_holds(metric, name, seed):
    rng = np.random.default_rng(seed)
    x, y = data(rng)
    assert METRICS[metric](*change(name, x, y, rng)) == pytest.approx(METRICS[metric](x, y), abs=1e-8)


@pytest.mark.parametrize(("metric", "name"), [(m, c) for m, c, invariant in CASES if not invariant])
def test_what_is_not_declared_is_seen(metric, name):
    rng = np.random.default_rng(0)
    x, y = data(rng)
    assert abs(METRICS[metric](*change(name, x, y, rng)) - METRICS[metric](x, y)) > 1e-6


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_gives_its_maximum_for_a_model_with_itself(metric):
    x, _ = data(np.random.default_rng(1))
    assert METRICS[metric](x, x) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_float32_agrees_with_float64(metric):
    x, y = (v.astype(np.float32) for v in data(np.random.default_rng(2)))
    exact = METRICS[metric](x.astype(np.float64), y.astype(np.float64))
    assert METRICS[metric](x, y) == pytest.approx(exact, rel=2e-6)
