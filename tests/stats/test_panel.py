"""Scores at the door: what a panel accepts, what it refuses, and that order and labels do not matter."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import as_frame, draw

from realign import stats
from realign.stats.panel import panel

SIZES = stats.Sizes(tasks=3, queries=4, runs=2, seeds=2, base_runs=0, base_seeds=3)


def frame(seed=0):
    return as_frame(
        *draw(np.random.default_rng(seed), SIZES, {"model": 1.0, "model:query": 3.0, "task": 5.0})
    )


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), shuffle=st.integers(0, 99), shift=st.floats(-50, 50))
def test_order_names_and_a_constant_do_not_matter(seed, shuffle, shift):
    scores = frame(seed)
    other = scores.sample(frac=1, random_state=shuffle)
    other = other.assign(
        run=other["run"].replace("", np.nan), seed=other["seed"] + 7, score=other["score"] + shift
    )
    one, two = (stats.suite_difference(f, "base", "sft", 2.0) for f in (scores, other))
    assert (one.delta, one.error, one.freedom) == pytest.approx((two.delta, two.error, two.freedom), rel=1e-6)
    assert stats.excess_variance(scores, "base", "reason", "sft").value == pytest.approx(
        stats.excess_variance(other, "base", "reason", "sft").value, rel=1e-6, abs=1e-9
    )


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), power=st.integers(-20, 20))
def test_estimates_scale_with_the_scores(seed, power):
    scores, scale = frame(seed), 2.0**power
    one = stats.suite_difference(scores, "base", "sft", 2.0)
    two = stats.suite_difference(scores.assign(score=scores["score"] * scale), "base", "sft", 2.0 * scale)
    assert (two.delta, two.error) == pytest.approx((one.delta * scale, one.error * scale), rel=1e-6)
    assert two.tost_p == pytest.approx(one.tost_p, rel=1e-6)
    assert (two.queries, two.seeds, two.runs) == pytest.approx((one.queries, one.seeds, one.runs), abs=1e-6)


def test_models_with_equal_scores_differ_by_nothing():
    found = stats.suite_difference(frame().assign(score=50.0), "base", "sft", 2.0)
    assert (found.delta, found.error, found.low, found.high) == pytest.approx((0, 0, 0, 0), abs=1e-9)
    assert found.equivalent


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.to_dict(), TypeError, "must be a pandas DataFrame"),
        (lambda f: f.drop(columns="run"), ValueError, r"lacks the columns \['run'\]"),
        (lambda f: f.iloc[:0], ValueError, "has no arm"),
        (lambda f: f[f["arm"] != "sft"], ValueError, "no arm 'sft'; it has"),
        (lambda f: f.assign(score=f["score"].astype(str)), TypeError, "real numbers"),
        (lambda f: f.assign(score=f["score"].where(f["seed"] > 0)), ValueError, "not finite"),
        (lambda f: f.assign(score=np.inf), ValueError, "not finite"),
        (lambda f: pd.concat([f, f.iloc[-1:]]), ValueError, "listed twice"),
        (lambda f: f.iloc[:-1], ValueError, "no score of query 'q3' of task 't2'"),
        (lambda f: f[(f["task"] != "t1") | (f["arm"] != "base")], ValueError, "task 't1'"),
        (lambda f: f.assign(seed=f["seed"].where(f["seed"] > 0)), ValueError, "lacks its seed or task"),
    ],
)
def test_faulty_scores_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        stats.suite_difference(change(frame()), "base", "sft", 2.0)


@pytest.mark.parametrize("margin", [0, -1.0, np.nan, "2"])
def test_a_faulty_margin_is_refused(margin):
    with pytest.raises((ValueError, TypeError), match="margin"):
        stats.suite_difference(frame(), "base", "sft", margin)


def test_runs_are_nested_in_their_arm_and_may_share_names():
    laid = panel(frame())
    assert [(arm, each.runs, each.seeds) for arm, each in laid.layouts.items()] == [
        ("base", 1, 3), ("reason", 2, 2), ("sft", 2, 2),
    ]  # fmt: skip
