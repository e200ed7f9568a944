"""Paired comparison over shared tasks and seeds, and the sign-flip test against scipy."""

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


def test_paired_reports_the_mean_of_differences_over_shared_tasks_and_seeds():
    frame = scores({"base": 0, "reason": 2.0})
    extra = frame[frame["role"] == "reason"].iloc[:1].assign(task="only-reason", score=0.0)
    comparison = stats.paired(pd.concat([frame, extra]), "base", "reason", margin=1.0)
    wide = frame.pivot_table(index="task", columns="role", values="score")
    assert comparison.delta == pytest.approx((wide["reason"] - wide["base"]).mean())
    assert (comparison.n, comparison.seeds, comparison.note) == (12, 3, "")
    assert comparison.low < comparison.low90 < comparison.delta < comparison.high90 < comparison.high
    assert comparison.p < 0.01
    assert not comparison.equivalent


def test_a_small_difference_is_equivalent_and_a_large_or_noisy_one_is_not():
    same = stats.paired(scores({"base": 0, "reason": 0.0}, noise=0.3), "base", "reason", 1.0)
    noisy = stats.paired(scores({"base": 0, "reason": 0.0}, noise=9), "base", "reason", 1.0)
    assert same.equivalent
    assert same.tost_p < 0.01
    assert not noisy.equivalent
    assert noisy.p > 0.05


def test_one_seed_says_that_training_variance_is_unidentified():
    comparison = stats.paired(scores({"base": 0, "reason": 1}, seeds=1), "base", "reason", 1.0)
    assert "training variance is unidentified" in comparison.note
    assert np.isnan(comparison.std_seeds)


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


def test_sign_flip_p_is_what_it_was_before_scipy_computed_it():
    x = np.random.default_rng(7).normal(0.4, 1, 21)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(20_000, 21))
    beyond = (np.abs(signs @ x) >= abs(x.sum())).sum()
    assert stats.sign_flip_p(x) == (beyond + 1) / 20_001
    assert stats.sign_flip_p([3.0]) == 1
    assert stats.sign_flip_p(np.zeros(5)) == 1


def test_sums_that_differ_by_rounding_only_are_ties():
    # 0.1 + 0.2 - 0.3 is not 0 in floating point: half of all patterns have a sum of 0 or of 0.6
    x = [0.1, 0.2, -0.3, 10.0]
    sums = [
        abs(a + 2 * b - 3 * c + 100 * d) for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (1, -1)
    ]
    assert stats.sign_flip_p(x) == np.mean([s >= 100 for s in sums])
