"""What every metric asks of its input, checked once."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from guardtrain.errors import DataError

Pairs: TypeAlias = tuple[Tensor | np.ndarray, Tensor | np.ndarray]


def checked_probs(probs: Tensor) -> Tensor:
    """`probs` as float32 or float64; raises DataError unless all of it lies in [0, 1]."""
    if not probs.is_floating_point():
        raise DataError(f"Probabilities must be floats; they are {probs.dtype}.")
    if probs.dtype not in (torch.float32, torch.float64):
        probs = probs.float()
    if probs.numel():
        low, high = (float(v) for v in torch.aminmax(probs.detach()))
        if not (low >= 0 and high <= 1):  # also refuses NaN
            raise DataError(
                f"Probabilities must lie in [0, 1]; they lie in [{low:.6g}, {high:.6g}]. "
                "Pass sigmoid(logits), not logits; a NaN means that training diverged."
            )
    return probs


def checked_logits(logits: Tensor, probs: Tensor) -> Tensor:
    """`logits` as float32 or float64, on the device of `probs`; raises DataError for NaN or another shape."""
    if logits.shape != probs.shape or not logits.is_floating_point():
        raise DataError(
            f"Logits must be floats of the shape of the probabilities, {tuple(probs.shape)}; they are {logits.dtype} "
            f"of {tuple(logits.shape)}."
        )
    if logits.isnan().any():
        raise DataError("Logits must not be NaN; training diverged.")
    return (logits if logits.dtype in (torch.float32, torch.float64) else logits.float()).to(probs.device)


def checked(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(R, N) probabilities and (N,) labels, the labels as int64 on the same device; raises DataError."""
    if probs.ndim != 2 or labels.shape != probs.shape[1:]:
        raise DataError(
            f"Metrics take probabilities (R, N) and labels (N,); they have shapes {tuple(probs.shape)} and "
            f"{tuple(labels.shape)}. Give a single head's as probs[None]."
        )
    return checked_probs(probs), checked_labels(labels).to(probs.device)


def checked_labels(labels: Tensor) -> Tensor:
    """`labels` as int64; raises DataError unless all are 0 (safe) or 1 (unsafe)."""
    if not ((labels == 0) | (labels == 1)).all():
        raise DataError(f"Labels must be 0 (safe) or 1 (unsafe); they are {labels.unique().tolist()[:10]}.")
    return labels.long()


def checked_pairs(pairs: Pairs, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(P,) int64 columns of the safe and of the unsafe halves, on `device`; raises DataError."""
    safe, unsafe = (torch.as_tensor(half, device=device) for half in pairs)
    if safe.ndim != 1 or safe.shape != unsafe.shape:
        raise DataError(
            f"Pairs are two index arrays (P,), of the safe and of the unsafe halves; they have shapes "
            f"{tuple(safe.shape)} and {tuple(unsafe.shape)}."
        )
    for half in (safe, unsafe):
        if half.numel() and (half.is_floating_point() or half.dtype == torch.bool):
            raise DataError(f"Pair indices must be whole numbers; they are {half.dtype}.")
        if half.numel() and not (int(half.min()) >= 0 and int(half.max()) < n):
            raise DataError(
                f"Pair indices must lie in [0, {n}), the number of images; they lie in "
                f"[{int(half.min())}, {int(half.max())}]."
            )
    return safe.long(), unsafe.long()
