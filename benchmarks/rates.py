"""How fast this processor multiplies matrices."""

from __future__ import annotations

import time

import torch


def matrix_product_rate(dtype: torch.dtype) -> float:
    """GFLOPS of the product of two matrices of 2048 x 2048: the best of five."""
    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(seconds) / 1e9
