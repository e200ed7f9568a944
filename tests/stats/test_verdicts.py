"""Verdicts, their curves, and the error of claims with several parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from realign import stats

ends = st.tuples(st.floats(-5, 5), st.floats(-5, 5)).map(sorted)
tests = st.sampled_from(["inside", "above", "below"])


@settings(deadline=None, max_examples=150)
@given(interval=ends, test=tests, threshold=st.floats(-6, 6))
def test_the_curve_says_at_every_threshold_what_the_verdict_says(interval, test, threshold):
    low, high = interval
    if test == "inside":
        threshold = abs(threshold)
    curve = stats.verdict_curve(low, high, test)
    assert (curve["stop"].to_numpy()[:-1] == curve["start"].to_numpy()[1:]).all()
    assert curve["stop"].iloc[-1] == np.inf
    at = curve[(curve["start"] < threshold) & (threshold < curve["stop"])]
    if len(at):  # not exactly on an edge
        assert at["verdict"].item() == stats.verdict(low, high, test, threshold)


def test_verdicts_of_an_interval():
    assert [stats.verdict(0.1, 0.3, "above", t) for t in (0.0, 0.2, 0.4)] == ["holds", "undecided", "fails"]
    assert [stats.verdict(0.1, 0.3, "below", t) for t in (0.0, 0.2, 0.4)] == ["fails", "undecided", "holds"]
    assert [stats.verdict(-1, 2, "inside", t) for t in (0.5, 1.5, 2.5)] == ["undecided", "undecided", "holds"]
    assert stats.verdict(2, 3, "inside", 2.0) == "fails"
    assert stats.verdict(np.nan, np.nan, "above", 0.0) == "undecided"


def test_an_interval_of_draws_makes_a_curve_too():
    low, high = stats.draws_interval(np.arange(101.0), level=0.90)
    assert (low, high) == pytest.approx((5.0, 95.0))
    assert list(stats.verdict_curve(low, high, "above")["verdict"]) == ["holds", "undecided", "fails"]


def test_a_claim_that_needs_all_parts_takes_the_largest_p_and_needs_no_correction():
    claim = stats.family({"code": 0.01, "bright": 0.04, "multilingual": 0.2}, needs="all")
    assert (claim.p, claim.holds, claim.error) == (0.2, False, 0.05)
    assert claim.adjusted == {"code": 0.01, "bright": 0.04, "multilingual": 0.2}
    assert "no correction" in claim.statement


def test_a_claim_that_needs_any_part_is_holms():
    claim = stats.family({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}, needs="any")
    assert claim.adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})  # as R's p.adjust
    assert claim.holds
    assert claim.unadjusted == pytest.approx(0.2)


@pytest.mark.parametrize("needs", ["all", "any"])
def test_the_error_of_a_claim_stays_at_its_level_whatever_the_dependence(needs):
    rng = np.random.default_rng(0)
    for shared in (0.0, 0.9):
        z = np.sqrt(shared) * rng.normal(size=(4000, 1)) + np.sqrt(1 - shared) * rng.normal(size=(4000, 3))
        if needs == "all":
            z[:, 1:] += 10  # two parts are true, one is not
        holds = [stats.family(dict(enumerate(p)), needs=needs).holds for p in norm.sf(z)]
        assert np.mean(holds) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.verdict(0, 1, "over", 0.5), "test must be one of"),
        (lambda: stats.verdict_curve(0, 1, "over"), "test must be one of"),
        (lambda: stats.verdict_curve(1, 0, "above"), "low must not exceed high"),
        (lambda: stats.verdict_curve(np.nan, 1, "above"), "low must not exceed high"),
        (lambda: stats.family({}, needs="all"), "at least one value"),
        (lambda: stats.family({"a": 1.2}, needs="all"), "between 0 and 1"),
        (lambda: stats.family({"a": 0.2}, needs="most"), "needs must be"),
        (lambda: stats.draws_interval([]), "at least one value"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
