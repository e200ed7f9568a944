"""The report: its numbers equal the metrics' own, and it answers with intervals, differences and curves."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from realign import hrsa
from realign.hrsa.procrustes import shrink_rotation
from realign.hrsa.rows import COLUMNS

SETTINGS = SimpleNamespace(cka_tokens=300, knn_tokens=300, k=(5, 10), resamples=100, seed=0)


def made(noise, seed=1, layers=7, texts=60, each=5, width=12):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(layers, texts * each, width)) + 0.5
    base += rng.normal(size=(texts, width))[np.repeat(np.arange(texts), each)]
    states = base + noise * np.random.default_rng(seed).normal(size=base.shape)
    text = np.repeat(np.arange(texts), each)
    pooled = states.reshape(layers, texts, each, width).mean(2)
    return hrsa.Activations(
        states.astype(np.float32),
        text,
        np.arange(len(text)),
        np.tile(np.arange(each), texts),
        pooled.astype(np.float32),
        np.arange(texts, dtype=np.uint64),
        {"tokens_read": len(text)},
    )


@pytest.fixture(scope="module")
def models():
    return made(0), made(0.3, seed=1), made(1.5, seed=2)


def probe_of(a, b):
    labels = np.where(a.pooled[-1][:, 0] > np.median(a.pooled[-1][:, 0]), "x", "y")
    return {"toy": hrsa.Probe(a.pooled[-1], b.pooled[-1], labels)}


@pytest.fixture(scope="module")
def report(models):
    labels = ["even" if i % 2 == 0 else "odd" for i in range(60)]
    return hrsa.compare_activations(
        models[0], models[1], SETTINGS, labels=labels, probes=probe_of(models[0], models[1])
    )


def only(frame, **equal):
    for column, value in equal.items():
        frame = frame[frame[column] == value]
    return frame


def test_table_and_details_have_the_columns_that_the_figures_read(report):
    expected = {
        "grid": ["metric", "estimator", "layer_a", "layer_b", "value", "low", "high"],
        "correlation_histogram": ["dimension", "r"],
        "cka_null": ["layer", "value", "null_mean", "null_high", "p"],
        "knn": ["estimator", "variant", "layer", "k", "jaccard", "overlap", "chance", "corrected"],
        "knn_labels": ["layer", "label", "k", "corrected", "low", "high", "tokens"],
    }
    for name, columns in expected.items():
        assert list(report.detail(name).columns) == columns
    assert list(report.table.columns) == COLUMNS
    assert list(report.grid("cka").columns) == ["layer_a", "layer_b", "value", "low", "high"]
    assert list(report.by_layer("cka").columns) == ["layer", "value", "low", "high", "null", "determined"]
    assert (report.layers, report.ks) == (7, (5, 10))
    averages = [f"{name}_f1{end}" for name in ("macro", "weighted") for end in ("", "_low", "_high")]
    shares = [f"{name}_share{end}" for name in ("top_dimension", "top_rows") for end in ("", "_low", "_high")]
    for name, columns in (("probe", averages), ("probe_paper", averages), ("energy", shares)):
        assert set(columns) <= set(report.detail(name).columns)
    assert set(report.detail("probe")["direction"]) == {"a->a", "a->b", "b->b", "b->a"}
    with pytest.raises(ValueError, match="no detail 'nothing'"):
        report.detail("nothing")


def test_numbers_equal_the_metrics_called_alone(report, models):
    a, b, _ = models
    groups = a.text_ids
    for estimator, kind in (("paper", "biased"), ("reference", "debiased")):
        part = report.grid("cka", estimator).pivot(index="layer_a", columns="layer_b", values="value")
        np.testing.assert_allclose(part, hrsa.cka_grid(a.states, b.states, estimator=kind), rtol=1e-5)
        diagonal = report.by_layer("cka", estimator, variant="")
        np.testing.assert_allclose(diagonal["value"], np.diag(part), rtol=1e-5)
    grid = report.grid("correlation").pivot(index="layer_a", columns="layer_b", values="value")
    np.testing.assert_allclose(grid, hrsa.correlation_grid(a.states, b.states), atol=1e-6)
    np.testing.assert_allclose(
        report.detail("correlation_histogram")["r"], hrsa.dimension_correlation(a.states[-1], b.states[-1])
    )
    for estimator, own in (("paper", None), ("reference", groups)):
        found = hrsa.knn_overlap(a.states[3], b.states[3], k=(5, 10), groups=own)
        part = only(report.detail("knn"), estimator=estimator, layer=3, variant="")
        for column in ("jaccard", "overlap", "chance", "corrected"):
            np.testing.assert_allclose(part[column], getattr(found, column))
        shown = only(report.table, metric="knn", estimator=estimator, layer=3, variant="")["value"]
        np.testing.assert_allclose(shown, found.jaccard if own is None else found.corrected)
    whole = hrsa.orthogonal_procrustes(a.states[-1], b.states[-1])
    np.testing.assert_allclose(report.rotation, whole.rotation, atol=2e-3)
    paper = only(report.by_layer("inverse_row_entropy", "paper"), layer=6)
    assert paper["value"].item() == pytest.approx(hrsa.inverse_row_entropy(whole.rotation).mean(), abs=1e-4)


def test_every_number_has_an_interval_that_holds_it_and_the_null_is_far_below(report):
    columns = {
        "table": ("value", ""),
        "grid": ("value", ""),
        "knn_labels": ("corrected", ""),
        "probe": ("accuracy", ""),
        "probe_paper": ("weighted_f1", "weighted_f1_"),
        "energy": ("top_rows_share", "top_rows_share_"),
    }
    for name, (value, prefix) in columns.items():
        frame = report.table if name == "table" else report.detail(name)
        low, high = frame[f"{prefix}low"], frame[f"{prefix}high"]
        assert ((low <= frame[value]) & (frame[value] <= high)).all(), name
    # Cells of the grid, by parts of the texts, are about as certain as the diagonal, by texts.
    cells = pd.concat([report.grid("cka", e).query("layer_a == layer_b") for e in ("reference", "paper")])
    diagonal = only(report.table, metric="cka", variant="")
    widths = [(f["high"] - f["low"]).mean() for f in (cells, diagonal)]
    assert 0.7 < widths[0] / widths[1] < 1.5
    r2 = report.by_layer("r2").set_index("layer")
    assert (r2["null"].dropna() < 0.1).all()
    assert (r2["value"] > 0.7).all()
    top = only(report.detail("cka_null"), layer=-1)
    assert top["p"].item() == pytest.approx(1 / 101)


def test_the_counterfactual_undoes_a_rotation_and_nothing_else(models):
    a, b, _ = models
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(a.states.shape[2],) * 2))[0].astype(np.float32)

    def last(second: object) -> dict[str, float]:
        report = hrsa.compare_activations(a, second, SETTINGS, metrics=["r2"], layers=[-1])
        return only(report.table, estimator="reference").set_index("metric")["value"].to_dict()

    plain, turned = last(b), last(replace(b, states=b.states @ turn))
    assert plain["unrotated_r2"] > 0.5
    assert turned["unrotated_r2"] < 0.1  # the axes no longer mean the same
    assert turned["r2"] == pytest.approx(plain["r2"], abs=1e-4)
    assert plain["rotated_correlation"] > 0.8
    assert turned["rotated_correlation"] > 0.8


def test_a_model_with_itself_is_identical_everywhere(models):
    metrics = ("cka", "knn", "correlation", "r2")
    summary = hrsa.compare_activations(models[1], models[1], SETTINGS, metrics=metrics).summary()
    assert {name.split("@")[0].split(":")[0] for name in summary["metric"]} >= set(metrics)
    distance = summary["metric"] == "residual_variance"
    np.testing.assert_allclose(summary["value"], ~distance, atol=1e-3)


@pytest.mark.parametrize("detail", ["full", "summary"])
def test_identical_models_of_few_distinct_tokens_are_not_rotated(detail):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 32)).astype(np.float32)
    token = rng.integers(0, 20, size=180)
    a = replace(
        made(0, layers=1, texts=30, each=6, width=32),
        states=vectors[None, token],
        pooled=vectors[token].reshape(1, 30, 6, 32).mean(2),
    )
    report = hrsa.compare_activations(a, a, SETTINGS, metrics=["r2"], detail=detail)
    same = ("r2", "unrotated_r2", "rotated_correlation", "cosine", "inverse_row_entropy", "diagonal_energy")
    for metric in same:
        for estimator in ("reference", "paper"):
            row = report.by_layer(metric, estimator).iloc[0]
            np.testing.assert_allclose(row[["value", "low", "high"]].astype(float), 1, atol=1e-6)
    rank = report.detail("rotation_rank")
    assert rank.to_dict("records") == [{"layer": 0, "rank": len(set(token)) - 1, "width": 32}]


def test_the_papers_procrustes_scores_are_those_of_uncentred_states_after_a_centred_fit(models):
    a, b = (
        replace(m, states=m.states + np.float32(shift)) for m, shift in zip(models, (3, 2.8), strict=False)
    )
    report = hrsa.compare_activations(a, b, SETTINGS, metrics=["r2"])
    for layer in range(7):
        x, y = a.states[layer].astype(np.float64), b.states[layer].astype(np.float64)
        u, _, vt = np.linalg.svd((x - x.mean(0)).T @ (y - y.mean(0)))
        ratio = ((x @ u @ vt - y) ** 2).sum() / (y**2).sum()
        centred = ((x - x.mean(0)) @ u @ vt - (y - y.mean(0))).var(0).sum() / y.var(0).sum()
        assert abs(ratio - centred) > 1e-3  # the two definitions differ here
        found = {m: report.by_layer(m, "paper")["value"][layer] for m in ("r2", "residual_variance")}
        assert found["residual_variance"] == pytest.approx(ratio, abs=1e-9)
        assert found["r2"] == pytest.approx(1 - ratio, abs=1e-9)


def test_the_interval_of_the_papers_residual_variance_is_that_of_leaving_texts_out(models):
    a, b = (replace(m, states=m.states[:1] + np.float32(1), pooled=m.pooled[:1]) for m in models[:2])
    report = hrsa.compare_activations(a, b, SETTINGS, metrics=["residual_variance"])
    row = report.by_layer("residual_variance", "paper").iloc[0]

    def ratio(rows):
        x, y = a.states[0, rows].astype(float), b.states[0, rows].astype(float)
        turned = x @ hrsa.orthogonal_procrustes(x, y).rotation
        return ((turned - y) ** 2).sum() / (y**2).sum()

    left_out = np.array([ratio(a.text_ids != t) for t in range(60)])
    jackknife = np.sqrt(59 / 60 * ((left_out - left_out.mean()) ** 2).sum())
    assert np.log(row["high"] / row["low"]) / 2 == pytest.approx(2.0 * jackknife / row["value"], rel=0.1)


def test_row_order_of_equal_texts_and_saving_change_nothing(report, tmp_path):
    report.save(tmp_path / "a")
    report.save(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    back = hrsa.Report.load(tmp_path / "a")
    pd.testing.assert_frame_equal(back.table, report.table, rtol=1e-6, check_dtype=False)
    assert set(back.details) == set(report.details)
    for name, frame in report.details.items():
        pd.testing.assert_frame_equal(back.detail(name), frame, rtol=1e-6, check_dtype=False)
    np.testing.assert_array_equal(back.rotation, report.rotation)
    assert back.meta == report.meta
    pair = report.summary(), back.summary()
    np.testing.assert_allclose(pair[0]["low"], pair[1]["low"], atol=1e-3)


def test_summary_detail_gives_the_same_numbers_on_fewer_layers(report, models):
    cheap = hrsa.compare_activations(
        models[0],
        models[1],
        SETTINGS,
        detail="summary",
        layers=[0, -1],
        probes=probe_of(models[0], models[1]),
    )
    full = only(report.table, metric="knn", layer=6, variant="")
    np.testing.assert_allclose(only(cheap.table, metric="knn", layer=6, variant="")["value"], full["value"])
    assert sorted(set(only(cheap.table, metric="cka")["layer"])) == [0, 6]
    lines = set(map(tuple, cheap.summary()[["metric", "at"]].to_numpy()))
    full = report.summary().query("metric != 'cka:standardised'")
    assert lines == set(map(tuple, full[["metric", "at"]].to_numpy()))
    expected = {("cka", "last"), ("knn@10", "mean"), ("correlation", "last"), ("r2", "last")}
    assert expected | {("probe_transfer:toy", "mean")} <= lines


def test_differences_between_two_comparisons_have_paired_intervals(report, models):
    far = hrsa.compare_activations(models[0], models[2], SETTINGS, metrics=("cka", "knn"))
    for metric in ("cka", "knn@10"):
        gap = hrsa.difference(report, far, metric)
        assert gap.low > 0
        assert gap.p < 0.001
        same = hrsa.difference(report, report, metric, layer=2)
        assert same.value == same.low == same.high == 0
    with pytest.raises(ValueError, match="no influences"):
        hrsa.difference(report, far, "correlation")
    fewer = SimpleNamespace(**{**vars(SETTINGS), "cka_tokens": 100})
    other = hrsa.compare_activations(models[0], models[2], fewer, metrics=("cka",))
    with pytest.raises(ValueError, match="different tokens"):
        hrsa.difference(report, other, "cka")


def test_sinks_are_found_and_left_out():
    a, b = made(0), made(5.0, seed=9)
    for model in (a, b):
        model.states[:, ::100] += 400
    found = hrsa.compare_activations(a, b, SETTINGS, metrics=("cka",))
    assert found.meta["sinks"] == 3
    last = only(found.table, estimator="reference", layer=6).set_index("variant")["value"]
    assert last[""] > 0.95 > 0.4 > last["no_sinks"]
    assert found.by_layer("cka")["value"].iloc[-1] == last["no_sinks"]
    assert found.detail("energy")["top_rows_share"].min() > 0.9


def test_text_level_comparison_treats_each_text_as_one_token(models):
    a, b = (hrsa.Activations.from_pooled(m.pooled) for m in models[:2])
    found = hrsa.compare_activations(a, b, SETTINGS, metrics=("cka",))
    value = found.by_layer("cka", variant="")["value"][2]
    expected = hrsa.linear_cka(models[0].pooled[2], models[1].pooled[2], estimator="debiased")
    assert value == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_compared_is_refused_with_the_first_difference(models):
    a, b, _ = models
    other = made(0)
    other.token_ids = other.token_ids.copy()
    other.token_ids[17] = 999
    with pytest.raises(ValueError, match=r"token ids differ first at entry 17 \(17 and 999\)"):
        hrsa.compare_activations(a, other, SETTINGS)
    with pytest.raises(ValueError, match="read different samples"):
        hrsa.compare_activations(a, made(0, texts=50), SETTINGS)
    with pytest.raises(ValueError, match="layers and width must agree"):
        hrsa.compare_activations(a, made(0, layers=5), SETTINGS)
    with pytest.raises(ValueError, match="unknown metrics"):
        hrsa.compare_activations(a, b, SETTINGS, metrics=("ckaa",))
    with pytest.raises(ValueError, match="one for each of the 60 texts"):
        hrsa.compare_activations(a, b, SETTINGS, labels=["x"], metrics=("knn",))


def test_wide_rotations_are_stored_as_block_maxima():
    o = np.zeros((1200, 1200))
    o[7, 1199] = -0.5
    small, block = shrink_rotation(o)
    assert (block, small.shape) == (3, (400, 400))
    assert small[2, 399] == 0.5
    assert (small != 0).sum() == 1
