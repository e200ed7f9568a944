"""On a GPU every metric gives what it gives on the CPU, TF32 off."""

import numpy as np
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
