"""Ridge regression on the labels: every strength from one eigendecomposition, leave-one-out scores for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guardtrain.heads.bank import HeadBank
from guardtrain.heads.calibration import platt
from guardtrain.heads.direct import HeadData, linear_bank
from guardtrain.heads.linear import LinearBank
from guardtrain.heads.spectrum import Spectrum


@dataclass
class RidgeHead:
    """Least squares to targets ±1 with an L2 penalty (Hoerl and Kennard, Technometrics 1970; Rifkin, Yeo and Poggio's
    regularised least-squares classification, 2003).

    Minimises `Σ wᵢ (yᵢ - xᵢᵀβ - β₀)² + l2·‖β‖²` over centred inputs of mean squared norm 1, which is about what
    unit-norm embeddings are: the strength is scikit-learn's `alpha` there, whose default is 1 as well.

    A ridge prediction is no logit: a field of its own (scikit-learn's RidgeClassifier) leaves probabilities out, and
    the usual remedy is Platt's fit on predictions for images left out. Those come exactly from the same
    eigendecomposition, `yᵢ - (yᵢ - ŷᵢ) / (1 - hᵢ)` with leverage hᵢ (Allen's PRESS, 1974; Rifkin and Lippert, 2007).

    Args:
        calibrate: Platt's fit; without it the logit is the prediction in [-1, 1], to be read by its sign.

    >>> data = HeadData.of(np.eye(4, 3), np.array([0, 1, 0, 1]))
    >>> len(RidgeHead().solve(data, [0.1, 1.0, 10.0]))
    3
    """

    name: str = "ridge"
    calibrate: bool = True
    convex: ClassVar[bool] = True

    def bank(self, heads: int, dim: int) -> LinearBank:
        """R linear heads."""
        return LinearBank(heads, dim)

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """One linear head for each strength; see the class."""
        x = data.x.astype(np.float64)
        scale = np.sqrt(np.square(x - x.mean(0)).sum(1).mean())
        scale = scale if scale > 0 else 1.0
        targets, weights = 2.0 * data.y - 1, data.weights
        mean, middle = weights @ x / weights.sum(), float(weights @ targets / weights.sum())
        roots = np.sqrt(weights)
        spectrum = Spectrum.of(roots[:, None] * (x - mean) / scale)
        along = spectrum.images.T @ (roots * (targets - middle))
        banks: list[HeadBank] = []
        for strength in strengths:
            # 0 stands for the limit of small penalties: leaving out then works where the fit meets every target.
            penalty = max(strength, 1e-9 * spectrum.squares.max(initial=1.0))
            shrunk = spectrum.squares + penalty
            beta = spectrum.directions @ (np.sqrt(spectrum.squares) / shrunk * along) / scale
            bias = middle - mean @ beta
            slope, offset = 1.0, 0.0
            if self.calibrate:
                # per image, leverage and prediction are divided and multiplied by its root weight: it cancels
                leverage = np.square(spectrum.images) @ (spectrum.squares / shrunk) + weights / weights.sum()
                residuals = targets - (x @ beta + bias)
                left_out = targets - residuals / np.maximum(1 - leverage, 1e-12)
                slope, offset = platt(left_out, data.y, weights)
            banks.append(linear_bank(data, slope * beta, slope * bias + offset))
        return banks
