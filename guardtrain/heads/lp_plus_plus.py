"""LP++: a linear probe whose class weights blend image prototypes with text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from guardtrain.errors import ConfigError
from guardtrain.heads.anchors import TextAnchored, TextAnchors
from guardtrain.heads.bank import HeadBank
from guardtrain.heads.calibration import sigmoid
from guardtrain.heads.direct import HeadData
from guardtrain.heads.unit_norm import UnitLinearBank, unit_linear_bank, unit_rows


@dataclass
class LPPlusPlusHead(TextAnchored):
    """Class weights `w_c + α_c·t_c` (Huang et al., LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP,
    CVPR 2024, arXiv 2404.02285).

    The objective is plain cross-entropy. Its optimum is that of any linear probe, since `w_c` alone can be every
    weight: what is LP++ is the way there, from initial values that the data give and with step sizes from
    Lipschitz constants, stopped early. So this head walks it as published: `w_c` starts at the sum of the class's
    images, `α` at 250 times the mean cosine of an image with its own text; full-batch gradient steps of 4n / λ_max(XᵀX)
    with momentum 0.9 on w and b, and every tenth step one of n / (4·max_c Σ_i (x_iᵀt_c)²) on α.

    Departures: the published code takes the iteration with the best validation accuracy; here the number of iterations
    is the regularisation, `iterations / strength` (1 is the published 300), and is chosen like any strength by
    cross-validation inside the run; all candidates lie on one path. The bias starts at 0, not at random. Images
    count by their class weight.

    Args:
        text: prompts or anchors.
        iterations: steps at strength 1.
        longest: most steps at any strength.

    >>> head = LPPlusPlusHead().anchored(np.eye(2, 3))
    >>> head.solve(HeadData.of(np.eye(4, 3) + 0.1, np.array([0, 1, 0, 1])), [1.0])[0](torch.zeros(5, 3)).shape
    torch.Size([1, 5])
    """

    name: str = "lp_plus_plus"
    text: TextAnchors = field(default_factory=TextAnchors)
    iterations: int = 300
    longest: int = 1000
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= self.longest:
            raise ConfigError(
                f"head.iterations must be from 1 to head.longest; got {self.iterations} and {self.longest}."
            )

    def bank(self, heads: int, dim: int) -> UnitLinearBank:
        """R linear heads on unit-norm input."""
        return UnitLinearBank(heads, dim)

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """One head for each strength, all from one descent; see the class."""
        anchors = self.anchors(data.x.shape[1]).astype(np.float64)
        stops = [self._steps(strength) for strength in strengths]
        found: dict[int, HeadBank] = {}
        x, weights = unit_rows(data.x), data.weights / data.weights.sum()
        text, sign = x @ anchors.T, np.array([-1.0, 1.0])  # (n, 2)
        n = len(x)
        # With two classes the gradients of w₁ and w₀ (and of the biases) are opposite: the difference is all there is.
        w, b = (2.0 * data.y - 1) @ x, 0.0
        alpha = np.full(2, 250 * np.mean([text[data.y == c, c].mean() for c in (0, 1)]))
        gram = x @ x.T if n < x.shape[1] else x.T @ x
        step = 4 * n / np.linalg.eigvalsh(gram)[-1]
        text_step = n / (4 * np.square(text).sum(0).max())
        w_speed, b_speed = np.zeros_like(w), 0.0
        for iteration in range(1, max(stops) + 1):
            errors = weights * (sigmoid(x @ w + b + text @ (sign * alpha)) - data.y)
            w_speed, b_speed = 0.9 * w_speed + 2 * (errors @ x), 0.9 * b_speed + 2 * errors.sum()
            w, b = w - step * w_speed, b - step * b_speed
            if iteration % 10 == 0:
                alpha = alpha - text_step * sign * (errors @ text)
            if iteration in stops:
                found[iteration] = unit_linear_bank(w + (sign * alpha) @ anchors, float(b))
        return [found[stop] for stop in stops]

    def _steps(self, strength: float) -> int:
        return max(1, round(min(self.longest, self.iterations / max(strength, 1e-12))))
