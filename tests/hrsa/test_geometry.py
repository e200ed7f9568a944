"""CKA against the textbook forms in numpy float64, and against theory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from realign import hrsa
from realign.hrsa import geometry
from realign.hrsa.grids import cka_grids
from realign.hrsa.intervals import interval


def gram_biased(x, y):
    h = np.eye(len(x)) - 1 / len(x)
    k, l = h @ x @ x.T @ h, h @ y @ y.T @ h  # noqa: E741
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


def hsic1(x, y):
    """Song et al. 2012, eq. 5, as written there: zero-diagonal Grams of uncentred data."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)
    return (
        np.trace(k @ l)
        + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * one @ k @ l @ one
    ) / (n * (n - 3))


def gram_debiased(x, y):
    return hsic1(x, y) / np.sqrt(hsic1(x, x) * hsic1(y, y))


@pytest.fixture
def stacks():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(90, 10)) + 3
    xs = np.stack([base + s * rng.normal(size=base.shape) for s in (0.1, 0.5, 1.0)])
    ys = np.stack([3 * np.tanh(base / 3) + s * rng.normal(size=base.shape) for s in (0.2, 0.8)])
    return xs, ys


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-6)])
@pytest.mark.parametrize("method", ["gram", "feature", "auto"])
def test_every_exact_form_equals_the_textbook_gram_form(stacks, dtype, tolerance, method):
    xs, ys = (s.astype(dtype) for s in stacks)
    for estimator, reference in (("biased", gram_biased), ("debiased", gram_debiased)):
        expected = [[reference(x.astype(float), y.astype(float)) for y in ys] for x in xs]
        got = hrsa.cka_grid(xs, ys, estimator=estimator, method=method, block=17)
        np.testing.assert_allclose(got, expected, rtol=tolerance)
        assert hrsa.linear_cka(xs[1], ys[1], estimator=estimator) == pytest.approx(expected[1][1], rel=1e-10)


def test_a_grid_of_a_model_with_itself_has_ones_on_the_diagonal_and_is_symmetric(stacks):
    for method in ("gram", "feature"):
        for grid, _ in cka_grids(stacks[0], stacks[0], method=method).values():
            np.testing.assert_allclose(np.diag(grid), 1, atol=1e-12)
            np.testing.assert_allclose(grid, grid.T, atol=1e-12)


def test_layers_of_different_width_and_torch_input_are_fine(stacks):
    xs, ys = stacks
    ragged = [torch.from_numpy(xs[0]), torch.from_numpy(xs[1][:, :4].copy())]
    got = hrsa.cka_grid(ragged, ys, method="auto")
    assert got[1, 0] == pytest.approx(gram_debiased(xs[1][:, :4], ys[0]), rel=1e-10)


def test_large_float32_offsets_and_massive_dimensions_do_not_break_precision(stacks):
    x, y = stacks[0][0].copy(), stacks[1][0].copy()
    x[:, 0] *= 300
    x += 1000
    expected = gram_debiased(x.astype(np.float32).astype(float), y)
    got = hrsa.cka_grid([x.astype(np.float32)], [y.astype(np.float32)])[0, 0]
    assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("n", "repeats"), [(100, 40), (500, 10), (4000, 1)])
def test_debiased_cka_of_independent_gaussians_is_centred_on_zero(n, repeats):
    rng = np.random.default_rng(n)
    d = 1536
    xs = rng.standard_normal((repeats, n, d), dtype=np.float32)
    ys = rng.standard_normal((repeats, n, d), dtype=np.float32)
    found = [cka_grids(x[None], y[None]) for x, y in zip(xs, ys, strict=True)]
    # Under independence HSIC_1 has standard deviation sqrt(2) / n relative to its scale.
    error = np.sqrt(2) / n / np.sqrt(repeats)
    assert abs(np.mean([f["debiased"][0] for f in found])) < 4 * error
    assert np.mean([f["biased"][0] for f in found]) > 0.25  # what the debiasing is for


def test_influence_of_parts_on_every_cell_is_the_sum_of_the_influences_of_their_rows(stacks):
    xs, ys = stacks
    parts = np.random.default_rng(1).integers(0, 7, size=90)
    for block in (8, 256):
        found = cka_grids(xs, ys, parts=parts, block=block)
        for i, j in ((0, 0), (2, 1)):
            one = hrsa.cka_with_influence(xs[i], ys[j])
            for name, rows in (("biased", one.biased_influence), ("debiased", one.influence)):
                grid, influence = found[name]
                assert grid[i, j] == pytest.approx(getattr(one, name), rel=1e-10)
                np.testing.assert_allclose(influence[:, i, j], np.bincount(parts, rows), atol=1e-12)


