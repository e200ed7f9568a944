"""Representation level against numpy and scipy in float64."""

import numpy as np
import pytest
import scipy.linalg

from realign import hrsa
from realign.hrsa.correlation import correlation_grid_by_part
from realign.hrsa.rotation import shape_influence


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12)) * np.linspace(0.5, 3, 12) + 5
    y = x @ scipy.linalg.qr(rng.normal(size=(12, 12)))[0] + 0.3 * rng.normal(size=(300, 12)) - 2
    return x, y


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-6)])
def test_dimension_correlation_equals_numpy_corrcoef(pair, dtype, tolerance):
    x, y = (v.astype(dtype) for v in pair)
    expected = [np.corrcoef(x[:, i].astype(float), y[:, i].astype(float))[0, 1] for i in range(12)]
    np.testing.assert_allclose(hrsa.dimension_correlation(x, y), expected, rtol=tolerance, atol=tolerance)


def test_a_constant_dimension_is_nan_and_does_not_enter_the_grid(pair):
    x, y = pair
    x[:, 3] = 0.1  # not exactly representable: its centred values are rounding noise, not zero
    r = hrsa.dimension_correlation(x, y)
    assert np.isnan(r[3])
    assert np.isfinite(np.delete(r, 3)).all()
    grid = hrsa.correlation_grid(x[None].astype(np.float32), y[None].astype(np.float32))
    assert grid[0, 0] == pytest.approx(np.nanmean(r), abs=1e-6)


def test_correlation_grid_equals_the_mean_of_each_pair_whatever_the_block(pair):
    x, y = pair
    xs, ys = np.stack([x, x**2, y]), np.stack([y, y**3])
    expected = [[np.nanmean(hrsa.dimension_correlation(a, b)) for b in ys] for a in xs]
    for block in (7, 300, 1000):
        np.testing.assert_allclose(hrsa.correlation_grid(xs, ys, block=block), expected, atol=1e-10)


def test_influence_of_parts_on_correlation_is_the_first_order_of_leaving_them_out(pair):
    x, y = pair
    xs, ys, parts = np.stack([x, x + y]), np.stack([y, y - 3 * x]), np.arange(len(x))
    grid, influence = correlation_grid_by_part(xs, ys, parts, block=7)
    np.testing.assert_allclose(influence.sum(0), 0, atol=1e-12)
    without = np.stack(
        [grid - hrsa.correlation_grid(xs[:, parts != p], ys[:, parts != p]) for p in range(20)]
    )
    for i, j in np.ndindex(grid.shape):
        slope = np.polyfit(influence[:20, i, j], without[:, i, j], 1)[0]
        assert slope == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_rotation_equals_scipy_on_centred_data(pair, dtype, tolerance):
    x, y = (v.astype(dtype) for v in pair)
    fitted = hrsa.orthogonal_procrustes(x, y)
    xd, yd = x.astype(float), y.astype(float)
    expected, scale = scipy.linalg.orthogonal_procrustes(xd - xd.mean(0), yd - yd.mean(0))
    np.testing.assert_allclose(fitted.rotation, expected, atol=tolerance)
    assert fitted.singular_values.sum() == pytest.approx(scale, rel=tolerance)


def test_scores_use_training_means_and_equal_their_definitions(pair):
    x, y = pair
    fitted = hrsa.orthogonal_procrustes(x[:200], y[:200])
    score = fitted.score(x[200:], y[200:])
    target = y[200:] - y[:200].mean(0)
    aligned = (x[200:] - x[:200].mean(0)) @ fitted.rotation
    assert score.r2 == pytest.approx(1 - ((target - aligned) ** 2).sum() / (target**2).sum(), abs=1e-12)
    cosine = (aligned * target).sum(1) / np.linalg.norm(aligned, axis=1) / np.linalg.norm(target, axis=1)
    assert score.cosine == pytest.approx(cosine.mean(), abs=1e-12)
    residual = (target - aligned).var(0).sum() / target.var(0).sum()
    assert score.residual_variance == pytest.approx(residual, abs=1e-12)
    np.testing.assert_allclose(fitted.transform(x[200:]), aligned + y[:200].mean(0), atol=1e-12)


def test_holding_out_exposes_the_overfit_of_independent_data():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 200, 100))
    fitted = hrsa.orthogonal_procrustes(x[:100], y[:100])
    assert fitted.score(x[:100], y[:100]).cosine > 0.5
    assert abs(fitted.score(x[100:], y[100:]).cosine) < 0.05


def test_inverse_row_entropy_is_one_for_axes_and_zero_when_fully_mixed():
    np.testing.assert_allclose(hrsa.inverse_row_entropy(-np.eye(8)[::-1].copy()), 1)
    np.testing.assert_allclose(hrsa.inverse_row_entropy(scipy.linalg.hadamard(8) / np.sqrt(8)), 0, atol=1e-12)
    p = np.array([0.36, 0.64])
    o = np.array([[0.6, 0.8], [-0.8, 0.6]])
    expected = 1 + (p * np.log(p)).sum() / np.log(2)
    np.testing.assert_allclose(hrsa.inverse_row_entropy(o), expected)


