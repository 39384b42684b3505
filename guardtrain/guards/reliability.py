"""How well probabilities are calibrated: ECE, Brier score and log-loss with intervals, and what chance would show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from guardtrain.bins import bin_edges, bin_of
from guardtrain.errors import DataError
from guardtrain.guards.calibration_inputs import checked_fields, scored

BINS = 15  # as the calibration error of the results table has them
CONFIDENCE = 0.95

_TINY = 1e-15  # probabilities are kept that far from 0 and 1 in the log-loss
_BLOCK = 200_000  # numbers drawn at once: what stays in the cache


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.value)} [{_short(self.low)}, {_short(self.high)}]"


@dataclass(frozen=True)
class Reliability:
    """Calibration of probabilities on a set of images.

    An ECE is never 0: with few images in a bin their share of unsafe ones strays from the probability by chance. So
    beside each ECE stands its noise, what perfectly calibrated probabilities of these values show on as many images.

    Args:
        ece: 15 equally wide bins, the definition of `guardtrain.metrics.ece`.
        ece_equal_mass: bins of equally many images instead (adaptive; Nguyen and O'Connor, EMNLP 2015).
        brier, log_loss: means over images.
        ece_noise, ece_equal_mass_noise: mean and interval of the ECE where the probabilities are right (Bröcker and
            Smith, Weather and Forecasting 22, 2007).
        n_images, n_unsafe, n_groups: what it was measured on.
        confidence: of the intervals. They are of the bootstrap over groups, moved by its bias: resampled images repeat
            each other, so that an ECE rises.
    """

    ece: Estimate
    ece_equal_mass: Estimate
    brier: Estimate
    log_loss: Estimate
    ece_noise: Estimate
    ece_equal_mass_noise: Estimate
    n_images: int
    n_unsafe: int
    n_groups: int
    confidence: float

    @property
    def within_noise(self) -> bool:
        """Whether both ECEs are no higher than perfectly calibrated probabilities could show."""
        return self.ece.value <= self.ece_noise.high and self.ece_equal_mass.value <= self.ece_equal_mass_noise.high

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Reliability:
        """What `to_dict` wrote; raises DataError for missing or unknown keys."""
        values = checked_fields(cls, data)
        for name, value in values.items():
            if isinstance(value, dict):
                values[name] = Estimate(**checked_fields(Estimate, value))
        return cls(**values)


def reliability(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    bins: int = BINS,
    replicates: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Reliability:
    """Measure calibration on images that the calibrator was not fitted on.

    Args:
        probabilities: (N,) in [0, 1].
        labels: (N,) 0 safe, 1 unsafe.
        groups: (N,) names; the bootstrap draws whole groups. None: each image is its own.
        bins: of both ECEs.
        replicates, seed: draws of the bootstrap, and as many of the noise.

    Raises:
        DataError: probabilities outside [0, 1], other labels, shapes that do not match.

    >>> reliability(np.array([0.5, 0.5]), np.array([0, 1])).ece.value
    0.0
    """
    images = scored(probabilities, labels, groups, what="Probabilities")
    p, y = images.scores, images.labels
    if p.min() < 0 or p.max() > 1:
        raise DataError(f"Probabilities must lie in [0, 1]; they lie in [{p.min():.6g}, {p.max():.6g}].")
    places = [bin_of(p, bins), _mass_bin_of(p, bins)]
    columns = [np.bincount(images.group * (bins + 1) + place, p - y, images.n_groups * (bins + 1)) for place in places]
    means = [np.bincount(images.group, terms, images.n_groups) for terms in (np.square(p - y), log_losses(p, y))]
    sizes = np.bincount(images.group, minlength=images.n_groups)
    sums = np.column_stack([c.reshape(images.n_groups, bins + 1) for c in columns] + means + [sizes])  # (G, 2K + 5)

    def statistics(totals: np.ndarray) -> np.ndarray:
        """(R, 4): both ECEs, Brier, log-loss of summed rows (R, columns)."""
        k = bins + 1
        gaps = np.stack([np.abs(totals[:, :k]).sum(1), np.abs(totals[:, k : 2 * k]).sum(1)], axis=1)
        return np.concatenate([gaps, totals[:, 2 * k : 2 * k + 2]], axis=1) / totals[:, -1:]

    rng, noise_rng = np.random.default_rng(seed).spawn(2)
    observed = statistics(sums.sum(axis=0, keepdims=True))[0]
    drawn = np.concatenate([statistics(draws @ sums) for draws in _draws(images.n_groups, replicates, rng)])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(drawn, tails, axis=0) - (drawn.mean(axis=0) - observed)
    wide, mass, brier, log_loss = (
        Estimate(float(v), float(max(0.0, min(a, v))), float(max(b, v)))
        for v, a, b in zip(observed, low, high, strict=True)
    )
    wide_noise, mass_noise = (_noise(p, place, replicates, tails, noise_rng) for place in places)
    n_unsafe = int(y.sum())
    return Reliability(
        wide, mass, brier, log_loss, wide_noise, mass_noise, len(p), n_unsafe, images.n_groups, confidence
    )


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, *, equal_mass: bool = False) -> float:
    """Expected calibration error: sum over bins of |mean p - share unsafe| · share of images.

    Args:
        probabilities, labels: (N,).
        equal_mass: bins between quantiles of the probabilities, those of scikit-learn's
            `calibration_curve(strategy="quantile")`; else equally wide, as in `guardtrain.metrics.ece`.

    >>> ece(np.array([0.25, 0.25, 0.75, 0.75]), np.array([0, 0, 1, 1]), bins=2)
    0.25
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    place = _mass_bin_of(p, bins) if equal_mass else bin_of(p, bins)
    return float(np.abs(np.bincount(place, p - y)).sum() / len(p))


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy (N,) of each image, in nats."""
    p = np.clip(probabilities, _TINY, 1 - _TINY)
    return -np.where(np.asarray(labels) == 1, np.log(p), np.log1p(-p))


def _mass_bin_of(p: np.ndarray, bins: int) -> np.ndarray:
    """The bin (edge, next edge] of each probability between quantiles; equal ones make a bin empty and split no tie."""
    return np.searchsorted(np.quantile(p, bin_edges(bins)[1:-1]), p, side="left")


def _draws(groups: int, replicates: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each group is drawn when as many are drawn as there are, (b, G) blocks of all replicates."""
    width = max(1, _BLOCK // groups)
    for first in range(0, replicates, width):
        b = min(width, replicates - first)
        chosen = rng.integers(groups, size=(b, groups)) + groups * np.arange(b)[:, None]
        yield np.bincount(chosen.ravel(), minlength=b * groups).reshape(b, groups).astype(np.float64)


def _noise(p: np.ndarray, place: np.ndarray, replicates: int, tails: list[float], rng: np.random.Generator) -> Estimate:
    """Mean and quantiles of the ECE where each label is drawn with its probability."""
    order = np.argsort(place, kind="stable")
    sorted_p = p[order]
    _, starts = np.unique(place[order], return_index=True)
    found, width = [], max(1, _BLOCK // len(p))
    for first in range(0, replicates, width):
        drawn = rng.random((min(width, replicates - first), len(p))) < sorted_p
        found.append(np.abs(np.add.reduceat(sorted_p - drawn, starts, axis=1)).sum(1) / len(p))
    values = np.concatenate(found)
    low, high = np.quantile(values, tails)
    return Estimate(float(values.mean()), float(low), float(high))


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else f"{value:.2f}"
