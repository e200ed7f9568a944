"""What the statistics accept as values and settings, and what they refuse at the door."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realign import stats

FUNCTIONS = {
    "bootstrap_mean": lambda x: stats.bootstrap_mean(x, resamples=200),
    "t_interval": stats.t_interval,
    "tost": lambda x: (stats.tost(x, 1.0),),
    "sign_flip_p": lambda x: (stats.sign_flip_p(x),),
}
FORMS = {
    "list": list,
    "tuple": tuple,
    "series": lambda x: pd.Series(x, index=np.arange(len(x)) + 7),
    "nullable series": lambda x: pd.Series(x, dtype="Float64"),
    "objects": lambda x: np.array([float(v) for v in x], dtype=object),
    "numpy scalars": lambda x: [np.float64(v) for v in x],
    "float32": lambda x: np.asarray(x, dtype=np.float32),
    "unmasked": lambda x: np.ma.masked_array(x),
}
# two decimals of a power of two: the same value in float32
values = st.lists(st.integers(-400, 400).map(lambda i: i / 4), min_size=1, max_size=9)


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(deadline=None, max_examples=15)
@given(x=values, form=st.sampled_from(sorted(FORMS)))
def test_every_form_of_the_same_values_gives_the_same_answer(name, x, form):
    call = FUNCTIONS[name]
    np.testing.assert_array_equal(call(FORMS[form](x)), call(np.array(x)))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ([], ValueError, "at least one value"),
        ([[1.0, 2.0], [3.0, 4.0]], ValueError, r"got \(2, 2\)"),
        (3.0, ValueError, "shape"),
        ([1.0, np.nan], ValueError, "value 1 is not finite"),
        ([-np.inf, 1.0], ValueError, "value 0 is not finite"),
        (["1", "2"], TypeError, "real numbers"),
        ([1.0, None], TypeError, "real numbers"),
        ([1.0, "2"], TypeError, "real numbers"),
        ([1j, 2.0], TypeError, "real numbers"),
        ([True, False], TypeError, "real numbers"),
        (iter([1.0, 2.0]), TypeError, "real numbers"),
        ({1.0, 2.0}, TypeError, "real numbers"),
        (None, TypeError, "real numbers"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), ValueError, "masked"),
    ],
)
def test_values_that_are_no_list_of_finite_numbers_are_refused(name, bad, error, message):
    with pytest.raises(error, match=message):
        FUNCTIONS[name](bad)


@settings(deadline=None, max_examples=30)
@given(x=st.lists(st.floats(-100, 100), min_size=2, max_size=9), power=st.integers(-60, 60))
def test_intervals_scale_with_the_values_and_p_values_do_not(x, power):
    scale = 2.0**power  # exact: 1e-18 to 1e18
    x = np.round(x, 3)
    for call in (FUNCTIONS["bootstrap_mean"], stats.t_interval):
        np.testing.assert_allclose(call(x * scale), np.multiply(call(x), scale), rtol=1e-9, atol=0)
    assert stats.sign_flip_p(x * scale) == stats.sign_flip_p(x)
    assert stats.tost(x * scale, scale) == pytest.approx(stats.tost(x, 1.0), rel=1e-9)
    table = np.add.outer(x, x[:2])
    np.testing.assert_allclose(
        stats.hierarchical_interval(table * scale),
        np.multiply(stats.hierarchical_interval(table), scale),
        rtol=1e-6, atol=1e-9 * scale,
    )  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(x=st.lists(st.floats(-1e18, 1e18), min_size=1, max_size=20), level=st.floats(0.01, 0.99))
def test_an_interval_holds_its_mean_and_p_values_are_probabilities(x, level):
    low, high = stats.t_interval(x, level)
    assert len(x) == 1 or low <= np.mean(x) <= high
    assert 0 < stats.sign_flip_p(x, flips=50) <= 1
    assert len(x) == 1 or 0 <= stats.tost(x, 1.0) <= 1


@pytest.mark.parametrize("level", [0, 1, 1.5, -0.1, np.nan, 95])
def test_a_level_outside_0_and_1_is_refused(level):
    for call in (stats.t_interval, stats.bootstrap_mean):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            call([1.0, 2.0], level=level)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        stats.hierarchical_interval(np.zeros((2, 2)), level=level)


@pytest.mark.parametrize("margin", [0, -1, np.nan, np.inf])
def test_a_margin_that_is_not_positive_is_refused(margin):
    frame = pd.DataFrame({"role": ["a", "b"], "task": "t", "seed": 0, "score": [1.0, 2.0]})
    for call in (
        lambda: stats.tost([1.0, 2.0], margin),
        lambda: stats.paired(frame, "a", "b", margin),
        lambda: stats.delta_table(frame, base="a", margin=margin, by=None),
    ):
        with pytest.raises(ValueError, match="margin must be positive"):
            call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stats.t_interval([1, 2], "0.9"), TypeError, "level must be a number"),
        (lambda: stats.t_interval([1, 2], True), TypeError, "level must be a number"),
        (lambda: stats.tost([1, 2], "1"), TypeError, "margin must be a number"),
        (lambda: stats.bootstrap_mean([1, 2], resamples=0), ValueError, "resamples must be at least 1"),
        (lambda: stats.bootstrap_mean([1, 2], resamples=9.5), TypeError, "resamples must be a whole number"),
        (lambda: stats.bootstrap_mean([1, 2], seed=-3), ValueError, "seed must be at least 0"),
        (lambda: stats.sign_flip_p([1, 2], seed=None), TypeError, "seed must be a whole number"),
        (lambda: stats.sign_flip_p([1, 2], flips=-1), ValueError, "flips must be at least 1"),
        (lambda: stats.hierarchical_interval(np.zeros(3)), ValueError, r"\(tasks, seeds\)"),
        (lambda: stats.hierarchical_interval([[1, np.inf], [1, 2]]), ValueError, "not finite"),
        (lambda: stats.hierarchical_interval([[1, np.nan], [1, np.nan]]), ValueError, "seed 1 has no value"),
        (lambda: stats.hierarchical_interval([[1, 2], [np.nan] * 2]), ValueError, "task 1 has no value"),
        (lambda: stats.paired([1, 2], "a", "b", 1.0), TypeError, "must be a pandas DataFrame"),
    ],
)
def test_settings_that_make_no_sense_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_scores_that_are_no_numbers_are_refused():
    frame = pd.DataFrame({"role": ["a", "b"], "task": "t", "seed": 0, "score": ["1", "2"]})
    with pytest.raises(TypeError, match="real numbers"):
        stats.paired(frame, "a", "b", 1.0)
    with pytest.raises(ValueError, match="lacks the columns"):
        stats.delta_table(frame, by="suite")


def test_numpy_scalars_are_settings_like_any_other():
    x = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert stats.t_interval(x, np.float32(0.5)) == stats.t_interval(x, 0.5)
    assert stats.tost(x, np.int64(3)) == stats.tost(x, 3)
    assert stats.bootstrap_mean(x, resamples=np.int64(99), seed=np.uint8(3)) == stats.bootstrap_mean(
        x, resamples=99, seed=3
    )
