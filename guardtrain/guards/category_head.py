"""The category head of a guard: which category an image belongs to, if it is unsafe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.errors import GuardError
from guardtrain.guards.directory import WEIGHTS

PREFIX = "category_head."  # of its tensors, which lie beside the head's in one file
_WEIGHT, _BIAS = f"{PREFIX}weight", f"{PREFIX}bias"


@dataclass(frozen=True, eq=False)
class CategoryHead:
    """Multinomial logistic regression on embeddings: `softmax(W e + b)`, the probabilities where the image is unsafe.

    Args:
        names: C categories, at least 2.
        weight: (C, D) float32, on embeddings as the encoder gives them.
        bias: (C,) float32.
    """

    names: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, C) float64 `P(category | unsafe)` of embeddings (N, D); each row sums to 1."""
        logits = np.asarray(embeddings, dtype=np.float32) @ self.weight.T + self.bias
        odds = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the weights as they lie in `model.safetensors`."""
        return {_WEIGHT: self.weight, _BIAS: self.bias}

    @classmethod
    def read(cls, folder: Path, config: Mapping[str, Any], dim: int) -> CategoryHead | None:
        """Read the category head of a guard's directory; None where it has none.

        Raises:
            GuardError: weights that do not fit the names in the config.
        """
        said = config.get("category_head")
        if said is None:
            return None
        from safetensors import SafetensorError, safe_open

        try:
            names = tuple(map(str, said["names"]))
            with safe_open(folder / WEIGHTS, framework="numpy") as file:
                weight, bias = file.get_tensor(_WEIGHT), file.get_tensor(_BIAS)
            if weight.shape != (len(names), dim) or bias.shape != (len(names),) or len(names) < 2:
                raise ValueError(f"{len(names)} categories, weights {weight.shape} and {bias.shape}")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError("its weights are not finite")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise GuardError(
                f"{folder / WEIGHTS} does not fit the category head in its config: {error}. Export the guard again."
            ) from error
        return cls(names, weight, bias)


def named_categories(
    names: Sequence[str], probabilities: np.ndarray, decisions: Sequence[str | None]
) -> tuple[str | None, ...]:
    """Return each image's likeliest category; None where it is called safe, or could not be read.

    Args:
        names: C categories.
        probabilities: (N, C).
        decisions: N of `safe`, `unsafe`, `review` or None.
    """
    best = probabilities.argmax(axis=1).tolist()  # of a row of NaN it is 0, and its decision None
    return tuple(
        names[k] if decision not in (None, "safe") else None for k, decision in zip(best, decisions, strict=True)
    )
