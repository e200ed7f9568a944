"""On a GPU every metric gives what it gives on the CPU, TF32 off."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from realign import hrsa

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def test_metrics_on_cuda_equal_metrics_on_the_cpu_even_when_tf32_is_allowed():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((600, 48), dtype=np.float32)) + 1
    y = x + 0.5 * torch.from_numpy(rng.standard_normal((600, 48), dtype=np.float32))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        for metric in (
            hrsa.dimension_correlation,
            hrsa.linear_cka,
            lambda a, b: hrsa.cka_grid([a], [b], method="gram")[0, 0],
            lambda a, b: hrsa.knn_overlap(a, b, k=10, groups=np.arange(600) // 5).overlap,
            lambda a, b: hrsa.orthogonal_procrustes(a, b).score(a, b).r2,
        ):
            np.testing.assert_allclose(metric(x.cuda(), y.cuda()), metric(x, y), rtol=2e-5)
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_whole_report_on_cuda_equals_the_one_on_the_cpu():
    rng = np.random.default_rng(1)
    texts = np.repeat(np.arange(60), 8)

    def model(noise):
        shared = np.random.default_rng(2).standard_normal((3, len(texts), 24))
        states = (shared + noise * rng.standard_normal(shared.shape)).astype(np.float32)
        pooled = states.reshape(3, 60, 8, 24).mean(2)
        keys = np.arange(60, dtype=np.uint64)
        return hrsa.Activations(states, texts, texts, np.tile(np.arange(8), 60), pooled, keys)

    a, b = model(0.0), model(0.5)
    settings = SimpleNamespace(cka_tokens=480, knn_tokens=480, k=(5,), resamples=50, seed=0)
    here, there = (hrsa.compare_activations(a, b, settings, device=d) for d in ("cpu", "cuda"))
    pd.testing.assert_frame_equal(there.table, here.table, rtol=1e-3, atol=1e-2)
    for name, frame in here.details.items():
        pd.testing.assert_frame_equal(there.detail(name), frame, rtol=1e-3, atol=1e-2)
