"""Intervals from influences: coverage where one text in a hundred is 20 times as influential, and their range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from realign import hrsa
from realign.hrsa.intervals import SCALES, interval

STUDIES = 1500


def heavy(rng, texts):
    """Scale (studies, texts): one text in a hundred, at random, has 20 times the influence."""
    return np.where(rng.random((STUDIES, texts)) < 0.01, 20.0, 1.0)


def mean(x):
    return x.mean(axis=-1), (x - x.mean(axis=-1, keepdims=True)) / x.shape[-1]


def correlation(x, y):
    x, y = ((v - v.mean(-1, keepdims=True)) / v.std(-1, keepdims=True) for v in (x, y))
    r = (x * y).mean(axis=-1)
    return r, (x * y - r[:, None] * (x**2 + y**2) / 2) / x.shape[-1]


def r_squared(residual, total):
    share = residual.mean(-1) / total.mean(-1)
    return 1 - share, -(residual - share[:, None] * total) / total.mean(-1, keepdims=True) / total.shape[-1]


def ratio(x, y):
    (a, of_a), (b, of_b) = mean(x), mean(y)
    return a / b, (of_a / a[:, None] - of_b / b[:, None]) * (a / b)[:, None]


def coverage(value, influence, truth, scale="any"):
    low, high, _ = hrsa.influence_interval(value, influence, scale=scale)
    return np.mean((low <= truth) & (truth <= high))


@pytest.mark.parametrize("texts", [280, 500, 1000])
@pytest.mark.parametrize("tails", ["heavy", "light"])
def test_intervals_of_correlations_r2_and_differences_cover(texts, tails):
    rng = np.random.default_rng(texts)
    scale = np.sqrt(heavy(rng, texts)) if tails == "heavy" else 1.0  # a product of two has its square
    z = rng.normal(size=(3, STUDIES, texts))
    x, y, other = z[0] * scale, (0.8 * z[0] + 0.6 * z[1]) * scale, (0.8 * z[0] + 0.6 * z[2]) * scale
    (r, of_r), (s, of_s) = correlation(x, y), correlation(x, other)
    found = {
        "correlation": coverage(r, of_r, 0.8, "correlation"),
        "difference of correlations": coverage(r - s, of_r - of_s, 0.0),
        "r2": coverage(*r_squared((0.6 * z[1] * scale) ** 2, y**2), 0.64, "at most one"),
        "ratio": coverage(*ratio(x**2, other**2), 1.0, "positive"),
    }
    assert all(0.93 <= rate <= 0.97 for rate in found.values()), found


@pytest.mark.parametrize(("texts", "most"), [(280, 0.985), (1000, 0.975), (3000, 0.97)])
def test_the_interval_of_a_heavy_tailed_mean_never_covers_too_rarely(texts, most):
    rng = np.random.default_rng(texts)
    scale = heavy(rng, texts)
    even = coverage(*mean(rng.normal(size=scale.shape) * scale), 0.0)
    skewed = coverage(*mean((rng.exponential(size=scale.shape) - 1) * scale), 0.0)
    assert 0.93 <= even <= most
    assert 0.93 <= skewed <= most


def test_our_quantiles_lie_between_normal_ones_and_those_of_the_participation_ratio():
    rng = np.random.default_rng(0)
    scale = np.sqrt(heavy(rng, 280))
    z = rng.normal(size=(2, STUDIES, 280))
    r, influence = correlation(z[0] * scale, (0.8 * z[0] + 0.6 * z[1]) * scale)
    ratio = (influence**2).sum(-1) ** 2 / (influence**4).sum(-1)
    error = np.sqrt((influence**2).sum(-1)) / (1 - r**2)
    away = np.abs(np.arctanh(r) - np.arctanh(0.8)) / error
    normal, participation = (np.mean(away <= q) for q in (1.96, reference.t.ppf(0.975, ratio - 1 + 1e-9)))
    assert normal < coverage(r, influence, 0.8, "correlation") < participation


def test_degrees_of_freedom_are_n_for_normal_influences_and_few_for_one_that_dominates():
    rng = np.random.default_rng(1)
    assert np.median(hrsa.effective_freedom(rng.normal(size=(200, 1000)))) == 999
    lone = np.full(1000, 1e-3)
    lone[7] = 1.0
    assert hrsa.effective_freedom(lone) == pytest.approx(4, abs=0.02)


VALUES = {
    "any": st.floats(-1e6, 1e6),
    "correlation": st.floats(-1, 1),
    "similarity": st.floats(0, 1),
    "share": st.floats(0, 1),
    "at most one": st.floats(-1e6, 1),
    "positive": st.floats(0, 1e6),
}


@settings(deadline=None, max_examples=300)
@given(
    drawn=st.sampled_from(sorted(VALUES)).flatmap(lambda s: st.tuples(st.just(s), VALUES[s])),
    influence=st.lists(st.floats(-10, 10), min_size=2, max_size=30),
    level=st.floats(0.05, 0.99),
)
def test_intervals_stay_in_range_hold_the_value_and_grow_with_the_level(drawn, influence, level):
    scale, value = drawn
    low, high, freedom = hrsa.influence_interval(value, influence, scale=scale, level=level)
    assert SCALES[scale].lowest <= low <= value <= high <= SCALES[scale].highest
    assert freedom >= 1
    wider = hrsa.influence_interval(value, influence, scale=scale, level=(1 + level) / 2)
    tiny = 1e-9 * max(1, abs(value))
    assert wider[0] <= low + tiny
    assert wider[1] >= high - tiny


@pytest.mark.parametrize(
    ("scale", "value", "expected"),
    [
        ("share", 1.0, (0.9, 1.0)),  # at the end: one-sided
        ("share", 0.0, (0.0, 0.1)),
        ("correlation", -1.0, (-1.0, -0.9)),
        ("at most one", 1 + 1e-9, (0.9, 1.0)),  # by rounding
        ("positive", 0.0, (0.0, 0.1)),
    ],
)
def test_an_interval_of_a_value_at_the_end_of_its_range_is_one_sided(scale, value, expected):
    influence = np.tile([1, -1], 500) / 1000
    error = reference.t.ppf(0.975, 999) * np.sqrt(1 / 999)
    low, high = interval(value, influence * 0.1 / error, scale)
    np.testing.assert_allclose([low, high], expected, atol=1e-9)


def test_rounding_next_to_the_end_of_a_range_does_not_make_an_interval_wide():
    influence = np.tile([1e-9, -1e-9], 100)
    for scale, value in (("correlation", 1 - 1e-14), ("share", 1 - 1e-14), ("at most one", 1 - 1e-14)):
        low, high = interval(value, influence, scale)
        assert 1 - 1e-7 < low <= value <= high <= 1


def test_numbers_that_are_not_known_or_beyond_rounding_have_no_interval():
    values, influences = np.array([0.5, np.nan, 0.5, 1.2, 0.5]), np.tile([0.01, -0.01], (5, 10))
    influences[2, 3] = np.inf
    low, high = interval(values, influences, "correlation")
    np.testing.assert_array_equal(np.isnan(low), [False, True, True, True, False])
    assert low[0] == low[4] < 0.5 < high[0] == high[4]
    assert np.isnan(interval(values, influences[:, :1], "any")).all()


def test_a_calibrated_share_moves_with_value_floor_and_ceiling():
    rng = np.random.default_rng(2)
    x = rng.normal([0.7, 0.1, 0.9], 0.2, (400, 3))

    def share(rows):
        v, f, c = rows.mean(axis=0)
        return (v - f) / (c - f)

    value, influence = hrsa.calibrated(*x.mean(axis=0), tuple((x - x.mean(axis=0)).T / 400))
    jackknife = np.array([share(np.delete(x, i, axis=0)) for i in range(400)])
    assert value == pytest.approx(share(x))
    np.testing.assert_allclose(influence, (value - jackknife) * 399 / 400, atol=2e-5)
    for end, expected in ((0.1, 0.0), (0.9, 1.0)):
        assert hrsa.calibrated(end, 0.1, 0.9, (np.zeros(3),) * 3)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: hrsa.influence_interval(0.5, [0.1, -0.1], scale="logit"),
            ValueError,
            "scale must be one of",
        ),
        (
            lambda: hrsa.influence_interval(1.5, [0.1, -0.1], scale="correlation"),
            ValueError,
            "outside the range",
        ),
        (
            lambda: hrsa.influence_interval(-1.0, [0.1, -0.1], scale="positive"),
            ValueError,
            "outside the range",
        ),
        (lambda: hrsa.influence_interval([1.0, 2.0], [0.1, -0.1]), ValueError, "influence must have shape"),
        (lambda: hrsa.influence_interval(np.nan, [0.1, -0.1]), ValueError, "not finite"),
        (lambda: hrsa.influence_interval(0.5, []), ValueError, "at least one"),
        (lambda: hrsa.influence_interval("a", [0.1]), TypeError, "real numbers"),
        (lambda: hrsa.influence_interval(0.5, [0.1, -0.1], level=2), ValueError, "level must lie"),
        (lambda: hrsa.calibrated(0.5, 0.9, 0.1, ([0.0],) * 3), ValueError, "must be above the floor"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_one_unit_has_no_interval_and_equal_units_have_no_width():
    assert np.isnan(hrsa.influence_interval(0.5, [0.0])).all()
    assert hrsa.influence_interval(1.0, [0.0, 0.0], scale="correlation")[:2] == (1.0, 1.0)
