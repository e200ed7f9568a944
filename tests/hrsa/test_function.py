"""Probes against scikit-learn, and what transfer must and must not survive."""

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from realign import hrsa
from realign.hrsa.function import paper_probe


@pytest.fixture
def task():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])[np.arange(150) % 3]
    centers = rng.normal(size=(3, 12))
    x = centers[np.arange(150) % 3] + rng.normal(size=(150, 12))
    return x, x + 0.5 * rng.normal(size=x.shape), labels


def test_predictions_equal_scikit_learn_with_everything_fitted_on_the_source_train_split(task):
    x, y, labels = task
    found = hrsa.cross_model_probe(x, y, labels, folds=3, strengths=(0.1,), seed=5)
    own, across = np.empty(150, dtype=object), np.empty(150, dtype=object)
    xn, yn = normalize(x), normalize(y)
    for train, test in StratifiedKFold(3, shuffle=True, random_state=5).split(xn, labels):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        model.fit(xn[train], labels[train])
        own[test], across[test] = model.predict(xn[test]), model.predict(yn[test])
    assert found.score("own") == np.mean(own == labels)
    assert found.score("source") == np.mean(across == labels)
    for average in ("macro", "weighted"):
        assert found.f1("source", average) == pytest.approx(f1_score(labels, across, average=average))
    drawn = np.random.default_rng(0).integers(0, len(labels), size=len(labels))
    counts = np.bincount(drawn, minlength=len(labels))[None]
    expected = f1_score(labels[drawn], across[drawn], average="weighted")
    assert found.f1_resampled("source", counts, "weighted")[0] == pytest.approx(expected)
    assert found.majority == pytest.approx(1 / 3)


def test_regression_equals_ridge_and_a_shifted_target_is_repaired_by_its_own_scaling():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(120, 6))
    value = x @ rng.normal(size=6)
    y = 3 * x + 10
    found = hrsa.cross_model_probe(
        x, y, value, task="regression", folds=4, strengths=(1.0,), normalise=False, seed=2
    )
    assert found.score("own") > 0.95
    assert found.score("source") < 0
    assert found.score("target") == pytest.approx(found.score("own"), abs=1e-6)
    assert np.isnan(found.f1("own"))
    scaled = StandardScaler().fit(x)
    expected = Ridge(alpha=1.0).fit(scaled.transform(x), value).score(scaled.transform(x), value)
    assert found.score("own") == pytest.approx(expected, abs=0.05)


def test_a_rotated_target_breaks_the_probe_and_procrustes_repairs_it(task):
    x, _, labels = task
    turned = x @ ortho_group.rvs(12, random_state=0)
    found = hrsa.cross_model_probe(x, turned, labels, seed=0)
    assert found.score("source") < 0.6 < 0.8 < found.score("own")
    assert found.score("procrustes") == pytest.approx(found.score("own"), abs=0.03)
    assert found.score("ceiling") == pytest.approx(found.score("own"), abs=0.05)
    assert found.transfer_ratio("procrustes") == pytest.approx(1, abs=0.1)


def test_a_model_with_itself_transfers_fully_and_shuffled_labels_fall_to_the_floor(task):
    x, _, labels = task
    found = hrsa.cross_model_probe(x, x, labels, seed=0)
    np.testing.assert_array_equal(found.predictions["source"], found.predictions["own"])
    assert found.transfer_ratio() == pytest.approx(1)
    assert found.score("shuffled") < 0.5


def test_groups_are_never_split_between_training_and_test():
    """Labels are random but constant within a group of near copies: only leakage could predict them."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 4)
    labels = rng.integers(0, 2, 60)[groups]
    x = rng.normal(size=(60, 40))[groups] + 0.01 * rng.normal(size=(240, 40))
    leaking = hrsa.cross_model_probe(x, x, labels, controls=False, seed=0)
    grouped = hrsa.cross_model_probe(x, x, labels, groups=groups, controls=False, seed=0)
    assert leaking.score("own") > 0.9
    assert grouped.score("own") < 0.7


def test_transfer_influence_predicts_what_leaving_a_text_out_does(task):
    x, y, labels = task
    found = hrsa.cross_model_probe(x, y, labels, seed=0)
    got, best, floor = found.correct("source"), found.correct("ceiling"), found.majority
    left_out = [
        (np.delete(got, i).mean() - floor) / (np.delete(best, i).mean() - floor) for i in range(len(got))
    ]
    drop = found.transfer_ratio() - np.array(left_out)
    np.testing.assert_allclose(found.transfer_influence(), drop, atol=2e-4)


def test_paper_probe_tests_a_tenth_with_fixed_strength(task):
    x, y, labels = task
    found = paper_probe(x, y, labels)
    assert 12 <= len(found.truth) <= 18
    assert set(found.predictions) == {"own", "source"}
    assert found.regularisation == [1.0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 20, "one class only"),
        (["a"] * 17 + ["b"] * 3, "class .*b.* has 3 texts"),
        (["a"] * 19, "one label for each of the 20 texts"),
    ],
)
def test_labels_that_cannot_be_probed_are_refused(labels, message):
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ValueError, match=message):
        hrsa.cross_model_probe(x, x, labels)
