"""The zero-shot head: what an image is closer to, the safe or the unsafe text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from guardtrain.errors import ConfigError
from guardtrain.heads.anchors import TextAnchored, TextAnchors
from guardtrain.heads.bank import HeadBank
from guardtrain.heads.direct import HeadData
from guardtrain.heads.unit_norm import UnitLinearBank, unit_linear_bank


@dataclass
class ZeroShotHead(TextAnchored):
    """CLIP's zero-shot classifier with two classes (Radford et al., ICML 2021, arXiv 2103.00020).

    `softmax(scale·(cos(x, t₀), cos(x, t₁)))`, so the logit is `scale·(cos(x, t₁) - cos(x, t₀))`. No label is used, and
    neither are strengths; with learned anchors in `text.file` this is Q16 (Schramowski et al., FAccT 2022, arXiv
    2202.06675), and it draws the same guard at every budget: the line that a trained head has to beat.

    Args:
        text: prompts or anchors.
        scale: CLIP's logit scale; 100 is what its models were trained up to.

    >>> head = ZeroShotHead().anchored(np.eye(2, 3))
    >>> head.solve(HeadData.of(np.ones((2, 3)), np.array([0, 1])), [1.0])[0](torch.eye(3)).tolist()
    [[-100.0, 100.0, 0.0]]
    """

    name: str = "zero_shot"
    text: TextAnchors = field(default_factory=TextAnchors)
    scale: float = 100.0
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ConfigError(f"head.scale must be > 0; got {self.scale:g}.")

    def bank(self, heads: int, dim: int) -> UnitLinearBank:
        """R linear heads on unit-norm input."""
        return UnitLinearBank(heads, dim)

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """Return the same head for each strength."""
        anchors = self.anchors(data.x.shape[1]).astype(np.float64)
        return [unit_linear_bank(self.scale * (anchors[1] - anchors[0])) for _ in strengths]
