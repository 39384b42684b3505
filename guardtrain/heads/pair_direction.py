"""The pair-difference direction: what changes within pairs, seen in the space where the real images are round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guardtrain.heads.bank import HeadBank
from guardtrain.heads.calibration import platt
from guardtrain.heads.direct import HeadData, linear_bank
from guardtrain.heads.gda import GDAHead, WithinClass, empirical_bayes
from guardtrain.heads.linear import LinearBank
from guardtrain.heads.spectrum import Spectrum


@dataclass
class PairDirectionHead:
    """`w = Σ⁻¹ d̄` with d̄ the mean difference of the pairs and Σ the shrunk within-class covariance of the real images.

    A linear discriminant whose class difference comes from the pairs: two halves differ in the safety-critical
    feature and little else, so their mean difference holds none of what else sets the real classes apart. The real
    images say which directions vary anyway and are to be distrusted. The threshold is the mean of the pairs'
    mid-points. Fisher's discriminant (1936) with two sources of data; the shrinkage is that of `GDAHead`
    (Kubokawa and Srivastava, 2008; the strength multiplies it, 1 is the published value).

    The logit's scale comes from Platt's fit, through the origin, on the scores of pairs left out: of each pair from
    the direction and the threshold of the others. A single pair has no others: its own halves get Platt's smoothed
    targets, probabilities of 2/3 and 1/3. A run with no complete pair is a `GDAHead`, as real data alone is in a curve:
    what shows such runs says so (`guardtrain.curves.pairless`), and a guard of one is called so. A run with no real
    images takes Σ from its pair images.

    Args:
        calibrate: Platt's fit; without it the logits are those of two Gaussians.

    >>> data = HeadData.of(np.eye(6, 4), np.array([0, 1] * 3), pairs=np.array([[5, 4]]), n_real=4)
    >>> PairDirectionHead().solve(data, [1.0])[0](torch.zeros(5, 4)).shape
    torch.Size([1, 5])
    """

    name: str = "pair_direction"
    calibrate: bool = True
    convex: ClassVar[bool] = True
    reads_pairs: ClassVar[bool] = True

    def bank(self, heads: int, dim: int) -> LinearBank:
        """R linear heads."""
        return LinearBank(heads, dim)

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """One linear head for each strength; see the class."""
        if not len(data.pairs):
            return GDAHead(calibrate=self.calibrate).solve(data, strengths)
        real = slice(0, data.n_real) if data.n_real > 2 else slice(None)
        rows = WithinClass.of(data.x[real], data.y[real]).rows
        spectrum = Spectrum.of(rows)
        unsafe, safe = data.x[data.pairs].astype(np.float64).transpose(1, 0, 2)
        differences, middles = unsafe - safe, (unsafe + safe) / 2  # (k, D)
        count = len(differences)
        labels = np.repeat([1, 0], count)
        banks: list[HeadBank] = []
        for strength in strengths:
            factor, penalty = empirical_bayes(spectrum.trace, len(rows), data.x.shape[1], strength)
            weight = factor * spectrum.solve(differences.mean(0), penalty)
            slope = 1.0
            if self.calibrate and count == 1:
                slope, _ = platt(np.concatenate([unsafe, safe]) @ weight - middles[0] @ weight, labels, intercept=False)
            elif self.calibrate:
                others = (differences.sum(0) - differences) / (count - 1)
                centres = (middles.sum(0) - middles) / (count - 1)
                weights = factor * spectrum.solve(others, penalty)  # (k, D), pair j's without pair j
                scores = [((half - centres) * weights).sum(1) for half in (unsafe, safe)]
                slope, _ = platt(np.concatenate(scores), labels, intercept=False)
            bias = -float(weight @ middles.mean(0))
            banks.append(linear_bank(data, slope * weight, slope * bias))
        return banks
