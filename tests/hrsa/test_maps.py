"""Models on a plane: like models lie close together."""

import numpy as np
import pytest

from realign import hrsa
from realign.hrsa.maps import plane


def test_mds_recovers_a_plane_up_to_rotation():
    points = np.random.default_rng(7).normal(size=(9, 2))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    placed = plane(distance)
    np.testing.assert_allclose(np.linalg.norm(placed[:, None] - placed[None], axis=2), distance, atol=1e-8)
    with pytest.raises(ValueError, match="symmetric"):
        plane(np.arange(9.0).reshape(3, 3))


def test_items_on_a_line_have_no_second_axis():
    distance = np.abs(np.subtract.outer([0.0, 1.0, 5.0], [0.0, 1.0, 5.0]))
    placed = plane(distance)
    np.testing.assert_allclose(placed[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(np.subtract.outer(placed[:, 0], placed[:, 0])), distance, atol=1e-8)
    assert placed[np.abs(placed[:, 0]).argmax(), 0] > 0


def test_models_map_by_distance():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(7, 60, 5, 12)) + rng.normal(size=(60, 1, 12))
    texts = np.repeat(np.arange(60), 5)

    def model(noise, seed):
        moved = states + noise * np.random.default_rng(seed).normal(size=states.shape)
        values = moved.astype(np.float32).reshape(7, 300, 12)
        rows = np.arange(300)
        means = moved.mean(2).astype(np.float32)
        return hrsa.Activations(values, texts, rows, rows % 5, means, np.arange(60, dtype=np.uint64))

    models = dict(zip("abc", (model(0, 0), model(0.3, 1), model(1.5, 2)), strict=True))
    drawn = hrsa.models_map(models, tokens=300)
    distance = drawn.distances.set_index(["a", "b"])["value"]
    assert distance["a", "b"] < distance["a", "c"]
    assert list(drawn.places["model"]) == ["a", "b", "c"]
    assert 0.9 < drawn.explained <= 1