def test_minibatch_is_unbiased_and_equals_the_exact_value_for_one_batch(stacks):
    xs, ys = stacks
    one = hrsa.cka_grid(xs, ys, method="minibatch", batch=90)
    np.testing.assert_allclose(one, hrsa.cka_grid(xs, ys), rtol=1e-10)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4096, 32))
    y = x @ rng.normal(size=(32, 32)) + 3 * rng.normal(size=(4096, 32))
    exact = hrsa.linear_cka(x, y, estimator="debiased")
    assert hrsa.cka_grid([x], [y], method="minibatch")[0, 0] == pytest.approx(exact, abs=0.005)


def test_one_percent_of_sink_rows_fakes_debiased_cka_and_the_diagnostics_show_it():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 1000, 64))
    x[:10] += 10 * rng.normal(size=64)
    y[:10] += 10 * rng.normal(size=64)
    assert hrsa.linear_cka(x, y, estimator="debiased") > 0.9
    assert abs(hrsa.linear_cka(x[10:], y[10:], estimator="debiased")) < 0.02
    found = hrsa.energy(x)
    assert found.top_rows > 0.3
    marked = geometry.sinks(torch.from_numpy(x))
    np.testing.assert_array_equal(np.flatnonzero(marked), np.arange(10))


def test_energy_shares_equal_their_definitions():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(500, 20)) * np.r_[10, np.ones(19)]
    squared = (x - x.mean(0)) ** 2
    found = hrsa.energy(x)
    assert found.top_dimension == pytest.approx(squared.sum(0).max() / squared.sum())
    assert found.top_rows == pytest.approx(np.sort(squared.sum(1))[-5:].sum() / squared.sum())


@pytest.mark.parametrize("shape", [(60, 8), (30, 50)])
def test_influence_is_the_derivative_of_debiased_cka_with_respect_to_row_weights(shape):
    """Against leaving rows out: the jackknife difference tends to the influence as n grows."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=shape)
    y = x + 0.7 * rng.normal(size=shape)
    found = hrsa.cka_with_influence(x, y)
    assert found.debiased == pytest.approx(gram_debiased(x, y), rel=1e-10)
    assert found.biased == pytest.approx(gram_biased(x, y), rel=1e-10)
    assert found.influence.sum() == pytest.approx(0, abs=1e-10)
    left_out = [gram_debiased(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(len(x))]
    drop = found.debiased - np.array(left_out)
    assert np.corrcoef(drop, found.influence)[0, 1] > 0.99
    assert np.std(found.influence) / np.std(drop) == pytest.approx(1, abs=0.2)


def test_interval_over_texts_of_debiased_cka_covers_the_truth():
    """Tokens share their text's effect; the truth follows from the population covariances."""
    rng = np.random.default_rng(7)
    d, texts, each, trials = 5, 300, 2, 500
    mix = rng.normal(size=(d, d))
    spread = np.linspace(0.5, 2, d)
    cov_x = np.diag(spread**2)
    cov_xy = cov_x @ mix
    cov_y = mix.T @ cov_x @ mix + 4 * np.eye(d)
    truth = (cov_xy**2).sum() / np.sqrt((cov_x**2).sum() * (cov_y**2).sum())
    groups = np.repeat(np.arange(texts), each)
    share = 0.5  # of the variance that a text's tokens have in common

    def states():
        common, own = rng.normal(size=(texts, d))[groups], rng.normal(size=(texts * each, d))
        return np.sqrt(share) * common + np.sqrt(1 - share) * own

    hits = 0
    for _ in range(trials):
        x = states() * spread
        y = x @ mix + 2 * states()
        found = hrsa.cka_with_influence(x, y)
        influence = np.bincount(groups, found.influence, minlength=texts)
        low, high = interval(found.debiased, influence, "correlation")
        hits += low <= truth <= high
    assert 0.92 <= hits / trials <= 0.98


GRIDS_MEMORY = """
import re
from pathlib import Path
import numpy as np
from realign.hrsa.correlation import correlation_grid_by_part
from realign.hrsa.grids import cka_grids

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024

rng = np.random.default_rng(0)
small = rng.normal(size=(2, 64, 8)).astype(np.float32)
for run in (cka_grids, correlation_grid_by_part):
    run(small, small, parts=np.arange(64) % 4)
x, y = (rng.standard_normal((24, 4096, 256), dtype=np.float32) for _ in range(2))
before = peak()
for run in (cka_grids, correlation_grid_by_part):
    run(x, y, parts=np.arange(4096) % 8)
print(peak() - before, (x.nbytes + y.nbytes) / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's account of peak memory")
def test_grids_of_all_layers_hold_no_second_copy_of_the_states():
    # Large blocks are given back at once, so that the peak is what is held and not what an allocator keeps.
    env = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}
    done = subprocess.run(
        [sys.executable, "-c", GRIDS_MEMORY], capture_output=True, text=True, check=True, timeout=300, env=env
    )
    grown, states = map(float, done.stdout.split())
    assert states == 192
    assert grown < 0.75 * states
