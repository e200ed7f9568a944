"""REML against closed forms and statsmodels, and the components of drawn scores and similarities."""

import numpy as np
import pandas as pd
import pytest
from studies import as_frame, draw

from realign import stats


def by_name(table):
    return dict(zip(table["component"], table["variance"], strict=True))


def test_reml_of_a_balanced_crossed_table_is_its_analysis_of_variance():
    rng = np.random.default_rng(0)
    rows, columns = 8, 6
    y = rng.normal(0, 3, (rows, 1)) + rng.normal(0, 2, (1, columns)) + rng.normal(0, 1, (rows, columns))
    r, c = np.indices(y.shape).reshape(2, -1)
    found = by_name(stats.reml(y.ravel(), {"task": stats.indicator(r), "seed": stats.indicator(c)}))
    rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    noise = (rest**2).sum() / ((rows - 1) * (columns - 1))
    assert found["residual"] == pytest.approx(noise, rel=1e-4)
    assert found["task"] == pytest.approx(y.mean(1).var(ddof=1) - noise / columns, rel=1e-4)
    assert found["seed"] == pytest.approx(y.mean(0).var(ddof=1) - noise / rows, rel=1e-4)


def test_reml_of_an_unbalanced_crossed_table_is_statsmodels_mixedlm():
    # statsmodels 0.15.0: mixedlm("y ~ 1", groups=1, vc_formula={"task": "0 + C(task)", "seed": "0 + C(seed)"},
    # re_formula="0").fit(reml=True); 6 tasks x 5 seeds without cells 3, 8, 17, 22 and 29
    y = [53.03, 49.95, 48.75, 47.88, 51.48, 50.95, 47.88, 48.77, 55.57, 53.69, 51.88, 48.73, 51.03, 53.83, 52.3,
         47.04, 48.15, 50.54, 50.51, 44.85, 46.94, 53.53, 53.52, 49.89, 48.91]  # fmt: skip
    cells = np.delete(np.arange(30), [3, 8, 17, 22, 29])
    found = by_name(stats.reml(y, {"task": stats.indicator(cells // 5), "seed": stats.indicator(cells % 5)}))
    expected = {"task": 2.23118266, "seed": 5.79818399, "residual": 0.49163072}
    assert found == pytest.approx(expected, rel=2e-3)


def test_components_are_not_negative_and_their_shares_sum_to_one():
    rng = np.random.default_rng(1)
    for _ in range(5):
        y, labels = rng.normal(size=24), np.arange(24) % 4
        table = stats.reml(y, {"seed": stats.indicator(labels)})
        assert (table["variance"] >= 0).all()
        assert table["share"].sum() == pytest.approx(1)
        assert table["variance"].sum() == pytest.approx(y.var(ddof=1), rel=0.2)


def test_factors_that_the_design_cannot_tell_apart_are_named():
    y, labels = np.random.default_rng(2).normal(size=12), np.arange(12) % 4
    table = stats.reml(
        y, {"run": stats.indicator(labels), "arm": stats.indicator(labels), "cell": np.eye(12)}
    )
    assert table.attrs["not_identified"] == ("arm", "cell")
    assert list(table["component"]) == ["run", "residual"]


def test_fixed_effects_take_their_mean_and_their_degrees_of_freedom():
    rng = np.random.default_rng(3)
    y, arm = rng.normal(0, 2, 30), np.arange(30) % 3
    table = stats.reml(y + 10 * arm, {}, fixed=stats.indicator(arm))
    means = np.array([y[arm == a].mean() for a in range(3)])
    assert table["variance"].item() == pytest.approx(((y - means[arm]) ** 2).sum() / 27, rel=1e-4)


def test_components_of_drawn_scores_are_found_without_bias():
    sizes = stats.Sizes(tasks=6, queries=25, runs=3, seeds=3, base_runs=0, base_seeds=6)
    sd = {"task": 6, "run": 3, "seed": 2, "arm:seed": 2, "model": 2, "run:task": 1.5, "model:task": 1,
          "query": 30, "arm:query": 8, "model:query": 20}  # fmt: skip
    rng = np.random.default_rng(4)
    tables = [stats.score_components(as_frame(*draw(rng, sizes, sd))) for _ in range(12)]
    means = pd.concat(tables).groupby("component")["variance"].mean()
    for source in ("query", "arm:query", "model:query"):
        assert means[source] == pytest.approx(sd[source] ** 2, rel=0.15)
    training = means[["run", "seed", "arm:seed", "model"]].sum()
    assert training == pytest.approx(9 + 4 + 4 + 4, rel=0.35)
    assert means["run:task"] + means["model:task"] == pytest.approx(2.25 + 1, rel=0.4)
    assert set(tables[0]["component"]) == {*sd, "arm", "arm:task", "seed:task"}


def test_what_one_run_an_arm_cannot_tell_is_left_out():
    sizes = stats.Sizes(tasks=4, queries=10, runs=1, seeds=3, base_runs=0, base_seeds=3)
    frame = as_frame(*draw(np.random.default_rng(5), sizes, {"model": 1.0, "model:query": 5.0}))
    table = stats.score_components(frame)
    assert "model" in table.attrs["not_identified"]  # the same as arm x seed
    alone = stats.score_components(
        frame.assign(query="")
        .groupby(["arm", "run", "seed", "task", "query"], as_index=False)["score"]
        .mean()
    )
    assert not {"query", "arm:query", "model:query"} & set(alone["component"])


def test_components_of_similarities_find_the_seed_and_the_run_of_both_models():
    rng = np.random.default_rng(6)
    models = [("base", "", s) for s in range(6)] + [
        ("reason", f"r{r}", s) for r in range(3) for s in range(3)
    ]
    found = []
    for _ in range(8):
        of_run, of_model = dict(zip(models, rng.normal(0, 0.02, 15), strict=True)), rng.normal(0, 0.03, 15)
        run_effect = {r: rng.normal(0, 0.04) for r in ("r0", "r1", "r2")} | {"": 0.0}
        rows = [
            (*a, *b, 0.8 + run_effect[a[1]] + run_effect[b[1]] + of_model[i] + of_model[j] + rng.normal(0, 0.01))
            for i, a in enumerate(models) for j, b in enumerate(models) if i < j
        ]  # fmt: skip
        assert of_run
        pairs = pd.DataFrame(rows, columns=["arm_a", "run_a", "seed_a", "arm_b", "run_b", "seed_b", "value"])
        found.append(by_name(stats.similarity_components(pairs)))
    means = pd.DataFrame(found).mean()
    assert means["model"] == pytest.approx(0.03**2, rel=0.4)
    assert means["run"] == pytest.approx(0.04**2, rel=0.7)
    assert means["residual"] == pytest.approx(0.01**2, rel=0.15)
    assert means["seed"] < 0.2 * means["model"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stats.reml([1.0, 2.0], {"seed": np.ones((3, 1))}), ValueError, "'seed' must have shape"),
        (lambda: stats.reml([1.0, 2.0], {}), ValueError, "too few"),
        (lambda: stats.reml(["a", "b", "c"], {}), TypeError, "real numbers"),
        (lambda: stats.reml([1.0, np.nan, 2.0], {}), ValueError, "not finite"),
        (
            lambda: stats.similarity_components(pd.DataFrame({"value": [1.0]})),
            ValueError,
            "lacks the columns",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
