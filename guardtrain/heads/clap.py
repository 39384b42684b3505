"""CLAP: prototypes that start at the text and are held there, each class as firmly as its text deserves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from guardtrain.blas import one_thread
from guardtrain.errors import ConfigError
from guardtrain.heads.anchors import TextAnchored, TextAnchors
from guardtrain.heads.bank import HeadBank
from guardtrain.heads.calibration import sigmoid
from guardtrain.heads.direct import HeadData
from guardtrain.heads.unit_norm import UnitLinearBank, unit_linear_bank, unit_rows


@dataclass
class CLAPHead(TextAnchored):
    """Class-adaptive linear probe (Silva-Rodríguez et al., A Closer Look at the Few-Shot Adaptation of Large
    Vision-Language Models, CVPR 2024, arXiv 2312.12730).

    Minimises, from the text anchors t_c on,
    `mean_i CE(scale·cos(x_i, p_c), y_i) + strength·mean_c λ_c·‖p_c - t_c‖²`, with λ_c the mean zero-shot probability of
    class c over its own images: a text that already works is held more firmly.

    Departures: the optimum of the published objective by L-BFGS in float64, where the paper takes 300 epochs of
    SGD; anchors of unit norm, where the published code leaves CLIP's text features at their own length of about 10,
    which makes its penalty about a hundred times as strong (strength 100 here); images count by their class weight.

    Args:
        text: prompts or anchors.
        scale: CLIP's logit scale.
        iterations: L-BFGS iterations at most.

    >>> head = CLAPHead().anchored(np.eye(2, 3))
    >>> head.solve(HeadData.of(np.eye(4, 3) + 0.1, np.array([0, 1, 0, 1])), [1.0])[0](torch.zeros(5, 3)).shape
    torch.Size([1, 5])
    """

    name: str = "clap"
    text: TextAnchors = field(default_factory=TextAnchors)
    scale: float = 100.0
    iterations: int = 500
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ConfigError(f"head.scale must be > 0; got {self.scale:g}.")

    def bank(self, heads: int, dim: int) -> UnitLinearBank:
        """R linear heads on unit-norm input."""
        return UnitLinearBank(heads, dim)

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """One head for each strength; see the class."""
        from scipy.optimize import minimize  # heavy, and for this head only

        anchors = self.anchors(data.x.shape[1]).astype(np.float64)
        x, weights = unit_rows(data.x), data.weights / data.weights.sum()
        y, sign = data.y.astype(np.float64), np.array([[-1.0], [1.0]])
        unsafe = sigmoid(self.scale * x @ (anchors[1] - anchors[0]))
        firmness = np.array([(1 - unsafe)[data.y == 0].mean(), unsafe[data.y == 1].mean()])
        banks: list[HeadBank] = []
        for strength in strengths:
            hold = strength * firmness[:, None] / 2

            def objective(flat: np.ndarray, hold: np.ndarray = hold) -> tuple[float, np.ndarray]:
                points = flat.reshape(2, -1)
                norms = np.linalg.norm(points, axis=1, keepdims=True)
                directions = points / norms
                logits = self.scale * x @ (directions[1] - directions[0])
                loss = weights @ (np.logaddexp(0, logits) - y * logits)
                pull = sign * (self.scale * (weights * (sigmoid(logits) - y)) @ x)  # on either direction
                across = (pull - (pull * directions).sum(1, keepdims=True) * directions) / norms
                away = points - anchors
                return float(loss + (hold * np.square(away)).sum()), (across + 2 * hold * away).ravel()

            options = {"maxiter": self.iterations, "ftol": 1e-11, "gtol": 1e-8}
            with one_thread():
                found = minimize(objective, anchors.ravel(), jac=True, method="L-BFGS-B", options=options)
            directions = unit_rows(found.x.reshape(2, -1))
            banks.append(unit_linear_bank(self.scale * (directions[1] - directions[0])))
        return banks
