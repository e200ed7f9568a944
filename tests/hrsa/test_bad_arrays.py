"""Arrays that do not fit are refused with one sentence that says what and where."""

import numpy as np
import pytest
import torch

from realign import hrsa

GOOD = np.random.default_rng(0).normal(size=(20, 4))


def broken(row, column, value, dtype=np.float64):
    x = GOOD.astype(dtype)
    x[row, column] = value
    return x


METRICS = {
    "correlation": hrsa.dimension_correlation,
    "procrustes": hrsa.orthogonal_procrustes,
    "cka": hrsa.linear_cka,
    "knn": lambda x, y: hrsa.knn_overlap(x, y, k=3),
}
CASES = [
    ((GOOD, GOOD[:19]), "X has 20 rows and Y 19"),
    ((broken(7, 2, np.nan), GOOD), "X holds NaN at row 7, dimension 2"),
    ((GOOD, broken(3, 1, np.inf)), "Y holds an infinity at row 3, dimension 1"),
    ((broken(5, 0, np.inf, np.float16), GOOD), "half precision and may have overflowed"),
    ((torch.tensor(GOOD).to(torch.bfloat16).fill_(float("inf")), GOOD), "half precision"),
    (((GOOD * 9).astype(int), GOOD), "convert it to float32"),
    ((GOOD[None], GOOD), "must have shape"),
    ((GOOD[:1], GOOD[:1]), "at least"),
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("pair", "message"), CASES)
def test_every_metric_refuses(metric, pair, message):
    with pytest.raises(ValueError, match=message):
        METRICS[metric](*pair)


def test_no_variance_anywhere_is_refused():
    flat = np.ones((20, 4))
    for metric in ("correlation", "procrustes", "cka"):
        with pytest.raises(ValueError, match=r"constant|not vary"):
            METRICS[metric](flat, GOOD)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hrsa.knn_overlap(GOOD, GOOD, k=20), "k=20 needs more neighbours than the 19"),
        (lambda: hrsa.knn_overlap(GOOD, GOOD, k=15, groups=[0] * 10 + [1] * 10), "than the 10"),
        (lambda: hrsa.knn_overlap(GOOD, GOOD, k=()), "k is empty"),
        (lambda: hrsa.knn_overlap(GOOD, GOOD, k=0), "at least 1"),
        (lambda: hrsa.knn_overlap(GOOD, GOOD, k=3, metric="dot"), "metric 'dot' is unknown"),
        (lambda: hrsa.knn_overlap(GOOD, GOOD, k=3, groups=[1, 2]), "one entry for each of the 20 rows"),
        (lambda: hrsa.nearest(np.vstack([GOOD, np.zeros(4)]), 3), "row 20 of X is zero"),
        (lambda: hrsa.linear_cka(GOOD[:3], GOOD[:3], estimator="debiased"), "at least 4 rows"),
        (lambda: hrsa.linear_cka(GOOD, GOOD, estimator="unbiased"), "estimator 'unbiased' is unknown"),
        (lambda: hrsa.cka_grid([GOOD], [GOOD], method="fast"), "method 'fast' is unknown"),
        (lambda: hrsa.cka_grid([GOOD], [GOOD], method="minibatch", batch=21), "between 4 and the 20"),
        (lambda: hrsa.cka_grid(GOOD, [GOOD]), "shape"),
        (lambda: hrsa.cka_grid([], [GOOD]), "no layers"),
        (lambda: hrsa.cka_grid([GOOD, GOOD[:9]], [GOOD]), r"xs\[1\] has 9 rows"),
        (lambda: hrsa.dimension_correlation(GOOD, GOOD[:, :3]), "same axes"),
        (lambda: hrsa.inverse_row_entropy(GOOD), "square"),
        (lambda: hrsa.inverse_row_entropy(np.diag([1.0, 0, 1])), "row 1 of the rotation is zero"),
    ],
)
def test_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
