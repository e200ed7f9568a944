"""No number depends on the unit of the states: each function at 1e-18 to 1e30 against its value at scale 1."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realign import hrsa
from realign.hrsa import arrays
from realign.hrsa.correlation import correlation_influence
from realign.hrsa.function import paper_probe
from realign.hrsa.geometry import sinks
from realign.hrsa.grids import cka_grids


def data(seed=0, rows=64, width=32):
    """Two matrices that share half of their columns."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, rows, width))
    y[:, : width // 2] = x[:, : width // 2]
    return x, y


def fitted(x, y):
    return hrsa.orthogonal_procrustes(x[:40], y[:40])


def scored(x, y):
    score = fitted(x, y).score(x[40:], y[40:])
    ratio = score.squared_error / score.squared_total
    return [score.r2, score.cosine, score.residual_variance, *ratio, *score.row_cosine]


def influences(x, y):
    result = hrsa.cka_with_influence(x, y)
    return [result.biased, result.debiased, *result.influence, *result.biased_influence]


def concentrated(x, y):
    result = hrsa.energy(x)
    return [result.top_dimension, result.top_rows, *result.influence.ravel()]


def grids(x, y):
    both = cka_grids([x, y], [y], parts=np.arange(len(x)) % 4)
    return np.concatenate([part.ravel() for pair in both.values() for part in pair])


def correlated(x, y):
    r, effect = correlation_influence(
        *(torch.from_numpy(v) for v in (x, y)), torch.arange(len(x)) // 2, len(x) // 2
    )
    return np.concatenate([r, effect])


def probed(call):
    def scores(x, y):
        labels = np.argsort(np.argsort(x[:, 0])) % 2
        result = call(x, y, labels)
        return np.concatenate([result.predictions[name] for name in sorted(result.predictions)])

    return scores


def placed(x, y):
    models = {f"m{i}": hrsa.Activations.from_pooled(v[None]) for i, v in enumerate((x, y, x[:, :24]))}
    plane = hrsa.models_map(models)
    return [*plane.distances["value"], *plane.distances["error"], plane.explained]


OWN = {  # each side may have its own unit
    "linear_cka biased": hrsa.linear_cka,
    "linear_cka debiased": lambda x, y: hrsa.linear_cka(x, y, estimator="debiased"),
    **{f"cka_grid {m}": lambda x, y, m=m: hrsa.cka_grid([x], [y], method=m, batch=32) for m in ("gram", "feature", "minibatch")},
    "cka_grid biased": lambda x, y: hrsa.cka_grid([x], [y], estimator="biased"),
    "cka_grids": grids,
    "cka_with_influence": influences,
    "energy": concentrated,
    "standardise": lambda x, y: hrsa.standardise(x).numpy(),
    "sinks": lambda x, y: sinks(torch.from_numpy(x * np.where(np.arange(len(x)) % 9, 1, 8)[:, None].astype(x.dtype))),
    "nearest cosine": lambda x, y: hrsa.nearest(x, 5),
    "nearest euclidean": lambda x, y: hrsa.nearest(x, 5, metric="euclidean"),
    "knn_overlap cosine": lambda x, y: hrsa.knn_overlap(x, y, k=(3, 5)).corrected,
    "knn_overlap euclidean": lambda x, y: hrsa.knn_overlap(x, y, k=5, metric="euclidean").jaccard,
    "dimension_correlation": hrsa.dimension_correlation,
    "correlation_grid": lambda x, y: hrsa.correlation_grid([x, y], [y]),
    "correlation_influence": correlated,
    "orthogonal_procrustes": lambda x, y: fitted(x, y).rotation,
    "rotation_angles": lambda x, y: hrsa.rotation_angles(x[:32]),
    "diagonal_energy": lambda x, y: hrsa.diagonal_energy(x[:32]),
    "permutation_energy": lambda x, y: hrsa.permutation_energy(x[:32])[0],
    "inverse_row_entropy": lambda x, y: hrsa.inverse_row_entropy(x[:32]),
    "cross_model_probe": probed(lambda x, y, labels: hrsa.cross_model_probe(x, y, labels, folds=2, strengths=[0.1])),
    "paper_probe": probed(paper_probe),
    "models_map": placed,
}  # fmt: skip
TOGETHER = {  # numbers that compare the sizes of both sides
    "Procrustes.score": scored,
    "probe without normalisation": probed(
        lambda x, y, labels: hrsa.cross_model_probe(
            x, y, labels, folds=2, strengths=[0.1], normalise=False, controls=False
        )
    ),
}
SCALES = (1e-30, 1e-18, 1e-12, 1e-6, 1e6, 1e9, 1e12, 1e18, 1e19, 1e30)


def agrees(got, expected, exact):
    tolerance = 1e-6 if exact else 2e-4
    np.testing.assert_allclose(
        np.asarray(got, float), np.asarray(expected, float), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OWN | TOGETHER)
def test_a_scale_changes_no_number(name, dtype):
    call = (OWN | TOGETHER)[name]
    x, y = (v.astype(dtype) for v in data())
    expected = call(x, y)
    assert np.isfinite(np.asarray(expected, float)).all()
    exact = dtype == np.float64 and name != "models_map"  # Activations are float32
    for scale in SCALES:
        other = scale if name in TOGETHER else 1 / scale
        agrees(call((x * dtype(scale)), (y * dtype(other))), expected, exact)


@pytest.mark.parametrize(
    "name", [n for n in OWN if n not in ("models_map", "cross_model_probe", "paper_probe")]
)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), powers=st.tuples(st.integers(-90, 90), st.integers(-90, 90)))
def test_powers_of_two_change_no_digit_beyond_rounding(name, seed, powers):
    x, y = (v.astype(np.float32) for v in data(seed, rows=40))
    scaled = (v * np.float32(2.0) ** power for v, power in zip((x, y), powers, strict=True))
    np.testing.assert_allclose(
        np.asarray(OWN[name](*scaled), float), np.asarray(OWN[name](x, y), float), rtol=1e-4, atol=1e-5
    )


