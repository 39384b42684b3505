"""Direct heads: solved from a run's images in one go, without an optimizer and its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch

from guardtrain.heads.bank import HeadBank
from guardtrain.heads.linear import LinearBank


@dataclass(frozen=True, eq=False)
class HeadData:
    """The training images of one run, as a direct head gets them.

    Args:
        x: `(n, D)` float32 embeddings as the encoder gives them: not centred, perhaps not of unit norm.
        y: `(n,)` int64, 1 is unsafe.
        weights: `(n,)` float64, what each image counts (its class weight).
        pairs: `(k, 2)` int64 rows of `x`: the unsafe and the safe half of every complete pair.
        n_real: the first so many rows are real images, the rest pair images.
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    pairs: np.ndarray
    n_real: int

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None = None,
        pairs: np.ndarray | None = None,
        n_real: int | None = None,
    ) -> HeadData:
        """Make it with defaults: every image counts once, no pairs, all images real."""
        return cls(
            np.asarray(x, dtype=np.float32),
            np.asarray(y, dtype=np.int64),
            np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64),
            np.zeros((0, 2), dtype=np.int64) if pairs is None else np.asarray(pairs, dtype=np.int64).reshape(-1, 2),
            len(x) if n_real is None else n_real,
        )

    @property
    def prior_logit(self) -> float:
        """Log of the unsafe images' mass over the safe ones': 0 with balanced class weights."""
        unsafe = self.weights[self.y == 1].sum()
        return float(np.log(unsafe) - np.log(self.weights[self.y == 0].sum()))


@runtime_checkable
class DirectHead(Protocol):
    """A head definition that is solved instead of trained.

    Attributes:
        name: what the results table calls it.
        convex: always true: there is one answer, which no seed or step changes.
    """

    name: str
    convex: ClassVar[bool]

    def bank(self, heads: int, dim: int) -> HeadBank:
        """R unsolved heads on D-dimensional embeddings, which solved ones can be loaded into."""
        ...

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """One bank of one head for each strength of regularisation, in order.

        The strength is `loss.l2` (or a candidate of `selection.l2`), a multiple of the head's own regularisation:
        1 (or null) is its published or usual setting, more pulls harder towards what the head believes without data.
        Each head says what that is. A head with nothing to set ignores the values.

        Args:
            data: the run's images, both classes among them.
            strengths: each >= 0.

        Raises:
            np.linalg.LinAlgError: the images do not determine the head.
            ConfigError: the head needs text anchors and has none, or of another dimension.
        """
        ...


def linear_bank(data: HeadData, weight: np.ndarray, bias: float) -> LinearBank:
    """A bank of one linear head from weights that apply to embeddings as they are.

    Args:
        data: the images whose mean and scale standardise the head's input, as in any linear head.
        weight: `(D,)`.
        bias: the intercept.
    """
    bank = LinearBank(1, data.x.shape[1])
    bank.fit_input(torch.from_numpy(data.x), [torch.arange(len(data.x))])
    mean, scale = bank.input_mean[0].double().numpy(), float(bank.input_scale[0])
    with torch.no_grad():
        bank.weight[0, :, 0] = torch.from_numpy(weight * scale)
        bank.bias[0, 0] = float(bias + mean @ weight)
    return bank
