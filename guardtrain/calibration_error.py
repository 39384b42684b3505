"""The calibration error behind a measured ECE: chance taken off, with an interval that covers it, 0 among it.

A measured ECE is never 0: in each bin the share of unsafe images strays from the probability by chance, and the sum of
absolute differences takes all of that for error (Bröcker, "Estimating reliability and resolution of probability
forecasts through decomposition of the empirical score", Climate Dynamics 39, 2012; Kumar, Liang and Ma, "Verified
Uncertainty Calibration", NeurIPS 2019). Resampling around the measured value does not cure that, for it resamples the
chance, too. So the interval asks the question the other way round: of which true errors is the measured value a likely
outcome?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STEPS = 25  # true errors that are tried; between them the quantiles are interpolated
_FARTHEST = 1e-3  # probabilities are kept that far from 0 and 1 where their logits are taken
_RIDGE = 0.05  # of the recalibration's two numbers, towards none
_STANDS_OUT = 2.5  # standard errors from which on a bin's gap is its own


@dataclass(frozen=True)
class CalibrationError:
    """The true calibration error, as far as a measured ECE tells it.

    Args:
        value: the true error of which the measured ECE is the median outcome; 0 where chance alone makes as much.
        low, high: the interval of the true error; `low` is 0 exactly where chance alone could show as much.
        measured: the ECE as it is defined.
        noise, noise_low, noise_high: mean and quantiles of the ECE that right probabilities show on as many images;
            at a confidence of 95 % those at 5 and 95 %.
    """

    value: float
    low: float
    high: float
    measured: float
    noise: float
    noise_low: float
    noise_high: float


def calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    place: np.ndarray,
    rng: np.random.Generator,
    *,
    group: np.ndarray | None = None,
    replicates: int = 1000,
    confidence: float = 0.95,
) -> CalibrationError:
    """The true calibration error with an interval, by inversion of a test (Neyman's construction).

    For true errors θ from 0 up, labels are drawn with the share of unsafe images in each bin that θ means, and the ECE
    is measured; the interval is of those θ whose outcomes have the measured value between their two tails. At θ = 0,
    which nothing can lie below, the upper tail has all of 1 - confidence. How an error is spread over the bins is not
    known. The low end and the value take it as the images show it: a logistic recalibration, and by itself what stands
    out from it; the high end allows that it hides as well as it can.

    Args:
        probabilities: (N,) in [0, 1].
        labels: (N,) 0 safe, 1 unsafe.
        place: (N,) int from 0, the bin of each image.
        group: (N,) int from 0; images of a group may be alike, and then the chance is larger. None: each is its own.
        replicates: draws for each θ.

    >>> p = np.repeat([0.2, 0.8], 500)
    >>> unsafe, bins = p > np.tile(np.arange(5) / 5, 200), np.repeat([0, 1], 500)
    >>> right = calibration_error(p, unsafe, bins, np.random.default_rng(0))
    >>> right.low, right.value
    (0.0, 0.0)
    """
    total = len(probabilities)
    count = np.bincount(place)
    filled = count > 0
    size = count[filled]
    expected = np.clip(np.bincount(place, probabilities)[filled] / size, 0, 1)
    unsafe = np.bincount(place, np.asarray(labels, dtype=np.float64))[filled] / size
    share = size / total
    measured = float((share * np.abs(unsafe - expected)).sum())
    spread = 1.0 if group is None else _spread(np.asarray(labels) - probabilities, place, group)
    likely, diffuse = _shapes(size, expected, unsafe, spread)

    def outcomes(away: np.ndarray, step: float) -> tuple[float, np.ndarray]:
        """The true error when every gap is `step` times `away`, and (B,) ECEs that it shows."""
        rate = np.clip(expected + step * away, 0, 1)
        chance = spread * (rng.binomial(size, rate, (replicates, len(size))) / size - rate)
        return float((share * np.abs(rate - expected)).sum()), np.abs(rate - expected + chance) @ share

    tail = (1 - confidence) / 2
    none = outcomes(likely, 0.0)[1]
    noise, (noise_low, noise_high) = float(none.mean()), np.quantile(none, [1 - confidence, confidence])

    def inverted(away: np.ndarray) -> tuple[float, float, float]:
        """Low end, median and high end of the true errors of which `measured` is a likely outcome."""
        unit = float((share * np.abs(away)).sum())
        farthest = (measured + 4 * noise + 1 / total) / unit
        errors, ends = [0.0], [np.quantile(none, [tail, 0.5, confidence])]
        for step in np.linspace(0, farthest, _STEPS)[1:]:
            error, shown = outcomes(away, float(step))
            errors.append(error)
            ends.append(np.quantile(shown, [tail, 0.5, 1 - tail]))
        below, middle, above = np.maximum.accumulate(np.array(ends), axis=0).T
        at = np.maximum.accumulate(errors)
        low, value, high = (float(np.interp(measured, line, at)) for line in (above, middle, below))
        return low, value, high

    low, value, high = inverted(likely)
    high = max(high, inverted(diffuse)[2])
    value = min(max(value, low), high)
    return CalibrationError(value, low, high, measured, noise, float(noise_low), float(noise_high))


def chance_alone(probabilities: np.ndarray, place: np.ndarray, rng: np.random.Generator, draws: int = 200) -> float:
    """The mean ECE that right probabilities (N,) show, by chance, in the bins `place` (N,)."""
    count = np.bincount(place)
    size = count[count > 0]
    expected = np.bincount(place, probabilities)[count > 0] / size
    unsafe = rng.binomial(size, np.clip(expected, 0, 1), (draws, len(size)))
    return float(np.abs(unsafe - size * expected).sum(axis=1).mean() / len(probabilities))


def _spread(gaps: np.ndarray, place: np.ndarray, group: np.ndarray) -> float:
    """How many times as far as single images' would the bins' sums of `gaps` stray, since groups come whole; 1 or more.

    Twice as far where each image is there four times: the square root of the design effect (Kish, "Survey Sampling",
    1965).
    """
    bins = int(place.max()) + 1
    _, cell = np.unique(group * bins + place, return_inverse=True)
    sums = np.bincount(cell, gaps)  # of a group in a bin
    alone = float((gaps**2).sum())
    return float(np.sqrt(max(1.0, (sums**2).sum() / alone))) if alone > 0 else 1.0


def _shapes(size: np.ndarray, expected: np.ndarray, unsafe: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaps (K,) in the shares of unsafe images, of any scale: how an error lies over the bins.

    The first is what the images show. The second has the same signs and hides best: every gap is as large as its
    chance, and of all spreads of one error that adds least to the measured one.
    """
    from scipy.special import logit  # it takes a tenth of a second, which not every command has to spend

    x = logit(np.clip(expected, _FARTHEST, 1 - _FARTHEST))
    gap = unsafe - expected
    smooth = np.zeros_like(gap)
    for _ in range(3):  # first against none at all: a bin with many images would bend the recalibration to itself
        likely = np.clip(expected + smooth, _FARTHEST, 1 - _FARTHEST)
        own = np.abs(gap - smooth) > _STANDS_OUT * spread * np.sqrt(likely * (1 - likely) / size)
        weight = np.where(own, 0, size) / spread**2
        smooth = _recalibrated(x, unsafe, weight) - expected
    if own.any():  # of two fitted numbers as much as is more than chance (James and Stein)
        moved = float((weight * smooth**2 / (likely * (1 - likely))).sum())
        smooth = smooth * max(0.0, 1 - 2 / moved) if moved > 0 else smooth
    out = np.where(own, gap, smooth)
    sign = np.where(out == 0, np.where(expected < 0.5, 1, -1), np.sign(out))
    scale = np.sqrt(np.clip(expected, _FARTHEST, 1 - _FARTHEST) * (1 - expected).clip(_FARTHEST) / size)
    return out if np.abs(out).max() > 1e-9 else sign * scale, sign * scale


def _recalibrated(x: np.ndarray, share: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shares (K,) of the logistic regression of `share` on `x`, each with a weight, by Newton's method."""
    from scipy.special import expit

    design = np.stack([np.ones_like(x), x], axis=1)
    start = np.array([0.0, 1.0])
    found = start.copy()
    for _ in range(12):
        q = expit(design @ found)
        slope = design.T @ (weight * (share - q)) - _RIDGE * (found - start)
        curve = (design * (weight * q * (1 - q))[:, None]).T @ design + _RIDGE * np.eye(2)
        found = found + np.linalg.solve(curve, slope)
    return np.asarray(expit(design @ found))