@settings(deadline=None, max_examples=50)
@given(power=st.integers(-120, 100), seed=st.integers(0, 99))
def test_unit_scale_keeps_every_digit(power, seed):
    x = torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1, size=(5, 3)).astype(np.float32))
    scaled = arrays.times_power(x, power)
    unit = arrays.unit_scale(scaled)
    factor = unit / x
    assert torch.equal(factor, factor[0, 0].expand_as(factor))
    assert arrays.largest(unit) <= 2.0**arrays.NEAR_UNIT
    assert arrays.largest(unit) >= 2.0**-arrays.NEAR_UNIT / 2
    if abs(power) < arrays.NEAR_UNIT:
        assert unit is scaled  # no copy of what needs none


def test_a_row_far_smaller_than_the_rest_keeps_its_neighbours():
    x = data()[0].astype(np.float32)
    small = x.copy()
    small[3] *= np.float32(1e-21)
    np.testing.assert_array_equal(hrsa.nearest(small, 5), hrsa.nearest(x, 5))


def states(noise, texts=30, each=5, width=12):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, texts * each, width)) + 0.5
    values = (base + noise * np.random.default_rng(1).normal(size=base.shape)).astype(np.float32)
    text, position = np.divmod(np.arange(texts * each), each)
    pooled = values.reshape(3, texts, each, width).mean(2)
    return hrsa.Activations(values, text, text, position, pooled, np.arange(texts, dtype=np.uint64))


@pytest.mark.parametrize("scale", [1e-18, 1e-9, 1e9, 1e18])
def test_a_whole_comparison_does_not_depend_on_the_unit(scale):
    a, b = states(0), states(0.5)
    labels = np.arange(30) % 2
    reports = []
    for unit in (1.0, scale):
        for model in (a, b):
            model.states, model.pooled = (v * np.float32(unit) for v in (model.states, model.pooled))
        probe = hrsa.Probe(a.pooled[-1], b.pooled[-1], labels)
        reports.append(hrsa.compare_activations(a, b, probes={"toy": probe}))
    pairs = [(reports[0].table, reports[1].table)]
    pairs += [(frame, reports[1].detail(name)) for name, frame in reports[0].details.items()]
    for first, second in pairs:
        numbers = first.select_dtypes("number").columns
        np.testing.assert_allclose(second[numbers], first[numbers], rtol=2e-3, atol=2e-4)


def test_values_that_no_float64_can_square_are_refused():
    for scale in (1e-150, 1e150):
        with pytest.raises(ValueError, match=r"X has values up to .*; bring it between"):
            hrsa.orthogonal_procrustes(data()[0] * scale, data()[1])
