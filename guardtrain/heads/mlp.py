"""The MLP head: ReLU layers on the embedding, as LAION's NSFW detector and MultiHeaded use."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from guardtrain.errors import ConfigError
from guardtrain.heads.bank import HeadBank, batched_affine


@dataclass
class MLPHead:
    """ReLU layers of the given widths, then one logit.

    Args:
        hidden: widths of the hidden layers.
        dropout: share of hidden units dropped in training, in [0, 1).

    >>> MLPHead(hidden=[4]).bank(heads=2, dim=8)(torch.zeros(5, 8)).shape
    torch.Size([2, 5])
    """

    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [64])
    dropout: float = 0.0
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"head.hidden lists the widths of one or more hidden layers, each >= 1; got {self.hidden}."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"head.dropout is a share in [0, 1); got {self.dropout}.")

    def bank(self, heads: int, dim: int) -> MLPBank:
        """R untrained MLP heads on D-dimensional embeddings."""
        return MLPBank(heads, dim, self.hidden, self.dropout)


class MLPBank(HeadBank):
    """R MLP heads; weights start as torch's `Linear` does (uniform in ±1/√fan_in), each head from its own seed."""

    def __init__(self, heads: int, dim: int, hidden: list[int], dropout: float) -> None:
        super().__init__(heads, dim)
        self.dropout = dropout
        widths = [dim, *hidden, 1]
        self.weights = nn.ParameterList(torch.empty(heads, i, o) for i, o in itertools.pairwise(widths))
        self.biases = nn.ParameterList(torch.empty(heads, o) for o in widths[1:])
        self.reset(range(heads))

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        hidden = self.standardised_product(x, self.weights[0], self.biases[0])  # (R, B, H)
        for layer in range(1, len(self.weights)):
            hidden = self._drop(hidden.relu(), step_seed, layer)
            hidden = batched_affine(hidden, self.weights[layer], self.biases[layer])
        return hidden.squeeze(-1)

    def _drop(self, hidden: Tensor, step_seed: int | None, layer: int) -> Tensor:
        """Inverted dropout whose mask is a function of step and layer alone, so that a resumed run repeats it."""
        if step_seed is None or self.dropout == 0:
            return hidden
        generator = torch.Generator(hidden.device).manual_seed(step_seed * 31 + layer)
        kept = torch.rand(hidden.shape, generator=generator, device=hidden.device) >= self.dropout
        return hidden * kept / (1 - self.dropout)

    def reset_head(self, r: int, generator: torch.Generator) -> None:
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[1])
            for parameter in (weight, bias):
                parameter[r] = torch.empty(parameter[r].shape).uniform_(-bound, bound, generator=generator)
