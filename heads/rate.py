"""How fast this machine multiplies matrices: what a run's speed is held against."""

import time

import torch

_SIZE = {"cpu": 2048, "cuda": 8192}
_SECONDS = 1.0


def product_rate(precision: str, device: str) -> float:
    """FLOP a second of large square matrix products, the best of about a second of trials.

    Args:
        precision: fp32 or bf16.
        device: cpu or cuda.
    """
    size = _SIZE["cuda" if device.startswith("cuda") else "cpu"]
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < _SECONDS:
        started = time.perf_counter()
        torch.matmul(a, a)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
