"""The linear head: logistic regression on the embedding, the linear probe of CLIP and UnsafeBench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from guardtrain.heads.bank import HeadBank


@dataclass
class LinearHead:
    """One weight vector and a bias.

    >>> bank = LinearHead().bank(heads=3, dim=8)
    >>> bank(torch.zeros(5, 8)).shape
    torch.Size([3, 5])
    """

    name: str = "linear"
    convex: ClassVar[bool] = True

    def bank(self, heads: int, dim: int) -> LinearBank:
        """R untrained linear heads on D-dimensional embeddings."""
        return LinearBank(heads, dim)


class LinearBank(HeadBank):
    """R linear heads; the loss is convex, so they start at zero and the seed does not matter to them."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__(heads, dim)
        self.weight = nn.Parameter(torch.zeros(heads, dim, 1))
        self.bias = nn.Parameter(torch.zeros(heads, 1))

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        return self.standardised_product(x, self.weight, self.bias).squeeze(-1)

    def on_raw_input(self) -> tuple[Tensor, Tensor]:
        """Weights `(R, D)` and biases `(R,)` that give the same logits on embeddings as they are, not standardised."""
        weight = self.weight[:, :, 0] / self.input_scale[:, None]
        return weight, self.bias[:, 0] - (self.input_mean * weight).sum(1)

    def reset_head(self, r: int, generator: torch.Generator) -> None:
        self.weight[r].zero_()
        self.bias[r].zero_()
