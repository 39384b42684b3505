"""Gaussian discriminant analysis with one shrunk covariance: the training-free CLIP baseline that is hard to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guardtrain.errors import ConfigError
from guardtrain.heads.bank import HeadBank
from guardtrain.heads.calibration import platt
from guardtrain.heads.direct import HeadData, linear_bank
from guardtrain.heads.linear import LinearBank
from guardtrain.heads.spectrum import Spectrum

COVARIANCES = ("empirical_bayes", "ledoit_wolf", "fixed")


@dataclass
class GDAHead:
    """Two Gaussians with one covariance (Wang et al., A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation,
    ICLR 2024, arXiv 2402.04087).

    With class means μ₀, μ₁ and the shared covariance Σ the logit is linear: `w = Σ⁻¹(μ₁ - μ₀)`, with the threshold
    half-way between the means, moved by the log odds of the class masses. The covariance is shrunk towards a
    multiple of the identity:

    - `empirical_bayes`, the paper's estimator (Kubokawa and Srivastava, 2008): `ZᵀZ + λ·tr(S)·I`, with Z the images
      less their class mean, S = ZᵀZ / (n - 1) and λ the strength: 1 is the paper's, and counts as D images of prior;
    - `ledoit_wolf`: the shrinkage of Ledoit and Wolf (2004) on Z; the strength is not used;
    - `fixed`: `(1 - s)·ZᵀZ/n + s·tr(ZᵀZ)/(nD)·I` with s = `shrinkage`, as in scikit-learn's
      LinearDiscriminantAnalysis(solver='lsqr'); the strength is not used.

    The paper adds these logits to the zero-shot text logits with a factor tuned on a validation set. Here they stand
    alone, and their scale and offset come from Platt's fit on leave-one-out logits, which cost one more matrix
    product: a leave-one-out covariance is a change of rank one.

    Args:
        covariance: one of `COVARIANCES`.
        shrinkage: s in [0, 1], for `fixed`.
        calibrate: Platt's fit; without it the logits are those of the two Gaussians.

    >>> data = HeadData.of(np.eye(4, 3), np.array([0, 1, 0, 1]))
    >>> GDAHead().solve(data, [1.0])[0](torch.zeros(5, 3)).shape
    torch.Size([1, 5])
    """

    name: str = "gda"
    covariance: str = "empirical_bayes"
    shrinkage: float = 0.5
    calibrate: bool = True
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.covariance not in COVARIANCES:
            raise ConfigError(f"head.covariance is '{self.covariance}'; allowed: {', '.join(COVARIANCES)}.")
        if not 0 <= self.shrinkage <= 1:
            raise ConfigError(f"head.shrinkage is a share in [0, 1]; got {self.shrinkage:g}.")

    def bank(self, heads: int, dim: int) -> LinearBank:
        """R linear heads."""
        return LinearBank(heads, dim)

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """One linear head for each strength; see the class."""
        scatter = WithinClass.of(data.x, data.y)
        spectrum = Spectrum.of(scatter.rows)
        banks: list[HeadBank] = []
        for strength in strengths:
            factor, penalty = self._regularised(scatter.rows, spectrum, strength)
            weight, bias, left_out = discriminant(scatter, spectrum, factor, penalty)
            slope, offset = 1.0, data.prior_logit
            if self.calibrate:
                usable = np.isfinite(left_out)
                slope, offset = platt(left_out[usable], data.y[usable], data.weights[usable])
            banks.append(linear_bank(data, slope * weight, slope * bias + offset))
        return banks

    def _regularised(self, rows: np.ndarray, spectrum: Spectrum, strength: float) -> tuple[float, float]:
        """f and λ such that the inverse covariance is `f·(ZᵀZ + λI)⁻¹`."""
        n, dim = rows.shape
        if self.covariance == "empirical_bayes":
            return empirical_bayes(spectrum.trace, n, dim, strength)
        if self.covariance == "fixed":
            s = self.shrinkage
        else:
            from sklearn.covariance import ledoit_wolf_shrinkage  # heavy, and rarely needed

            s = float(ledoit_wolf_shrinkage(rows, assume_centered=True))
        s = min(s, 1 - 1e-9)  # all but the identity: its limit, without a case of its own
        penalty = s / (1 - s) * spectrum.trace / dim
        return _nonzero(n / (1 - s), penalty, spectrum.trace)


def empirical_bayes(trace: float, n: int, dim: int, strength: float) -> tuple[float, float]:
    """f and λ of `f·(ZᵀZ + λI)⁻¹` in the estimator of Kubokawa and Srivastava, at `strength` times its prior.

    Args:
        trace: of ZᵀZ.
        n: images.
        dim: D.
        strength: 1 is the published estimator, `D·(ZᵀZ + tr(S)·I)⁻¹`, but for its constant factor, which here keeps
            the trace of the covariance that of S.
    """
    freedom = max(n - 1, 1)
    return _nonzero(freedom + strength * dim, strength * trace / freedom, trace)


def _nonzero(factor: float, penalty: float, trace: float) -> tuple[float, float]:
    # Images that all equal their class mean say nothing of the covariance; the identity stands in.
    return (factor, penalty) if trace > 0 else (1.0, 1.0)


@dataclass(frozen=True, eq=False)
class WithinClass:
    """Images less their class mean: `rows` `(n, D)` float64, `means` `(2, D)`, `labels` `(n,)`, `counts` `(2,)`."""

    rows: np.ndarray
    means: np.ndarray
    labels: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> WithinClass:
        """The images `x` `(n, D)` with labels `y`; the mean of a class that is not there is 0."""
        x = np.asarray(x, dtype=np.float64)
        means = np.stack([x[y == c].mean(0) if (y == c).any() else np.zeros(x.shape[1]) for c in (0, 1)])
        return cls(x - means[y], means, y, np.bincount(y, minlength=2))


def discriminant(
    scatter: WithinClass, spectrum: Spectrum, factor: float, penalty: float
) -> tuple[np.ndarray, float, np.ndarray]:
    """Weights, bias (threshold half-way between the means) and leave-one-out logits `(n,)`, NaN for a class of one.

    Without image i of class c (n_c images, z = x_i - μ_c) the mean of its class moves by -z / (n_c - 1) and the
    scatter loses n_c / (n_c - 1)·zzᵀ, so all that is needed are the products of z and δ = μ₁ - μ₀ under the inverse.
    """
    delta = scatter.means[1] - scatter.means[0]
    weight = factor * spectrum.solve(delta, penalty)
    bias = -float(weight @ scatter.means.mean(0))
    q = float(delta @ weight)
    u = scatter.rows @ weight
    squares = spectrum.squares
    h = factor * (np.square(spectrum.images) * (squares / (squares + penalty))).sum(1)  # zᵀ A z: z is in the span
    n = scatter.counts[scatter.labels].astype(np.float64)
    sign = np.where(scatter.labels == 1, 1.0, -1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 / (n - 1)
        difference = -sign * share  # δ' = δ + difference·z
        beyond = 1 + share / 2  # x_i less the new mid-point = ±δ/2 + beyond·z
        plain = sign / 2 * q + (beyond + difference * sign / 2) * u + difference * beyond * h
        left, right = u + difference * h, sign / 2 * u + beyond * h  # zᵀA times either vector
        removed = (1 + share) / factor
        left_out = plain + removed * left * right / (1 - removed * h)
    return weight, bias, np.where(n > 1, left_out, np.nan)
