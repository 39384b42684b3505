"""The matrix products of training: which precision they take, and float32 ones by the faster of torch's libraries."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from guardtrain.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16")
FEWEST_ROWS = 48  # with fewer rows a batch, rounding the weights to bfloat16 costs what the products save


def product_dtype(precision: str, device: torch.device, rows: int) -> torch.dtype:
    """The type to which the factors of training's products are rounded; sums are float32 in any case.

    Args:
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 where the processor has instructions for it and the batch
            has rows enough to gain by it.
        device: where the products run.
        rows: rows of a batch.

    Raises:
        ConfigError: another precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"the precision of products is '{precision}'; allowed: {', '.join(PRECISIONS)}.")
    if precision == "auto":
        precision = "bfloat16" if rows >= FEWEST_ROWS and _has_bfloat16(device.type) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@functools.cache
def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device == "cpu" and check is not None and bool(check())


@contextmanager
def fast_float32_products() -> Iterator[None]:
    """Inside, float32 products on the CPU run in oneDNN where it keeps float32's precision, not in MKL.

    torch sends float32 products to MKL, which leaves half of an AMD processor's vector units idle. Allowing bfloat16
    inside products sends them to oneDNN, which makes use of that leave on processors with matrix tiles (AMX) only
    and is exact, and more than twice as fast, on the others. So the leave is given where a trial product shows that it
    changes nothing; products on other devices are as they were.
    """
    if not _onednn_keeps_precision():
        yield
        return
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


@functools.cache
def _onednn_keeps_precision() -> bool:
    """Whether batched products with the leave to use bfloat16 have float32's rounding error, not bfloat16's."""
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None or not hasattr(settings, "fp32_precision") or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, 128, 128, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        error = (torch.bmm(left, right) - exact).abs().max()
    finally:
        settings.fp32_precision = before
    return bool(error < 1e-3)  # float32: 1e-5, bfloat16: 0.1
