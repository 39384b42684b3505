"""What published guards compute on an embedding, in numpy's float64; and as heads of ours, where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from guardtrain.errors import GuardError
from guardtrain.heads.unit_norm import unit_rows

if TYPE_CHECKING:
    from guardtrain.heads.bank import HeadBank


class Scorer(Protocol):
    """A published head."""

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """(N,) float64 of embeddings (N, D) float64; 0 is where the guard's authors begin to call an image unsafe."""

    def head(self) -> tuple[HeadBank, Mapping[str, Any]]:
        """The same as a bank of one and the definition that makes it again.

        Raises:
            GuardError: no head of ours computes it.
        """


@dataclass(frozen=True, eq=False)
class Layers:
    """Affine layers with ReLU between them, one output.

    Args:
        weights: (out, in) of each layer, the last (1, in).
        biases: (out,) of each.
        unit: whether the embedding is scaled to unit norm first; only for a single layer.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    unit: bool = False

    @property
    def dim(self) -> int:
        return int(self.weights[0].shape[1])

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        rows = unit_rows(embeddings) if self.unit else np.asarray(embeddings, dtype=np.float64)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            rows = np.maximum(rows @ weight.T + bias, 0)
        return rows @ self.weights[-1][0] + self.biases[-1][0]

    def head(self) -> tuple[HeadBank, Mapping[str, Any]]:
        """A zero-shot head (unit norm), a linear head or an MLP head."""
        import torch

        from guardtrain.heads import LinearHead, MLPHead
        from guardtrain.heads.unit_norm import unit_linear_bank

        if self.unit:
            bank = unit_linear_bank(self.weights[0][0], float(self.biases[0][0]))
            return bank.eval(), {"_target_": "guardtrain.heads.ZeroShotHead"}
        hidden = [len(weight) for weight in self.weights[:-1]]
        if not hidden:
            linear = LinearHead().bank(1, self.dim)
            with torch.no_grad():
                linear.weight[0, :, 0] = torch.from_numpy(self.weights[0][0])
                linear.bias[0] = torch.from_numpy(self.biases[0])
            return linear.eval(), {"_target_": "guardtrain.heads.LinearHead"}
        mlp = MLPHead(hidden=hidden).bank(1, self.dim)
        with torch.no_grad():
            for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                mlp.weights[i][0] = torch.from_numpy(weight.T.copy())
                mlp.biases[i][0] = torch.from_numpy(bias)
        return mlp.eval(), {"_target_": "guardtrain.heads.MLPHead", "hidden": hidden}


def affine(weight: np.ndarray, bias: np.ndarray | float, unit: bool = False) -> Layers:
    """A linear head: `embedding · weight + bias`, with `weight` (D,)."""
    return Layers((np.asarray(weight, dtype=np.float64)[None],), (np.atleast_1d(np.float64(bias)),), unit)


def highest(parts: Sequence[Layers]) -> Layers:
    """One network whose logit is the highest of several networks' of one depth, exact but for rounding.

    `max(a, b) = relu(a - b) + relu(b) - relu(-b)`: pairs are compared in ReLU layers after the networks' own, which
    stand side by side. So "unsafe, if any of the heads says so" is an MLP like any other.

    Raises:
        GuardError: networks of different depth or dimension, or on unit-norm input.
    """
    if len({(len(part.weights), part.dim, part.unit) for part in parts}) != 1 or parts[0].unit:
        raise GuardError("Heads can be joined where they have the same number of layers and the same input.")
    if len(parts) == 1:
        return parts[0]
    weights = [np.concatenate([part.weights[0] for part in parts])]
    biases = [np.concatenate(list(layer)) for layer in zip(*(part.biases for part in parts), strict=True)]
    weights += [_side_by_side(list(layer)) for layer in list(zip(*(part.weights for part in parts), strict=True))[1:]]
    values, offset = weights.pop(), biases.pop()  # the logits: (P, H), (P,)
    while len(values) > 1:
        before, after = _comparison(len(values))
        weights.append(before @ values)
        biases.append(before @ offset)
        values, offset = after, np.zeros(len(after))
    return Layers((*weights, values), (*biases, offset))


def _comparison(count: int) -> tuple[np.ndarray, np.ndarray]:
    """What goes into ReLU to compare neighbours of `count` values, and how the higher ones are read from it."""
    before: list[np.ndarray] = []
    after = np.zeros((-(-count // 2), count + (count % 2) + count // 2))
    one = np.eye(count)
    for winner in range(len(after)):
        first = 2 * winner
        if first + 1 < count:
            after[winner, len(before) : len(before) + 3] = 1, 1, -1
            before += [one[first] - one[first + 1], one[first + 1], -one[first + 1]]
        else:
            after[winner, len(before) : len(before) + 2] = 1, -1
            before += [one[first], -one[first]]
    return np.stack(before), after[:, : len(before)]


def _side_by_side(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Blocks on the diagonal of a matrix of zeros."""
    out = np.zeros((sum(len(b) for b in blocks), sum(b.shape[1] for b in blocks)))
    row = column = 0
    for block in blocks:
        out[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return out
