"""Intervals that hold for many differences at once, and what differences they could have shown.

A curve asks the same question at every budget and ratio. Of 24 intervals that cover 95 % each, one and more miss; so
those of a family are widened by one factor until all of them together cover in 95 % of curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guardtrain.curves.statistics import CONFIDENCE

POWER = 0.8
_DRAWS = 1000
_BLOCK = 2_000_000  # numbers drawn at once


@dataclass(frozen=True)
class Errors:
    """Where the uncertainty of F means comes from: seeds and test images, which are crossed.

    Args:
        mean, n_seeds: (F,) over the seeds that are there.
        seed: (F,) standard errors of the mean from the seeds, on the test images as they are; NaN below two seeds.
        image: (F,) standard errors from the test images; 0 where they are taken as fixed.
        away: (F, S) deviations from the mean over seeds, 0 where a seed is not there.
        moved: (F, B) what the mean strays from test set to test set, of standard deviation `image`.
    """

    mean: np.ndarray
    n_seeds: np.ndarray
    seed: np.ndarray
    image: np.ndarray
    away: np.ndarray
    moved: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Errors:
        """Compute the errors of F metrics, or differences of metrics, of S seeds.

        The spread over seeds on fixed images holds the seeds' own variance and their interaction with images; that of
        the means over resampled test sets holds the images' own and the interaction again, over S. Resampled seed by
        seed, they differ by the interaction, which is taken off the images' part: so both together have each part once
        (Brennan, "Generalizability Theory", 2001, chapter 3; Owen, Annals of Applied Statistics 1(2), 2007).

        Args:
            values: (F, S, 1 + B): on the test images as they are, then on B resampled test sets, the same for all; NaN
                where a seed is not there. B may be 0.
        """
        observed, resampled = values[..., 0], values[..., 1:]
        known = ~np.isnan(observed)
        n = known.sum(axis=1)
        mean = np.where(known, observed, 0).sum(axis=1) / np.where(n > 0, n, np.nan)
        away = np.where(known, observed - mean[:, None], 0)
        freedom = np.where(n > 1, n - 1, np.nan)
        seed = np.sqrt((away**2).sum(axis=1) / freedom / n)
        if not resampled.shape[2]:
            return cls(mean, n, seed, np.zeros(len(mean)), away, np.zeros((len(mean), 1)))
        whole = np.where(known[..., None], resampled, 0)
        moved = whole.sum(axis=1) / np.where(n > 0, n, np.nan)[:, None]
        moved = np.nan_to_num(moved - np.nanmean(moved, axis=1, keepdims=True))  # a test set may not define a metric
        together = (moved**2).mean(axis=1)
        each = np.where(known, np.nan_to_num(np.nanvar(whole, axis=2)), 0).sum(axis=1) / np.where(n > 0, n, np.nan)
        own = np.where(n > 1, together - (each - together) / freedom, together).clip(0)
        scale = np.sqrt(np.divide(own, together, out=np.zeros_like(own), where=together > 0))
        return cls(mean, n, seed, np.sqrt(own), away, moved * scale[:, None])

    def half_width(self, confidence: float) -> np.ndarray:
        """(F,) half widths of the intervals of single means; NaN below two seeds."""
        return half_widths(self.seed, self.image, self.n_seeds, confidence)


def half_widths(seed: np.ndarray, image: np.ndarray, n_seeds: np.ndarray, confidence: float) -> np.ndarray:
    """`t_ν · sqrt(seed² + image²)`, of any shape; ν by Satterthwaite: n - 1 where seeds are all, more where images are.

    NaN below two seeds.
    """
    from scipy.special import stdtrit

    freedom = freedom_of(seed, image, n_seeds)
    return np.asarray(stdtrit(freedom, (1 + confidence) / 2) * np.hypot(seed, image))


def freedom_of(seed: np.ndarray, image: np.ndarray, n_seeds: np.ndarray) -> np.ndarray:
    """Degrees of freedom of `seed² + image²` after Satterthwaite, the second known well; NaN below two seeds."""
    total = np.hypot(seed, image)
    more = np.divide(total, seed, out=np.full_like(total, 1e3), where=seed > 0)
    return np.asarray(np.minimum(np.where(n_seeds > 1, n_seeds - 1, np.nan) * more**4, 1e9))


def detectable(seed: np.ndarray, image: np.ndarray, n_seeds: np.ndarray, half: np.ndarray, power: float) -> np.ndarray:
    """The true differences that intervals of half width `half` leave zero out for with this power, of any shape.

    By Johnson and Welch's normal approximation of the noncentral t distribution ("Applications of the non-central
    t-distribution", Biometrika 31, 1940): the half width is estimated, too, and of few seeds varies much.
    """
    from scipy.special import ndtri

    total, freedom = np.hypot(seed, image), freedom_of(seed, image, n_seeds)
    quantile = np.divide(half, total, out=np.zeros_like(total), where=total > 0)
    spread = np.sqrt(1 + quantile**2 / (2 * freedom))
    return np.asarray(total * (quantile * (1 - 1 / (4 * freedom)) + ndtri(power) * spread))


@dataclass(frozen=True)
class Family:
    """F differences, each with its interval for itself and with one that holds for all of them at once.

    Args:
        errors: of the differences.
        alone: (F,) half widths of the intervals for themselves; NaN below two seeds.
        factor: what `alone` is multiplied by, 1 or more.
        confidence: of all.
    """

    errors: Errors
    alone: np.ndarray
    factor: float
    confidence: float

    @property
    def difference(self) -> np.ndarray:
        """(F,) means over the seeds that both sides have."""
        return self.errors.mean

    @property
    def together(self) -> np.ndarray:
        """(F,) half widths of the intervals that hold at once."""
        return np.asarray(self.factor * self.alone)

    @property
    def detectable(self) -> np.ndarray:
        """(F,) the smallest true differences that the intervals leave zero out for in 80 of 100 curves."""
        errors = self.errors
        return detectable(errors.seed, errors.image, errors.n_seeds, self.together, POWER)


def family(values: np.ndarray, confidence: float = CONFIDENCE, seed: int = 0) -> Family:
    """The intervals of F differences.

    The factor is the quantile, at the confidence, of the largest of F ratios of error to half width, where errors and
    spreads are drawn anew: over seeds from a normal distribution with the seeds' correlation, which of few seeds is
    shrunk towards none, and over images from the resampled test sets.

    Args:
        values: (F, S, 1 + B) differences, see `Errors.of`.

    >>> one = family(np.array([[[0.1], [0.2], [0.3]]]))
    >>> float(one.together[0].round(3)), one.factor  # of one difference it is Student's t interval
    (0.248, 1.0)
    """
    errors = Errors.of(values)
    alone = errors.half_width(confidence)
    drawn = np.flatnonzero(alone > 0)
    factor = 1.0
    if len(drawn) > 1:
        factor = max(1.0, _factor(errors, drawn, confidence, np.random.default_rng(seed)))
    return Family(errors, alone, factor, confidence)


def _factor(errors: Errors, drawn: np.ndarray, confidence: float, rng: np.random.Generator) -> float:
    """The quantile of the largest ratio of an error to its half width."""
    n, image, moved = errors.n_seeds[drawn], errors.image[drawn], errors.moved[drawn]
    scale = errors.seed[drawn] * np.sqrt(n)
    root = _root(shrunk_correlation(errors.away[drawn]))
    seeds = int(n.max())
    kept = np.arange(seeds)[:, None] < n
    largest = []
    width = max(1, _BLOCK // (seeds * len(drawn)))
    for first in range(0, _DRAWS, width):
        size = min(width, _DRAWS - first)
        values = rng.normal(size=(size, seeds, len(drawn))) @ root.T * scale  # (size, S, F)
        mean = np.where(kept, values, 0).sum(axis=1) / n
        spread = np.sqrt((np.where(kept, values - mean[:, None], 0) ** 2).sum(axis=1) / (n - 1) / n)
        error = np.abs(mean + moved[:, rng.integers(moved.shape[1], size=size)].T)
        largest.append((error / half_widths(spread, image, n, confidence)).max(axis=1))
    return float(np.quantile(np.concatenate(largest), confidence))


def shrunk_correlation(away: np.ndarray) -> np.ndarray:
    """(F, F) correlations of F rows of deviations (F, S) over seeds, shrunk towards none by how uncertain they are.

    The shrinkage is `Σ var(r) / Σ r²` over pairs of rows (Schäfer and Strimmer, "A shrinkage approach to large-scale
    covariance matrix estimation", Statistical Applications in Genetics and Molecular Biology 4(1), 2005), with the
    variance of a correlation of normal values, `(1 - r²)² / (S - 1)`.
    """
    count = away.shape[1]
    norm = np.sqrt((away**2).sum(axis=1, keepdims=True))
    unit = np.divide(away, norm, out=np.zeros_like(away), where=norm > 0) * np.sqrt(count)
    r = unit @ unit.T / count
    apart = ~np.eye(len(r), dtype=bool)
    total = (r[apart] ** 2).sum()
    spread = ((1 - r[apart] ** 2) ** 2).sum() / (count - 1)
    shrink = min(1.0, float(spread / total)) if total > 0 else 1.0
    return np.asarray(np.where(apart, (1 - shrink) * r, 1.0))


def _root(matrix: np.ndarray) -> np.ndarray:
    """(F, F) such that its product with its own transpose is the positive semidefinite `matrix`."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(values.clip(0)))
