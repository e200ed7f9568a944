"""Paired comparison against scipy, coverage and error rates by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from realign import stats


def scores(arms, tasks=12, seeds=3, noise=1.0, seed=0, seed_noise=0.0):
    rng = np.random.default_rng(seed)
    level = rng.normal(50, 10, tasks)
    rows = []
    for role, shift in arms.items():
        for s in range(seeds):
            trained = rng.normal(0, seed_noise)
            for t in range(tasks):
                score = level[t] + shift + trained + rng.normal(0, noise)
                rows.append((role, s, "ab"[t % 2], f"t{t}", "Retrieval", score))
    return pd.DataFrame(rows, columns=["role", "seed", "suite", "task", "type", "score"])


def test_tost_equals_two_scipy_t_tests_and_the_90_percent_interval():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.normal(rng.uniform(-1, 1), rng.uniform(0.2, 3), size=rng.integers(3, 30))
        below = reference.ttest_1samp(x, -1, alternative="greater").pvalue
        above = reference.ttest_1samp(x, 1, alternative="less").pvalue
        assert stats.tost(x, 1.0) == pytest.approx(max(below, above))
        low, high = reference.ttest_1samp(x, 0).confidence_interval(0.90)
        assert (stats.tost(x, 1.0) < 0.05) == (low > -1 and high < 1)


def test_tost_rejects_at_most_five_percent_at_the_margin():
    rng = np.random.default_rng(1)
    rate = np.mean([stats.tost(rng.normal(1.0, 1.5, size=15), 1.0) < 0.05 for _ in range(2000)])
    assert 0.035 <= rate <= 0.065


@pytest.mark.parametrize("n", [6, 14, 18])
def test_sign_flip_equals_scipy_permutation_test(n):
    x = np.random.default_rng(n).normal(0.4, 1, size=n)
    expected = reference.permutation_test(
        (x,), np.sum, permutation_type="samples", n_resamples=np.inf if n <= 14 else 20_000, rng=0
    ).pvalue
    assert stats.sign_flip_p(x) == pytest.approx(expected, abs=1e-12 if n <= 14 else 0.012)


def test_sign_flip_p_is_uniform_under_the_null():
    rng = np.random.default_rng(2)
    p = [stats.sign_flip_p(rng.normal(size=12)) for _ in range(500)]
    assert reference.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("n", [6, 12, 30])
def test_bootstrap_interval_of_a_mean_covers_for_the_task_counts_of_a_suite(n):
    rng = np.random.default_rng(n)
    hits = 0
    for trial in range(500):
        low, high = stats.bootstrap_mean(rng.normal(0.3, 2, size=n), resamples=600, seed=trial)
        hits += low <= 0.3 <= high
    assert 0.92 <= hits / 500 <= 0.985


@pytest.mark.parametrize("seeds", [3, 8])
def test_hierarchical_interval_covers_when_seeds_shift_all_tasks_and_a_task_bootstrap_does_not(seeds):
    rng = np.random.default_rng(3)
    hits = np.zeros(2)
    for trial in range(500):
        table = rng.normal(0, 1, (12, 1)) + rng.normal(0, 1, (1, seeds)) + rng.normal(0, 1, (12, seeds))
        for i, interval in enumerate(
            (
                stats.hierarchical_interval(table),
                stats.bootstrap_mean(table.mean(1), resamples=300, seed=trial),
            )
        ):
            hits[i] += interval[0] <= 0 <= interval[1]
    assert 0.92 <= hits[0] / 500 <= 0.985
    assert hits[1] / 500 < 0.9


def test_hierarchical_interval_equals_a_t_interval_when_seeds_do_not_matter():
    x = np.random.default_rng(4).normal(1, 2, size=12)
    low, high = stats.hierarchical_interval(np.repeat(x[:, None], 3, axis=1))
    np.testing.assert_allclose((low, high), reference.ttest_1samp(x, 0).confidence_interval(0.95), rtol=1e-6)


def test_a_missing_seed_of_one_task_barely_moves_the_interval():
    table = np.random.default_rng(5).normal(size=(12, 3))
    full = np.array(stats.hierarchical_interval(table))
    table[4, 1] = np.nan
    np.testing.assert_allclose(stats.hierarchical_interval(table), full, atol=0.4 * (full[1] - full[0]))


def test_paired_reports_the_mean_of_differences_over_shared_tasks_and_seeds():
    frame = scores({"base": 0, "reason": 2.0})
    extra = frame[frame["role"] == "reason"].iloc[:1].assign(task="only-reason", score=0.0)
    found = stats.paired(pd.concat([frame, extra]), "base", "reason", margin=1.0)
    wide = frame.pivot_table(index="task", columns="role", values="score")
    assert found.delta == pytest.approx((wide["reason"] - wide["base"]).mean())
    assert (found.n, found.seeds, found.note) == (12, 3, "")
    assert found.low < found.low90 < found.delta < found.high90 < found.high
    assert found.p < 0.01
    assert not found.equivalent


def test_a_small_difference_is_equivalent_and_a_large_or_noisy_one_is_not():
    same = stats.paired(scores({"base": 0, "reason": 0.0}, noise=0.3), "base", "reason", 1.0)
    noisy = stats.paired(scores({"base": 0, "reason": 0.0}, noise=9), "base", "reason", 1.0)
    assert same.equivalent
    assert same.tost_p < 0.01
    assert not noisy.equivalent
    assert noisy.p > 0.05


def test_one_seed_says_that_training_variance_is_unidentified():
    found = stats.paired(scores({"base": 0, "reason": 1}, seeds=1), "base", "reason", 1.0)
    assert "training variance is unidentified" in found.note
    assert np.isnan(found.std_seeds)


def test_seeds_that_disagree_widen_the_interval():
    arms = {"base": 0, "reason": 0}
    calm = stats.paired(scores(arms, seed_noise=0, noise=0.1), "base", "reason", 1.0)
    wild = stats.paired(scores(arms, seed_noise=3, noise=0.1), "base", "reason", 1.0)
    assert wild.high - wild.low > 5 * (calm.high - calm.low)
    assert wild.std_seeds > 5 * calm.std_seeds


def test_delta_table_has_each_arm_overall_and_by_group():
    frame = scores({"base": 0, "reason": 0, "sft": -4})
    frame.loc[len(frame)] = ["", -1, "a", "t0", "Retrieval", 3.0]  # a baseline row without a role
    table = stats.delta_table(frame, margin=1.0)
    assert table[["group", "b"]].to_numpy().tolist() == [
        [g, r] for g in ("all", "a", "b") for r in ("reason", "sft")
    ]
    overall = table.iloc[1]
    assert overall["score"] - overall["base_score"] == pytest.approx(overall["delta"])
    assert overall["delta"] == pytest.approx(-4, abs=1)
    assert list(stats.delta_table(frame, by=None)["group"]) == ["all", "all"]


def test_two_tasks_or_one_never_claim_equivalence_from_nothing():
    one = stats.paired(scores({"base": 0, "reason": 0}, tasks=1, seeds=1), "base", "reason", 1.0)
    assert not one.equivalent
    assert np.isnan(one.low)
    assert np.isnan(one.tost_p)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="seed"), "lacks the columns"),
        (lambda f: f[f["role"] == "base"], "no rows with role 'reason'"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "listed twice"),
        (lambda f: f.assign(seed=f["seed"] + 9 * (f["role"] == "base")), "share no task"),
    ],
)
def test_scores_that_cannot_be_paired_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        stats.paired(change(scores({"base": 0, "reason": 0})), "base", "reason", 1.0)


def test_values_and_margins_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="value 1 is not finite"):
        stats.sign_flip_p([1.0, np.nan])
    with pytest.raises(ValueError, match="margin must be positive"):
        stats.tost([1.0, 2.0], 0)
    with pytest.raises(ValueError, match=r"\(tasks, seeds\)"):
        stats.hierarchical_interval(np.zeros(3))


def test_t_interval_is_scipys_and_unknown_for_a_single_value():
    x = np.random.default_rng(3).normal(size=7)
    expected = reference.t.interval(0.9, 6, loc=x.mean(), scale=reference.sem(x))
    assert stats.t_interval(x) == pytest.approx(expected)
    assert np.isnan(stats.t_interval([1.0])).all()
