"""Weight updates: sizes, ranks and directions agree with constructions whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from realign.behaviour import updates


def test_effective_rank_counts_equal_directions() -> None:
    assert updates.effective_rank(torch.tensor([3.0, 3.0, 3.0])) == pytest.approx(3)
    assert updates.effective_rank(torch.tensor([5.0, 0.0])) == pytest.approx(1)


def test_subspace_overlap_is_the_mean_squared_cosine_of_scipys_principal_angles() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.linalg.qr(rng.normal(size=(30, k)))[0] for k in (4, 7))
    expected = np.mean(np.cos(subspace_angles(a, b)) ** 2)
    assert updates.subspace_overlap(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=1e-6)


def test_overlap_of_random_directions_is_the_stated_chance() -> None:
    rng = np.random.default_rng(1)
    overlaps = []
    for _ in range(300):
        a, b = (np.linalg.qr(rng.normal(size=(48, 4)))[0] for _ in range(2))
        overlaps.append(updates.subspace_overlap(torch.tensor(a), torch.tensor(b)))
    assert np.mean(overlaps) == pytest.approx(4 / 48, abs=3 * np.std(overlaps) / math.sqrt(300))


def test_a_low_rank_update_is_measured_as_it_was_made() -> None:
    torch.manual_seed(0)
    base = torch.randn(64, 40)
    u, v = torch.linalg.qr(torch.randn(64, 3))[0], torch.linalg.qr(torch.randn(40, 3))[0]
    delta = 0.5 * u @ v.T
    [update] = updates.updates(
        {"model.layers.2.mlp.up_proj.weight": base},
        {"model.layers.2.mlp.up_proj.weight": base + delta},
        rank=3,
    ).values()
    assert (update.layer, update.module) == (2, "up_proj")
    assert update.size == pytest.approx(float(delta.norm() / base.norm()), rel=1e-5)
    assert update.rank == pytest.approx(3, abs=1e-3)
    assert updates.subspace_overlap(update.left[:, :3], u) == pytest.approx(1, abs=1e-4)
    assert updates.subspace_overlap(update.right[:, :3], v) == pytest.approx(1, abs=1e-4)


def test_an_update_along_the_bases_own_directions_is_update_there() -> None:
    torch.manual_seed(0)
    u, s, vh = torch.linalg.svd(torch.randn(64, 48))
    s = torch.linspace(10, 0.1, 48)
    base = u[:, :48] * s @ vh
    inside = base + 0.1 * u[:, :4] @ vh[:4]
    outside = base + 0.1 * u[:, 40:44] @ vh[40:44]
    near, far = (updates.update_of(base, tuned, 0, "q_proj", rank=4) for tuned in (inside, outside))
    assert near is not None
    assert far is not None
    assert near.overlap["left"] > 0.99
    assert near.overlap["right"] > 0.99
    assert far.overlap["left"] < 0.01


def test_moved_is_the_share_of_bfloat16_entries_that_change() -> None:
    base = torch.ones(10, 10)
    tuned = base.clone()
    tuned[0, :7] += 0.1
    tuned[1, :5] += 1e-4  # below half a unit of bfloat16 at 1
    update = updates.update_of(base, tuned, 0, "q_proj")
    assert update is not None
    assert update.moved == pytest.approx(0.07)
    assert updates.update_of(base, base, 0, "q_proj") is None


def test_agreement_is_one_with_itself_and_chance_with_a_stranger() -> None:
    torch.manual_seed(0)
    name = "layers.0.self_attn.q_proj.weight"
    base = {name: torch.randn(200, 150)}

    def tuned() -> dict[str, torch.Tensor]:
        return {name: base[name] + torch.randn(200, 4) @ torch.randn(4, 150)}

    one, two = (updates.updates(base, tuned(), rank=4) for _ in range(2))
    same, other = updates.agreement(one, one), updates.agreement(one, two)
    assert same["left"][0] == pytest.approx(1, abs=1e-4)
    assert other["left"][0] < 0.1
    assert other["left_chance"][0] == pytest.approx(4 / 200)


def test_other_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="same linear layers"):
        updates.updates({"layers.0.q.weight": torch.ones(2, 2)}, {"layers.1.q.weight": torch.ones(2, 2)})
