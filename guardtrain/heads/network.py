"""Layers with other activations than ReLU, or of several classes, as a bank; it is imported and never trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from guardtrain.errors import ConfigError
from guardtrain.heads.activations import Activation
from guardtrain.heads.bank import HeadBank, batched_affine


@dataclass
class NetworkHead:
    """The definition of a `NetworkBank`.

    Args:
        widths: outputs of each layer; those of the last are one logit, or the classes of a softmax.
        activations: after each layer but the last, see `guardtrain.heads.activations`.
        unsafe: of several classes the places of the unsafe ones.

    >>> NetworkHead(widths=[3, 1], activations=["gelu"]).bank(1, 4)(torch.ones(5, 4)).shape
    torch.Size([1, 5])
    """

    name: str = "network"
    widths: list[int] = field(default_factory=lambda: [1])
    activations: list[str] = field(default_factory=list)
    unsafe: list[int] = field(default_factory=list)
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or len(self.activations) != len(self.widths) - 1:
            raise ConfigError(f"widths {self.widths} need an activation after each but the last: {self.activations}.")
        outputs, places = self.widths[-1], set(self.unsafe)
        fits = bool(places) and places < set(range(outputs)) if outputs > 1 else not places
        if not fits:
            raise ConfigError(f"unsafe is {self.unsafe}, which does not fit {outputs} outputs.")

    def bank(self, heads: int, dim: int) -> NetworkBank:
        """R heads, all weights zero."""
        parsed = [Activation.parsed(text) for text in self.activations]
        return NetworkBank(heads, dim, self.widths, parsed, self.unsafe)


class NetworkBank(HeadBank):
    """R heads of layers with any activations between them; of several classes the log-odds of the unsafe ones."""

    def __init__(
        self, heads: int, dim: int, widths: list[int], activations: list[Activation], unsafe: list[int]
    ) -> None:
        super().__init__(heads, dim)
        self.activations, self.unsafe = activations, sorted(unsafe)
        self.safe = [place for place in range(widths[-1]) if place not in unsafe]
        inputs = [dim, *widths[:-1]]
        self.weights = nn.ParameterList(torch.zeros(heads, i, o) for i, o in zip(inputs, widths, strict=True))
        self.biases = nn.ParameterList(torch.zeros(heads, o) for o in widths)

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        """See `HeadBank.forward`."""
        rows = self.standardised_product(x, self.weights[0], self.biases[0])
        for activation, weight, bias in zip(self.activations, self.weights[1:], self.biases[1:], strict=True):
            rows = batched_affine(activation.in_torch(rows), weight, bias)
        if not self.unsafe:
            return rows.squeeze(-1)
        return rows[..., self.unsafe].logsumexp(-1) - rows[..., self.safe].logsumexp(-1)

    def reset_head(self, r: int, generator: torch.Generator) -> None:
        for parameter in self.parameters():
            parameter[r].zero_()
