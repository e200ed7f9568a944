"""Landscape and trajectories: measures agree with cases whose answer is known, and with plain formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from realign.behaviour import landscape as land
from realign.config import Backbone
from realign.models import loading

TINY = Backbone(source="random:0/llama")


def paths(rng: np.random.Generator, n: int = 30, shift: float = 0.0, scale: float = 1.0) -> list[np.ndarray]:
    return [rng.normal(size=(int(rng.integers(2, 6)), 3)) * scale + shift for _ in range(n)]


def test_a_map_places_its_own_texts_at_unit_spread_around_the_origin() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(500, 8)) * np.array([1, 50, *[2] * 6]) + 7
    chart = land.fit_map(states, components=8, regions=5)
    placed = chart(states)
    assert np.allclose(placed.mean(axis=0), 0, atol=1e-9)
    assert np.sqrt((placed**2).sum(axis=1).mean()) == pytest.approx(1)
    assert set(chart.regions(placed)) == set(range(5))
    with pytest.raises(ValueError, match="needs more than 4 states"):
        land.fit_map(states[:4], components=4, regions=2)


def test_energy_distance_is_zero_for_one_distribution_and_grows_to_one() -> None:
    rng = np.random.default_rng(1)
    same = [float(land.energy_distance(paths(rng), paths(rng))) for _ in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(40) + 1e-3
    near, far = (float(land.energy_distance(paths(rng), paths(rng, shift=s))) for s in (1, 50))
    assert 0.02 < near < far
    assert far == pytest.approx(1, abs=0.05)


def test_energy_distance_is_the_plain_formula_over_other_prompts() -> None:
    rng = np.random.default_rng(2)
    a, b = paths(rng, 4), paths(rng, 4, shift=0.5)

    def mean(x: list[np.ndarray], y: list[np.ndarray]) -> float:
        distances = [
            np.linalg.norm(p - q)
            for i, s in enumerate(x)
            for j, t in enumerate(y)
            if i != j
            for p in s
            for q in t
        ]
        return float(np.mean(distances))

    expected = (2 * mean(a, b) - mean(a, a) - mean(b, b)) / (2 * mean(a, b))
    assert land.energy_distance(a, b) == pytest.approx(expected)


def test_bootstrap_weights_of_one_give_the_plain_value() -> None:
    rng = np.random.default_rng(3)
    a, b = paths(rng), paths(rng, shift=1)
    same = [p + 0.5 for p in a]
    chart = land.fit_map(np.concatenate(a), components=2, regions=3)
    placed = [[chart(p) for p in side] for side in (a, b)]
    ones = np.ones((2, len(a)))
    for measure in (
        lambda w: land.energy_distance(a, b, w),
        lambda w: land.occupancy_distance(*placed, chart, w),
        lambda w: land.spread(a, w),
        lambda w: land.step_length(a, w),
        lambda w: land.shift(a, same, w),
    ):
        assert measure(ones) == pytest.approx([measure(None)] * 2)


def test_spread_step_and_shift_of_a_small_case() -> None:
    one, two = np.array([[0.0, 0], [3, 4]]), np.array([[0.0, 0]])
    assert land.step_length([one, two]) == pytest.approx(5)
    assert land.spread([one]) == pytest.approx(2.5)
    assert land.shift([one, two], [one, two + np.array([0, 3])]) == pytest.approx(1)


def test_divergence_is_the_square_of_scipys_distance_in_bits() -> None:
    rng = np.random.default_rng(4)
    p, q = rng.dirichlet(np.ones(9), size=2)
    divergence = land.jensen_shannon(torch.tensor(np.log(p)), torch.tensor(np.log(q)))
    assert float(divergence) == pytest.approx(jensenshannon(p, q, base=2) ** 2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield loading.load_lm(TINY)


def test_written_texts_repeat_with_the_seed_and_are_read_token_by_token(tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    prompts = ["one", "a longer prompt", "b"]
    written = land.write(model, tokenizer, prompts, length=4, seed=0)
    assert written == land.write(model, tokenizer, prompts, length=4, seed=0)
    states = land.read(model, written, tokenizer.pad_token_id)
    assert [len(s) for s in states] == [len(c) for c in written.completions]
    alone = land.Written(written.prompts[2:], written.completions[2:])
    assert np.allclose(states[2], land.read(model, alone, tokenizer.pad_token_id)[0], atol=1e-5)


def test_a_model_agrees_with_itself_and_less_with_another(tiny) -> None:
    model, tokenizer = tiny
    other, _ = loading.load_lm(Backbone(source="random:1/llama"))
    written = land.write(model, tokenizer, ["one", "two words"], length=5, seed=0)
    same = land.next_token_agreement(model, model, written, tokenizer.pad_token_id)
    assert (same["top1"] == 1).all()
    assert same["js"].abs().max() < 1e-6
    assert (land.next_token_agreement(model, other, written, tokenizer.pad_token_id)["js"] > 1e-4).all()
