"""What stands between the layers of a published head, in numpy's float64; torch has each under the same name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, ndtr

LEAKY_SLOPE = 0.01  # torch's
_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * ndtr(x),  # torch's default, not its approximation by tanh
    "silu": lambda x: x * expit(x),
    "tanh": np.tanh,
    "sigmoid": expit,
}
LEAKY = "leaky_relu"
ACTIVATIONS = (*_FUNCTIONS, LEAKY)


@dataclass(frozen=True)
class Activation:
    """A function of each number by itself.

    Args:
        name: one of `ACTIVATIONS`, as in `torch.nn.functional`.
        slope: of `leaky_relu` below zero.

    >>> Activation.parsed("leaky_relu(0.2)"), str(Activation("leaky_relu", 0.2))
    (Activation(name='leaky_relu', slope=0.2), 'leaky_relu(0.2)')
    """

    name: str = "relu"
    slope: float = LEAKY_SLOPE

    @classmethod
    def parsed(cls, text: str) -> Activation:
        """The activation that `str` wrote.

        Raises:
            ValueError: none of `ACTIVATIONS`.
        """
        found = re.fullmatch(r"(\w+?)(?:\(([^()]+)\))?", text)
        if found is None or found[1] not in ACTIVATIONS or (found[2] is not None and found[1] != LEAKY):
            raise ValueError(f"'{text}' is no activation; allowed: {', '.join(ACTIVATIONS)}")
        return cls(found[1], LEAKY_SLOPE if found[2] is None else float(found[2]))

    def __str__(self) -> str:
        return self.name if self.name != LEAKY else f"{LEAKY}({self.slope!r})"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Apply it to an array; the same shape, float64."""
        if self.name == LEAKY:
            return np.where(x >= 0, x, self.slope * x)
        return np.asarray(_FUNCTIONS[self.name](x))

    def in_torch(self, x: Any) -> Any:
        """Apply it to a tensor."""
        import torch.nn.functional as F

        return F.leaky_relu(x, self.slope) if self.name == LEAKY else getattr(F, self.name)(x)
