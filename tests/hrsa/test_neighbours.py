"""Neighbours against scikit-learn and against a plain loop; ties, copies and texts by rule."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from realign import hrsa


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, 16)) + 1
    return x, x + rng.normal(size=x.shape)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [10, 64, 360, 4096])
def test_neighbours_equal_scikit_learn_whatever_the_tile(pair, metric, block):
    x = pair[0].astype(np.float32)
    expected = NearestNeighbors(n_neighbors=20, metric=metric, algorithm="brute").fit(x.astype(float))
    got = hrsa.nearest(x, 20, metric=metric, block=block)
    # kneighbors() without data leaves each row itself out
    agree = (got == expected.kneighbors(return_distance=False)).mean()
    assert agree > 0.999


def naive(x, y, k, groups):
    def lists(v):
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
        similarity = v @ v.T
        similarity[groups[:, None] == groups[None, :]] = -np.inf
        return np.argsort(-similarity, axis=1, kind="stable")[:, :k]

    shared = [len(set(a) & set(b)) for a, b in zip(lists(x), lists(y), strict=True)]
    return np.array(shared)


def test_overlap_jaccard_and_chance_equal_their_definitions(pair):
    x, y = pair
    texts = np.random.default_rng(1).integers(0, 100, len(x))
    found = hrsa.knn_overlap(x, y, k=(5, 50), groups=texts)
    for i, k in enumerate((5, 50)):
        shared = naive(x, y, k, texts)
        np.testing.assert_allclose(found.overlap_rows[i], shared / k)
        np.testing.assert_allclose(found.jaccard_rows[i], shared / (2 * k - shared))
        available = np.array([(texts != t).sum() for t in texts])
        np.testing.assert_allclose(found.chance_rows[i], k / available)
    corrected = (found.overlap_rows - found.chance_rows) / (1 - found.chance_rows)
    np.testing.assert_allclose(found.corrected, corrected.mean(1))


def test_excluding_texts_is_the_same_whether_or_not_their_tokens_lie_together(pair):
    x, y = pair
    texts = np.repeat(np.arange(100), 7)
    order = np.random.default_rng(2).permutation(len(x))
    together = hrsa.knn_overlap(x, y, k=10, groups=texts)
    for block in (50, 2048):
        apart = hrsa.knn_overlap(x[order], y[order], k=10, groups=texts[order], block=block)
        np.testing.assert_allclose(together.overlap_rows[:, order], apart.overlap_rows)
        tiled = hrsa.knn_overlap(x, y, k=10, groups=texts, block=block)
        np.testing.assert_allclose(together.overlap_rows, tiled.overlap_rows)


def test_independent_data_is_at_chance_and_corrected_to_zero():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 2000, 8))
    found = hrsa.knn_overlap(x, y, k=(10, 50), groups=np.arange(2000) // 10)
    np.testing.assert_allclose(found.overlap, found.chance, rtol=0.15)
    np.testing.assert_allclose(found.corrected, 0, atol=0.003)


def test_exact_copies_are_neighbours_in_row_order_and_a_model_agrees_with_itself():
    """Layer 0 of a model with rotary positions: every occurrence of a token has the same state."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(6, 9)).astype(np.float32)[np.arange(300) % 6]
    got = hrsa.nearest(x, 10)
    for row in (0, 7, 299):
        copies = [j for j in range(300) if j % 6 == row % 6 and j != row]
        assert got[row].tolist() == copies[:10]
    found = hrsa.knn_overlap(x, 3 * x, k=(5, 10, 50))
    np.testing.assert_allclose(found.overlap, 1)


@pytest.mark.parametrize("block", [2, 3, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_similarities_of_different_rows_are_taken_in_row_order(dtype, block):
    # 8 rows at equal angles from row 0, on both sides
    x = np.zeros((9, 9), dtype=dtype)
    x[:, 0] = 1
    x[np.arange(1, 9), np.arange(1, 9)] = [1, -1, 1, -1, 1, -1, 1, -1]
    assert hrsa.nearest(x, 4, block=block)[0].tolist() == [1, 2, 3, 4]


def test_ties_across_tiles_that_are_searched_by_runs_are_taken_in_row_order():
    x = np.random.default_rng(6).choice([-1.0, 1.0], size=(600, 64)).astype(np.float32)  # exact products
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :12]
    np.testing.assert_array_equal(hrsa.nearest(x, 12, block=250), expected)


def test_negative_similarities_keep_their_order_when_packed():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    x = np.concatenate([x, -x, x[:5]])  # copies force the packed path
    values = x.astype(float) / np.linalg.norm(x, axis=1, keepdims=True)
    got = hrsa.nearest(x, 84)
    similarity = np.take_along_axis(values @ values.T, got, axis=1)
    assert (np.diff(similarity, axis=1) <= 1e-6).all()
    assert all(row not in got[row] for row in range(85))
