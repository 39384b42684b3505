"""Concept cosines with special care: the head of Stable Diffusion's safety checker, in numpy and as a bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from guardtrain.heads.bank import HeadBank
from guardtrain.heads.unit_norm import UnitNormBank, unit_rows

CARE = 0.01  # what an image near a special-care concept is nearer to every other concept
ROUNDING = 5e-4  # margins are rounded to three digits before they are compared with 0
SCALE = 100.0  # CLIP's logit scale; the checker itself gives no probability


@dataclass(frozen=True, eq=False)
class Concepts:
    """Unsafe where the cosine with a concept is above that concept's threshold (Rombach et al., CVPR 2022; diffusers).

    An image that is above the threshold of a special-care concept is taken to be `CARE` nearer to all concepts. The
    logit is `SCALE` times the largest margin over the concepts, less the half digit that rounding decides at.

    Args:
        concepts: (K, D) concept embeddings, of any length.
        thresholds: (K,) cosines.
        special: (S, D) special-care embeddings.
        special_thresholds: (S,) cosines.
    """

    concepts: np.ndarray
    thresholds: np.ndarray
    special: np.ndarray
    special_thresholds: np.ndarray

    @property
    def dim(self) -> int:
        return int(self.concepts.shape[1])

    def margins(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, K): how far each concept's cosine is above its threshold, with special care."""
        rows = unit_rows(embeddings)
        special = rows @ unit_rows(self.special).T - self.special_thresholds
        care = (special >= ROUNDING).any(axis=1, keepdims=True)
        return rows @ unit_rows(self.concepts).T - self.thresholds + CARE * care

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        return SCALE * (self.margins(embeddings).max(axis=1) - ROUNDING)

    def head(self) -> tuple[HeadBank, Mapping[str, Any]]:
        """A `ConceptBank`."""
        bank = ConceptHead(concepts=len(self.concepts), special=len(self.special)).bank(1, self.dim)
        for name in ("concepts", "special"):
            getattr(bank, name).copy_(torch.from_numpy(unit_rows(getattr(self, name)))[None])
        bank.thresholds.copy_(torch.from_numpy(self.thresholds)[None])
        bank.special_thresholds.copy_(torch.from_numpy(self.special_thresholds)[None])
        definition = {
            "_target_": f"{__name__}.ConceptHead",
            "concepts": len(self.concepts),
            "special": len(self.special),
        }
        return bank.eval(), definition


@dataclass
class ConceptHead:
    """The definition of a `ConceptBank`; it is imported, never trained.

    Args:
        concepts: how many concepts.
        special: how many special-care concepts.

    >>> ConceptHead(concepts=2, special=1).bank(1, 4)(torch.ones(3, 4)).shape
    torch.Size([1, 3])
    """

    name: str = "concepts"
    concepts: int = 17
    special: int = 3
    convex: ClassVar[bool] = False

    def bank(self, heads: int, dim: int) -> ConceptBank:
        """R heads, all concepts zero."""
        return ConceptBank(heads, dim, self.concepts, self.special)


class ConceptBank(UnitNormBank):
    """R heads of concept cosines; see `Concepts`."""

    concepts: Tensor  # (R, K, D) of unit norm
    thresholds: Tensor  # (R, K)
    special: Tensor  # (R, S, D) of unit norm
    special_thresholds: Tensor  # (R, S)

    def __init__(self, heads: int, dim: int, concepts: int, special: int) -> None:
        super().__init__(heads, dim)
        self.register_buffer("concepts", torch.zeros(heads, concepts, dim))
        self.register_buffer("thresholds", torch.zeros(heads, concepts))
        self.register_buffer("special", torch.zeros(heads, special, dim))
        self.register_buffer("special_thresholds", torch.zeros(heads, special))

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        """See `HeadBank.forward`."""
        x = self.unit(x)
        special = x @ self.special.transpose(1, 2) - self.special_thresholds[:, None]
        care = (special >= ROUNDING).any(-1).to(x.dtype)
        margins = x @ self.concepts.transpose(1, 2) - self.thresholds[:, None]
        return SCALE * (margins.amax(-1) + CARE * care - ROUNDING)
