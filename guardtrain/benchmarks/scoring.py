"""What published guards compute on an embedding, in numpy's float64; and as heads of ours, where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.special import logsumexp

from guardtrain.errors import GuardError
from guardtrain.heads.activations import Activation
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
        """Return the network as a bank of one, and the definition that makes it again.

        Raises:
            GuardError: no head of ours computes it.
        """


@dataclass(frozen=True, eq=False)
class Layers:
    """Affine layers with an activation between each two; one output, or several classes of a softmax.

    Args:
        weights: (out, in) of each layer.
        biases: (out,) of each.
        unit: whether the embedding is scaled to unit norm first; only for a single layer of one output.
        activations: after each layer but the last; None for ReLU everywhere.
        unsafe: of several outputs the places of the unsafe classes: their probabilities are added.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    unit: bool = False
    activations: tuple[Activation, ...] | None = None
    unsafe: tuple[int, ...] = ()

    @property
    def dim(self) -> int:
        return int(self.weights[0].shape[1])

    @property
    def between(self) -> tuple[Activation, ...]:
        """The activation after each layer but the last."""
        return (Activation(),) * (len(self.weights) - 1) if self.activations is None else self.activations

    @property
    def plain(self) -> bool:
        """Whether it is a linear head, or ReLU layers with one output: a head that can be trained here, too."""
        return not self.unsafe and all(one.name == "relu" for one in self.between)

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        rows = unit_rows(embeddings) if self.unit else np.asarray(embeddings, dtype=np.float64)
        for weight, bias, activation in zip(self.weights[:-1], self.biases[:-1], self.between, strict=True):
            rows = activation(rows @ weight.T + bias)
        rows = rows @ self.weights[-1].T + self.biases[-1]
        if not self.unsafe:
            return np.asarray(rows[:, 0])
        unsafe = np.isin(np.arange(rows.shape[1]), self.unsafe)
        return np.asarray(logsumexp(rows[:, unsafe], axis=1) - logsumexp(rows[:, ~unsafe], axis=1))

    def judging(self, unsafe: tuple[int, ...]) -> Layers:
        """Return the network with its outputs read as a softmax of which these classes are unsafe.

        Two classes become one output, the difference of theirs. One output is the logit of class 1 against class 0.
        """
        weight, bias = self.weights[-1], self.biases[-1]
        if len(weight) > 2:
            return replace(self, unsafe=unsafe)
        (place,) = unsafe
        if len(weight) == 2:
            weight, bias = weight[[place]] - weight[[1 - place]], bias[[place]] - bias[[1 - place]]
        elif place == 0:
            weight, bias = -weight, -bias
        return replace(self, weights=(*self.weights[:-1], weight), biases=(*self.biases[:-1], bias))

    def output(self, place: int) -> Layers:
        """Return the network with one of its outputs alone, as a logit."""
        weight, bias = self.weights[-1][[place]], self.biases[-1][[place]]
        return replace(self, weights=(*self.weights[:-1], weight), biases=(*self.biases[:-1], bias))

    def head(self) -> tuple[HeadBank, Mapping[str, Any]]:
        """A zero-shot head (unit norm), a linear head, an MLP head, or a `NetworkHead`."""
        import torch

        from guardtrain.heads import LinearHead, MLPHead
        from guardtrain.heads.unit_norm import unit_linear_bank

        if self.unit:
            bank = unit_linear_bank(self.weights[0][0], float(self.biases[0][0]))
            return bank.eval(), {"_target_": "guardtrain.heads.ZeroShotHead"}
        widths = [len(weight) for weight in self.weights]
        if len(widths) == 1 and self.plain:
            linear = LinearHead().bank(1, self.dim)
            with torch.no_grad():
                linear.weight[0, :, 0] = torch.from_numpy(self.weights[0][0])
                linear.bias[0] = torch.from_numpy(self.biases[0])
            return linear.eval(), {"_target_": "guardtrain.heads.LinearHead"}
        made: Any
        definition: dict[str, Any]
        if self.plain:
            made, definition = MLPHead(hidden=widths[:-1]).bank(1, self.dim), {"hidden": widths[:-1]}
            target = "guardtrain.heads.MLPHead"
        else:
            from guardtrain.heads.network import NetworkHead

            definition = {"widths": widths, "activations": [str(a) for a in self.between], "unsafe": list(self.unsafe)}
            made, target = NetworkHead(**definition).bank(1, self.dim), "guardtrain.heads.network.NetworkHead"
        with torch.no_grad():
            for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                made.weights[i][0] = torch.from_numpy(weight.T.copy())
                made.biases[i][0] = torch.from_numpy(bias)
        return made.eval(), {"_target_": target, **definition}


def affine(weight: np.ndarray, bias: np.ndarray | float, unit: bool = False) -> Layers:
    """A linear head: `embedding · weight + bias`, with `weight` (D,)."""
    return Layers((np.asarray(weight, dtype=np.float64)[None],), (np.atleast_1d(np.float64(bias)),), unit)


def highest(parts: Sequence[Layers]) -> Layers:
    """One network whose logit is the highest of several networks' of one depth, exact but for rounding.

    `max(a, b) = relu(a - b) + relu(b) - relu(-b)`: pairs are compared in ReLU layers after the networks' own, which
    stand side by side. So "unsafe, if any of the heads says so" is an MLP like any other.

    Raises:
        GuardError: networks of different depth or dimension, on unit-norm input, or with other activations than ReLU.
    """
    plain = all(part.plain for part in parts)
    if len({(len(part.weights), part.dim, part.unit) for part in parts}) != 1 or parts[0].unit or not plain:
        raise GuardError("Heads can be joined where they are ReLU layers of the same number and the same input.")
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
    """Return what goes into ReLU to compare neighbours of `count` values, and how the higher ones are read from it."""
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
