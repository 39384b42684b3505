"""k nearest neighbours by cosine, votes weighted by closeness: what self-supervised encoders are judged with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guardtrain.errors import ConfigError
from guardtrain.heads.bank import HeadBank
from guardtrain.heads.direct import HeadData
from guardtrain.heads.examples import ExampleBank


@dataclass
class NeighboursHead:
    """Weighted k-NN (Wu et al., CVPR 2018, arXiv 1805.01978; the protocol of DINO, arXiv 2104.14294, and DINOv2).

    The k training images with the largest cosine vote with `exp(cos / temperature)`, times their class weight. With
    v the unsafe share of the votes the logit is `log((k·v + ½) / (k·(1 - v) + ½))`: the order is that of v, and half a
    vote for either side keeps certain votes finite, at a size that k images can support.

    The strength multiplies k: 1 is `neighbours`, more is smoother. A run with fewer images than k asks all.

    Args:
        neighbours: k; DINO and DINOv2 use 20 (and try 10, 100, 200).
        temperature: of the votes; 0.07 there.

    >>> data = HeadData.of(np.eye(4, 3) + 0.1, np.array([0, 1, 0, 1]))
    >>> NeighboursHead().solve(data, [1.0])[0](torch.eye(3)).shape
    torch.Size([1, 3])
    """

    name: str = "knn"
    neighbours: int = 20
    temperature: float = 0.07
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ConfigError(f"head.neighbours must be >= 1; got {self.neighbours}.")
        if self.temperature <= 0:
            raise ConfigError(f"head.temperature must be > 0; got {self.temperature:g}.")

    def bank(self, heads: int, dim: int) -> NeighboursBank:
        """R heads without examples."""
        return NeighboursBank(heads, dim, self.temperature)

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """One head for each strength; see the class."""
        banks: list[HeadBank] = []
        for strength in strengths:
            bank = self.bank(1, data.x.shape[1])
            bank.keep([(data.x, data.y, data.weights)])
            bank.neighbours[:] = min(max(1, round(self.neighbours * strength)), len(data.x))
            banks.append(bank)
        return banks


class NeighboursBank(ExampleBank):
    """R k-NN heads; k is a head's own."""

    neighbours: Tensor  # (R,) int64

    def __init__(self, heads: int, dim: int, temperature: float) -> None:
        super().__init__(heads, dim)
        self.temperature = temperature
        self.register_buffer("neighbours", torch.ones(heads, dtype=torch.int64))

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        x = self.unit(x)
        # one head after the other: all at once would take R·N·M numbers
        return torch.stack([self._logits(x if x.ndim == 2 else x[r], r) for r in range(self.heads)])

    def _logits(self, x: Tensor, r: int) -> Tensor:
        present = self.mass[r] != 0  # (2, M); what is not is padding, or counts nothing
        masses, unsafe = self.mass[r][present], present.nonzero()[:, 0]
        k = int(self.neighbours[r])
        nearest, which = (x @ self.keys[r][present].T).topk(k, dim=1)
        votes = ((nearest - nearest[:, :1]) / self.temperature).exp() * masses[which]
        share = k * (votes * unsafe[which]).sum(1) / votes.sum(1)
        return torch.log((share + 0.5) / (k - share + 0.5))
