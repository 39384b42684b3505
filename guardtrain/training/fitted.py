"""Trained heads, and the scores that they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guardtrain.heads import HeadBank

SCORED_AT_ONCE = 2**26  # numbers in the layers of all heads: 256 MiB


@dataclass(frozen=True)
class FittedBank:
    """R trained heads with the hyper-parameters they were trained with.

    Args:
        banks: the heads, in one bank or several, in the order of the plans.
        lr, l2, steps: `(R,)`.
        failed: `(R,)` bool: heads that are not finite, and why they are not is in the images or the settings.
        seconds: the training took.
    """

    banks: Sequence[HeadBank]
    lr: np.ndarray
    l2: np.ndarray
    steps: np.ndarray
    failed: np.ndarray
    seconds: float

    @property
    def bank(self) -> HeadBank:
        """The one bank all heads are in."""
        (bank,) = self.banks
        return bank

    @torch.inference_mode()
    def probabilities(self, embeddings: Tensor, rows: int = 4096) -> Tensor:
        """`(R, N)` float32 probabilities of being unsafe for embeddings `(N, D)` float32, `rows` at a time.

        NaN for heads that failed.
        """
        return self._scores(embeddings, rows, torch.sigmoid)

    @torch.inference_mode()
    def logits(self, embeddings: Tensor, rows: int = 4096) -> Tensor:
        """`(R, N)` float32 logits, as `probabilities`."""
        return self._scores(embeddings, rows, lambda logits: logits)

    def _scores(self, embeddings: Tensor, rows: int, of_logits: Callable[[Tensor], Tensor]) -> Tensor:
        found = torch.cat([_scored(bank, embeddings, rows, of_logits) for bank in self.banks])
        found[torch.from_numpy(self.failed)] = torch.nan
        return found


def _scored(bank: HeadBank, embeddings: Tensor, rows: int, of_logits: Callable[[Tensor], Tensor]) -> Tensor:
    """`(R, N)` scores; fewer rows at a time (a power of two) where the layers of all heads are wide."""
    width = sum(p.shape[0] * p.shape[-1] for p in bank.parameters() if p.ndim == 3)
    while rows > 64 and rows * width > SCORED_AT_ONCE:
        rows //= 2
    return torch.cat([of_logits(bank(block)) for block in embeddings.split(rows)], dim=1)