def test_swapped_axes_are_told_apart_from_mixed_ones():
    rng = np.random.default_rng(2)
    order = rng.permutation(20)
    swapped = np.eye(20)[order]
    mixed = scipy.linalg.qr(rng.normal(size=(20, 20)))[0]
    energy, found = hrsa.permutation_energy(swapped)
    assert energy == pytest.approx(1)
    np.testing.assert_array_equal(found, order)
    assert hrsa.diagonal_energy(swapped) < 0.3
    assert hrsa.permutation_energy(mixed)[0] < 0.5
    assert hrsa.diagonal_energy(np.eye(20)) == pytest.approx(1)


def test_rotation_angles_recover_a_known_rotation():
    angle = np.radians(30)
    o = scipy.linalg.block_diag([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], 1, -1)
    np.testing.assert_allclose(hrsa.rotation_angles(o), [0, 30, 30, 180], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [5, 12, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identical_data_are_not_rotated_whatever_their_rank(rows, seed, dtype):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(rows, 32)) * np.logspace(0, -4, 32) * 10.0 ** rng.integers(-6, 7)).astype(dtype)
    fitted = hrsa.orthogonal_procrustes(x, x)
    assert fitted.rank == min(rows - 1, 32)
    np.testing.assert_allclose(fitted.rotation, np.eye(32), atol=1e-6)


def test_of_all_best_rotations_it_is_the_one_with_the_largest_trace():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 8))
    y = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 8))
    fitted = hrsa.orthogonal_procrustes(x, y)
    cross = (x - x.mean(0)).T @ (y - y.mean(0))
    assert fitted.rank == 3
    np.testing.assert_allclose(fitted.rotation @ fitted.rotation.T, np.eye(8), atol=1e-12)
    assert np.sum(fitted.rotation * cross) == pytest.approx(np.linalg.norm(cross, "nuc"))
    # It is the limit of the fit that is drawn a little towards the identity.
    u, _, vt = np.linalg.svd(cross + 1e-7 * np.eye(8))
    np.testing.assert_allclose(fitted.rotation, u @ vt, atol=1e-6)
    null = [scipy.linalg.null_space(cross.T), scipy.linalg.null_space(cross)]
    for _ in range(20):
        turn = scipy.linalg.block_diag(scipy.linalg.qr(rng.normal(size=(5, 5)))[0])
        other = fitted.rotation + null[0] @ (turn - null[0].T @ fitted.rotation @ null[1]) @ null[1].T
        assert np.sum(other * cross) == pytest.approx(np.sum(fitted.rotation * cross))
        assert np.trace(other) < np.trace(fitted.rotation)


def _low_rank(rng, rows, rank, width):
    return rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, width)) + 2


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [((80, 6), (6, 6)), ((12, 9), (9, 9)), ((12, 20), (20, 20)), ((40, 9), (4, 9)), ((40, 9), (7, 3))],
)
def test_shape_influence_is_the_derivative_with_respect_to_row_weights(shape, ranks):
    rng = np.random.default_rng(8)
    x = _low_rank(rng, shape[0], ranks[0], shape[1])
    y = 0.5 * _low_rank(rng, shape[0], ranks[1], shape[1]) + (x if ranks[1] >= shape[1] else 0)

    def weighted(weights):
        means = [np.average(v, axis=0, weights=weights) for v in (x, y)]
        u, s, vt = np.linalg.svd((weights[:, None] * (x - means[0])).T @ (y - means[1]))
        if r := np.sum(s <= 1e-9 * s[0]):
            left, _, right = np.linalg.svd(u[:, -r:].T @ vt[-r:].T)
            vt[-r:] = left @ right @ vt[-r:]
        p = (u @ vt) ** 2
        entropy = 1 + (p * np.log(p)).sum(1) / np.log(shape[1])
        return {"inverse_row_entropy": entropy.mean(), "diagonal_energy": np.trace(p) / shape[1]}

    fitted = hrsa.orthogonal_procrustes(x, y)
    assert fitted.rank == min(*ranks, shape[0] - 1)
    found = shape_influence(fitted, x, y)
    for row in (0, 7):
        step = np.zeros(len(x))
        step[row] = 1e-5
        up, down = weighted(1 + step), weighted(1 - step)
        for name, influence in found.items():
            assert influence[row] == pytest.approx((up[name] - down[name]) / 2e-5, rel=1e-5, abs=1e-9)
            assert influence.sum() == pytest.approx(0, abs=1e-12)


def test_interval_of_row_entropy_matches_leaving_texts_out():
    rng = np.random.default_rng(9)
    texts, each, d = 200, 10, 8
    groups = np.repeat(np.arange(texts), each)
    x = rng.normal(size=(texts, d))[groups] + rng.normal(size=(texts * each, d))
    y = x + 0.8 * rng.normal(size=x.shape)
    fitted = hrsa.orthogonal_procrustes(x, y)
    influence = np.bincount(groups, shape_influence(fitted, x, y)["inverse_row_entropy"])

    def entropy(rows):
        return hrsa.inverse_row_entropy(hrsa.orthogonal_procrustes(x[rows], y[rows]).rotation).mean()

    left_out = np.array([entropy(groups != t) for t in range(texts)])
    jackknife = np.sqrt((texts - 1) / texts * ((left_out - left_out.mean()) ** 2).sum())
    assert np.sqrt((influence**2).sum()) == pytest.approx(jackknife, rel=0.05)
