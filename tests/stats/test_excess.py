"""Excess variance of task shifts: unbiased where folded noise is not, coverage, errors, and the naive bootstrap."""

import itertools

import numpy as np
import pytest
from studies import as_frame, as_panel, draw

from realign import stats
from realign.stats.excess import excess_of_panel, pair_weights

SMOLLM = stats.Sizes(tasks=8, queries=30, runs=3, seeds=3, base_runs=0, base_seeds=8)
GEMMA = stats.Sizes(tasks=8, queries=30, runs=2, seeds=2, base_runs=0, base_seeds=5)
NOISE = {
    "queries": {"model:query": 10.0, "arm:query": 3.0},
    "seeds": {"seed": 3.0, "seed:task": 1.0, "arm:seed": 2.0, "model:task": 1.5},
    "all": {"run": 2.0, "run:task": 1.0, "seed:task": 1.0, "model:task": 1.0, "model:query": 8.0},
}


def shape(sizes, seed):
    u = np.random.default_rng(seed).normal(size=sizes.tasks)
    return (u - u.mean()) / u.std(ddof=1)


def differences(sizes, sd, spread, studies, seed=0, scale=1.0):
    """Estimates of sft - reason from studies whose shifts have standard deviations ``spread`` over tasks."""
    rng = np.random.default_rng(seed)
    shifts = {"reason": spread[0] * shape(sizes, 1), "sft": spread[1] * shape(sizes, 2) + 2.0}
    draws = (as_panel(*draw(rng, sizes, sd, shifts, scale=scale)) for _ in range(studies))
    return [excess_of_panel(data, "base", ("reason", "sft"), 0.90) for data in draws]


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("sizes", [SMOLLM, GEMMA], ids=["3 runs", "2 runs"])
def test_intervals_cover_and_errors_stay_below_five_percent_at_the_boundary(sizes, noise):
    # equal excess: none, some, much; and a true difference
    for spread in ((0.0, 0.0), (2.0, 2.0), (1.0, 4.0)):
        found = differences(sizes, NOISE[noise], spread, 120)
        truth = spread[1] ** 2 - spread[0] ** 2
        above, below = (np.mean([f.low > truth for f in found]), np.mean([f.high < truth for f in found]))
        slack = 2.5 * np.sqrt(0.05 * 0.95 / 120)
        assert above <= 0.05 + slack
        assert below <= 0.05 + slack


def test_the_estimate_is_unbiased_where_observed_shifts_are_folded_noise():
    found = differences(SMOLLM, NOISE["all"], (0.0, 3.0), 150)
    for arm, truth in (("reason", 0.0), ("sft", 9.0)):
        estimates = np.array([f.excess[arm] for f in found])
        assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(150)
        assert np.mean([f.observed[arm] for f in found]) > truth + 1


def test_an_arm_that_is_only_noisier_is_not_said_to_shift_tasks_more():
    rng = np.random.default_rng(3)
    wrong = naive = 0
    for _ in range(120):
        models, y = draw(rng, SMOLLM, {"model:task": 1.0})
        noisy = (models["arm"] == "sft").to_numpy()
        y[noisy] += rng.normal(0, 5, (noisy.sum(), SMOLLM.tasks, 1))
        found = excess_of_panel(as_panel(models, y), "base", ("reason", "sft"), 0.90)
        wrong += found.low > 0
        naive += found.observed["sft"] > found.observed["reason"]
    assert wrong / 120 <= 0.10
    assert naive / 120 > 0.9


def test_one_noisy_task_does_not_spoil_the_interval():
    scale = np.r_[5.0, np.ones(SMOLLM.tasks - 1)]
    found = differences(SMOLLM, {"model:task": 1.0}, (1.0, 1.0), 120, scale=scale)
    assert np.mean([f.low <= 0 <= f.high for f in found]) >= 0.85


def naive_bootstrap(rng, data, draws=300):
    """Percentile interval of sft - reason from seeds (jointly for all arms) and runs drawn with replacement."""
    centred = data.scores - data.scores.mean(axis=1, keepdims=True)
    products = centred @ centred.T / (len(data.tasks) - 1)
    seeds = np.hstack(
        [rng.multinomial(n, np.full(n, 1 / n), draws) for n in (3, 5)]
    )  # in all arms; of base alone
    count = seeds[:, data.models["seed"]].astype(float)
    for arm in ("reason", "sft"):
        count[:, data.rows[arm]] *= np.repeat(rng.multinomial(3, np.full(3, 1 / 3), draws), 3, axis=1)
    value = np.zeros(draws)
    for sign, arm in ((-1, "reason"), (1, "sft")):
        weights = pair_weights(data, "base", arm)
        for a, b in itertools.product(("base", arm), repeat=2):
            block = np.ix_(data.rows[a], data.rows[b])
            pairs = (weights[block] != 0).astype(float)
            sums = [
                np.einsum("dm,mn,dn->d", count[:, data.rows[a]], pairs * each[block], count[:, data.rows[b]])
                for each in (products, np.ones_like(products))
            ]
            with np.errstate(invalid="ignore"):
                value += sign * weights[block].sum() * sums[0] / sums[1]
    return stats.draws_interval(value[np.isfinite(value)])


def test_resampling_three_runs_and_seeds_covers_too_rarely():
    sd, shifts = (
        {"run:task": 2.0, "model:task": 1.0},
        {"reason": 2 * shape(SMOLLM, 1), "sft": 2 * shape(SMOLLM, 2)},
    )
    rng, hits = np.random.default_rng(4), np.zeros(2)
    for _ in range(120):
        data = as_panel(*draw(rng, SMOLLM, sd, shifts))
        ours, (low, high) = excess_of_panel(data, "base", ("reason", "sft"), 0.90), naive_bootstrap(rng, data)
        hits += [ours.low <= 0 <= ours.high, low <= 0 <= high]
    assert hits[0] / 120 >= 0.84
    assert hits[1] / 120 <= 0.85
    assert hits[0] > hits[1]


def test_one_run_an_arm_says_that_shifts_are_those_of_that_run():
    sizes = stats.Sizes(tasks=5, queries=10, runs=1, seeds=3, base_runs=0, base_seeds=3)
    found = stats.excess_variance(
        as_frame(*draw(np.random.default_rng(5), sizes, {"model:task": 1.0})), "base", "sft"
    )
    assert not found.run_identified
    assert list(found.excess) == ["sft"]
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("sizes", "arms", "message"),
    [
        (SMOLLM, (), "name one arm or two"),
        (SMOLLM, ("base",), "name one arm or two"),
        (SMOLLM, ("reason", "start"), "no arm 'start'"),
        (stats.Sizes(2, 4, 1, 2, 0, 2), ("sft",), "3 tasks or more"),
        (stats.Sizes(4, 4, 1, 1, 0, 2), ("sft",), "'sft' has a single trained model"),
    ],
)
def test_designs_that_cannot_tell_noise_are_refused(sizes, arms, message):
    with pytest.raises(ValueError, match=message):
        stats.excess_variance(as_frame(*draw(np.random.default_rng(6), sizes, {"model": 1.0})), "base", *arms)
