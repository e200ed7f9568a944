"""Power by simulation: against closed forms, against drawn studies, and how it grows."""

import time

import numpy as np
import pytest
from scipy import stats as reference
from studies import as_panel, draw

from realign import stats
from realign.stats.excess import excess_of_panel

WELCH = stats.Sizes(tasks=4, queries=100, runs=1, seeds=8, base_runs=0, base_seeds=8)


def test_power_of_a_directional_contrast_is_that_of_a_t_test():
    found = stats.power({"model": 1.0}, WELCH, "above", 0.0, effect=1.2)
    noncentrality, freedom = 1.2 / np.sqrt(2 / 8), 14
    expected = reference.nct.sf(reference.t.ppf(0.95, freedom), freedom, noncentrality)
    assert found.holds == pytest.approx(expected, abs=0.03)


def test_power_of_equivalence_with_known_noise_is_the_normal_one():
    sizes = stats.Sizes(tasks=5, queries=200, runs=1, seeds=1, base_runs=0, base_seeds=40)
    found = stats.power({"arm:query": 400.0}, sizes, "inside", 2.0)
    error = np.sqrt(2 * 400 / 1000)
    assert found.holds == pytest.approx(2 * reference.norm.cdf(2 / error - 1.645) - 1, abs=0.03)
    assert found.half_width == pytest.approx(1.645 * error, rel=0.03)


@pytest.mark.parametrize("better", ["queries", "runs", "seeds", "base_seeds", "tasks"])
def test_more_of_anything_gives_narrower_intervals(better):
    variances = {"run": 1.0, "arm:seed": 1.0, "model": 1.0, "model:query": 900.0, "model:task": 4.0}
    sizes = {"tasks": 4, "queries": 50, "runs": 2, "seeds": 3, "base_runs": 0, "base_seeds": 3}
    few = stats.power(variances, stats.Sizes(**sizes), "inside", 4.0)
    many = stats.power(variances, stats.Sizes(**{**sizes, better: 4 * sizes[better]}), "inside", 4.0)
    assert many.half_width < few.half_width
    assert many.holds > few.holds


def test_tuned_arms_can_be_compared_with_one_another():
    sizes = stats.Sizes(tasks=4, queries=50, runs=3, seeds=3, base_runs=3, base_seeds=3)
    assert stats.power({"run": 1.0}, sizes, "below", 0.0, effect=0.0).holds <= 0.06
    assert stats.power({"run": 1.0}, sizes, "below", 0.0, effect=-6.0).holds > 0.95


def test_verdicts_at_two_thresholds_are_ordered_and_wrong_verdicts_are_rare():
    found = stats.power({"model": 1.0, "model:query": 400.0}, WELCH, "inside", 1.0, effect=0.0)
    wider = stats.power({"model": 1.0, "model:query": 400.0}, WELCH, "inside", 2.0, effect=0.0)
    assert found.holds < wider.holds
    assert found.fails < 0.01
    assert found.error == pytest.approx(np.sqrt(found.holds * (1 - found.holds) / 4000))


def test_power_of_excess_variance_is_what_drawn_studies_give():
    sizes = stats.Sizes(tasks=8, queries=20, runs=2, seeds=2, base_runs=0, base_seeds=4)
    sd = {"model:task": 1.0, "run:task": 0.5, "model:query": 5.0}
    planned = stats.excess_power({k: v**2 for k, v in sd.items()}, sizes, (1.0, 12.0), simulations=150)
    rng, holds = np.random.default_rng(1), 0
    for _ in range(150):
        u = rng.normal(size=(2, 8))
        u = (u - u.mean(1, keepdims=True)) / u.std(1, ddof=1, keepdims=True)
        shifts = {"reason": u[0], "sft": np.sqrt(12) * u[1]}
        holds += (
            excess_of_panel(as_panel(*draw(rng, sizes, sd, shifts)), "base", ("reason", "sft"), 0.90).low > 0
        )
    assert planned.holds == pytest.approx(holds / 150, abs=0.15)
    assert 0.2 < planned.holds < 0.98
    none = stats.excess_power({k: v**2 for k, v in sd.items()}, sizes, (4.0, 4.0), simulations=150)
    assert none.holds <= 0.10


def test_power_is_fast_and_the_same_for_the_same_seed():
    sizes = stats.Sizes(tasks=11, queries=200, runs=3, seeds=3, base_runs=0, base_seeds=8)
    start = time.process_time()
    one = stats.power({"model": 1.0, "run": 1.0, "model:query": 400.0}, sizes, "inside", 2.0, seed=5)
    assert time.process_time() - start < 2
    assert one == stats.power({"model": 1.0, "run": 1.0, "model:query": 400.0}, sizes, "inside", 2.0, seed=5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stats.Sizes(4, 50, 3, 3, 0, 0), ValueError, "base_seeds must be at least 1"),
        (lambda: stats.Sizes(4, 1, 3, 3, 0, 8), ValueError, "queries must be at least 2"),
        (lambda: stats.Sizes(4, 50, 3, 2.5, 0, 8), TypeError, "seeds must be a whole number"),
        (
            lambda: stats.power({"sedes": 1.0}, WELCH, "inside", 2.0),
            ValueError,
            r"unknown components \['sedes'\]",
        ),
        (lambda: stats.power({"seed": -1.0}, WELCH, "inside", 2.0), ValueError, "not negative"),
        (lambda: stats.power({"seed": 1.0}, WELCH, "within", 2.0), ValueError, "test must be one of"),
        (
            lambda: stats.power({"seed": 1.0}, stats.Sizes(4, 50, 1, 1, 0, 1), "inside", 2.0),
            ValueError,
            "one model an arm",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
