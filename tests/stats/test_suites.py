"""Arms on fixed tasks: coverage and errors by simulation, exact cases, what is said when something is not identified."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference
from studies import as_frame, as_panel, draw

from realign import stats
from realign.stats.equivalence import student_tost
from realign.stats.panel import linear_estimate

SMOLLM = stats.Sizes(tasks=5, queries=40, runs=3, seeds=3, base_runs=0, base_seeds=8)
GEMMA = stats.Sizes(tasks=5, queries=40, runs=2, seeds=3, base_runs=0, base_seeds=5)
TODAY = stats.Sizes(tasks=5, queries=40, runs=1, seeds=3, base_runs=0, base_seeds=3)
NOISE = {  # variances by source
    "queries only": {"model:query": 400.0},
    "all sources": {
        "model:query": 400,
        "arm:query": 50,
        "run": 1,
        "seed": 1,
        "arm:seed": 1,
        "model": 1,
        "run:task": 2,
    },
    "seeds": {"seed": 1.0, "arm:seed": 2.0, "model": 1.0},
    "runs": {"run": 2.0, "model": 1.0, "model:query": 400.0},
    "runs above all": {"run": 16.0, "model": 1.0},
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("sizes", [SMOLLM, GEMMA, TODAY], ids=["3 runs", "2 runs", "1 run"])
def test_every_verdict_errs_at_most_five_percent_at_its_boundary(sizes, noise):
    variances = dict(NOISE[noise])
    if sizes.runs == 1:  # then the interval speaks of that run
        variances = {k: v for k, v in variances.items() if not k.startswith("run")}
    rates = [
        stats.power(variances, sizes, test, at, effect=effect, simulations=4000).holds
        for test, at, effect in (
            ("above", 0.0, 0.0),
            ("below", 0.0, 0.0),
            ("inside", 6.0, 6.0),
            ("inside", 6.0, -6.0),
        )
    ]
    assert max(rates) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize("sizes", [SMOLLM, GEMMA], ids=["3 runs", "2 runs"])
def test_intervals_of_drawn_studies_cover_and_power_predicts_their_width(sizes):
    variances = NOISE["all sources"]
    sd = {source: np.sqrt(v) for source, v in variances.items()} | {"query": 30.0, "task": 10.0}
    rng, equal = np.random.default_rng(1), np.full(sizes.tasks, 1 / sizes.tasks)
    hits, widths, values, errors = [], [], [], []
    for _ in range(400):
        found = linear_estimate(
            as_panel(*draw(rng, sizes, sd, arms=("reason",))), {"base": -equal, "reason": equal}
        )
        low, high = found.interval(0.95)
        half = found.interval(0.90)[1] - found.value
        hits.append(low <= 0 <= high)
        widths.append(half)
        values.append(found.value)
        errors.append(found.variance)
    assert 0.93 <= np.mean(hits) <= 0.985
    assert (
        0.8 < np.mean(errors) / np.var(values) < 1.6
    )  # not too small; floors and shared seeds make it larger
    assert np.median(widths) == pytest.approx(
        stats.power(variances, sizes, "inside", 2.0).half_width, rel=0.15
    )


def test_shares_of_the_variance_name_its_source_and_sum_to_one():
    rng = np.random.default_rng(2)
    for source, field in (("model:query", "queries"), ("arm:seed", "seeds"), ("run", "runs")):
        sd = {"model:query": 1.0, source: 30.0 if source == "model:query" else 8.0}
        found = stats.suite_difference(as_frame(*draw(rng, SMOLLM, sd)), "base", "reason", 2.0)
        shares = {name: getattr(found, name) for name in ("queries", "seeds", "runs")}
        assert sum(shares.values()) == pytest.approx(1)
        assert max(shares, key=shares.get) == field
        assert min(shares.values()) >= 0


def test_without_runs_and_queries_it_is_welchs_t_test_of_suite_means():
    models, y = draw(np.random.default_rng(3), TODAY, {"model": 2.0, "task": 5.0})
    frame = (
        as_frame(models, y)
        .groupby(["arm", "run", "seed", "task"], as_index=False)["score"]
        .mean()
        .assign(query="")
    )
    found = stats.suite_difference(frame, "base", "reason", 2.0)
    means = frame.groupby(["arm", "seed"])["score"].mean()
    expected = reference.ttest_ind(means["reason"], means["base"], equal_var=False)
    assert found.delta == pytest.approx(means["reason"].mean() - means["base"].mean())
    assert found.freedom == pytest.approx(expected.df)
    assert (found.low90, found.high90) == pytest.approx(tuple(expected.confidence_interval(0.90)))
    assert "no task has scores of queries" in found.note
    assert found.tost_p == student_tost(found.delta, found.error, found.freedom, 2.0)
    far = frame.assign(score=frame["score"] + 5 * (frame["arm"] == "reason"))
    assert 0.5 < stats.suite_difference(far, "base", "reason", 2.0).tost_p < 1


def test_tost_and_the_90_percent_interval_agree():
    rng = np.random.default_rng(4)
    for _ in range(20):
        found = stats.suite_difference(
            as_frame(*draw(rng, TODAY, {"model": 1.0, "model:query": 10.0})), "base", "sft", 2.0
        )
        assert found.equivalent == (found.low90 > -2 and found.high90 < 2)
        assert (found.tost_p < 0.05) == found.equivalent
        assert found.low < found.low90 < found.delta < found.high90 < found.high


def test_one_run_says_that_tuning_is_not_identified_apart_from_it():
    rng = np.random.default_rng(5)
    one = stats.suite_difference(as_frame(*draw(rng, TODAY, {"model": 1.0})), "base", "reason", 2.0)
    assert not one.run_identified
    assert "not identified apart from that run" in one.note
    three = stats.suite_difference(as_frame(*draw(rng, SMOLLM, {"model": 1.0})), "base", "reason", 2.0)
    assert three.run_identified
    assert three.note == ""


def test_one_trained_model_has_the_noise_of_queries_only_and_says_so():
    sizes = stats.Sizes(tasks=4, queries=30, runs=1, seeds=1, base_runs=0, base_seeds=1)
    frame = as_frame(*draw(np.random.default_rng(6), sizes, {"model:query": 10.0}))
    found = stats.suite_difference(frame, "base", "reason", 2.0)
    wide = frame.pivot_table(index=["task", "query"], columns="arm", values="score")
    by_task = (wide["reason"] - wide["base"]).groupby("task").var() / 30
    assert found.error == pytest.approx(np.sqrt(by_task.sum()) / 4)
    assert not found.seed_identified
    assert "training noise is not in the interval" in found.note
    alone = stats.suite_difference(
        frame.assign(query="")
        .groupby(["arm", "run", "seed", "task", "query"], as_index=False)["score"]
        .mean(),
        "base",
        "reason",
        2.0,
    )
    assert np.isnan(alone.error)
    assert not alone.equivalent


def test_a_task_without_queries_counts_and_gets_the_noise_of_the_others():
    frame = as_frame(
        *draw(np.random.default_rng(7), SMOLLM, {"model:query": 20.0, "arm:query": 10.0, "model": 0.5})
    )
    scored = (
        frame[frame["task"] == "t0"]
        .groupby(["arm", "run", "seed", "task"], as_index=False)["score"]
        .mean()
        .assign(query="")
    )
    mixed = pd.concat([frame[frame["task"] != "t0"], scored])
    full, part = (stats.suite_difference(f, "base", "reason", 2.0) for f in (frame, mixed))
    assert part.without_queries == ("t0",)
    assert part.delta == pytest.approx(full.delta)
    assert part.error == pytest.approx(full.error, rel=0.2)


def test_a_tasks_own_score_is_the_estimate_where_queries_are_given_too():
    frame = as_frame(*draw(np.random.default_rng(8), TODAY, {"model:query": 20.0}))
    scored = (
        frame.groupby(["arm", "run", "seed", "task"], as_index=False)["score"].mean().assign(query=np.nan)
    )
    scored["score"] += 3 * (scored["arm"] == "reason")
    both = stats.suite_difference(pd.concat([frame, scored]), "base", "reason", 2.0)
    alone = stats.suite_difference(frame, "base", "reason", 2.0)
    assert both.delta == pytest.approx(alone.delta + 3)
    assert both.error == pytest.approx(alone.error)


def test_missing_seeds_of_a_run_and_runs_that_share_no_seed_still_cover():
    rng, equal = np.random.default_rng(9), np.full(5, 0.2)
    hits = np.zeros(2)
    for _ in range(300):
        models, y = draw(
            rng, SMOLLM, {"run": 1.0, "arm:seed": 1.0, "model": 1.0, "model:query": 10.0}, arms=("reason",)
        )
        tag = models["run"] + models["seed"].astype(str)
        for i, dropped in enumerate((["run11"], ["run01", "run02", "run10", "run12", "run20", "run21"])):
            kept = ~tag.isin(dropped).to_numpy()
            found = linear_estimate(
                as_panel(models[kept].reset_index(drop=True), y[kept]), {"base": -equal, "reason": equal}
            )
            low, high = found.interval(0.95)
            hits[i] += low <= 0 <= high
    assert (hits / 300 >= 0.92).all()


def test_new_tasks_are_the_crossed_interval_over_shared_seeds():
    frame = as_frame(*draw(np.random.default_rng(10), TODAY, {"model:task": 2.0, "task": 5.0}))
    table = frame.groupby(["arm", "task", "seed"])["score"].mean().unstack()
    expected = stats.hierarchical_interval((table.loc["reason"] - table.loc["base"]).to_numpy(), level=0.9)
    assert stats.new_tasks_interval(frame, "base", "reason", level=0.9) == pytest.approx(expected)
