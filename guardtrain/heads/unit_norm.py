"""Banks that read directions: the input is normalised to unit length, as in CLIP's own space, and never centred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guardtrain.heads.bank import HeadBank, batched_affine


class UnitNormBank(HeadBank):
    """R heads on unit-norm input; text anchors live in that space, so the input is not standardised."""

    def fit_input(self, embeddings: Tensor, indices: Sequence[Tensor]) -> None:
        """Do nothing: the input's length is divided out, and its mean is part of the direction."""

    @staticmethod
    def unit(x: Tensor) -> Tensor:
        """`x` `(..., D)` with rows of unit norm; a row of zeros stays."""
        return F.normalize(x, dim=-1)

    def reset_head(self, r: int, generator: torch.Generator) -> None:
        for parameter in self.parameters():
            parameter[r].zero_()


class UnitLinearBank(UnitNormBank):
    """R linear heads on unit-norm input: `x̂ᵀw + b` with `weight` `(R, D, 1)` and `bias` `(R, 1)`."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__(heads, dim)
        self.weight = nn.Parameter(torch.zeros(heads, dim, 1))
        self.bias = nn.Parameter(torch.zeros(heads, 1))

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        x = self.unit(x)
        if x.ndim == 3:
            return batched_affine(x, self.weight, self.bias).squeeze(-1)
        return self.weight[:, :, 0] @ x.T + self.bias


def unit_linear_bank(weight: np.ndarray, bias: float = 0.0) -> UnitLinearBank:
    """A bank of one head from its weights `(D,)`."""
    bank = UnitLinearBank(1, len(weight))
    with torch.no_grad():
        bank.weight[0, :, 0] = torch.from_numpy(weight)
        bank.bias[0, 0] = float(bias)
    return bank


def unit_rows(x: np.ndarray) -> np.ndarray:
    """`(n, D)` float64 rows of unit norm; a row of zeros stays."""
    x = np.asarray(x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
