"""How well probabilities are calibrated: ECE, Brier score and log-loss with intervals, and what chance would show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from guardtrain.bins import bin_edges, bin_of
from guardtrain.calibration_error import CalibrationError, calibration_error
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

    A measured ECE is never 0: with few images in a bin their share of unsafe ones strays from the probability by
    chance. So each ECE is told without its chance, with an interval of the true error, and beside it stands what was
    measured and what chance alone shows; see `guardtrain.calibration_error`.

    Args:
        ece: 15 equally wide bins, those of `guardtrain.metrics.ece`; its low end is 0 exactly where chance alone could
            show as much.
        ece_equal_mass: bins of equally many images instead (adaptive; Nguyen and O'Connor, EMNLP 2015).
        brier, log_loss: means over images; the intervals are of the bootstrap over groups.
        ece_noise, ece_equal_mass_noise: mean and the quantiles at 5 and 95 % of the ECE where the probabilities are
            right (Bröcker and Smith, Weather and Forecasting 22, 2007).
        n_images, n_unsafe, n_groups: what it was measured on.
        confidence: of the intervals.
        ece_measured, ece_equal_mass_measured: as they are defined, chance and all. None in guards of old, whose `ece`
            is the measured one.
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
    ece_measured: float | None = None
    ece_equal_mass_measured: float | None = None

    @property
    def within_noise(self) -> bool:
        """Whether both ECEs are no higher than perfectly calibrated probabilities could show."""
        wide, mass = (
            one.value if measured is None else measured
            for one, measured in ((self.ece, self.ece_measured), (self.ece_equal_mass, self.ece_equal_mass_measured))
        )
        return wide <= self.ece_noise.high and mass <= self.ece_equal_mass_noise.high

    @property
    def chance(self) -> str:
        """Say what was measured and what chance alone shows; of guards of old the latter alone."""
        up_to = f"by chance alone up to {_short(self.ece_noise.high)}"
        return up_to if self.ece_measured is None else f"measured {_short(self.ece_measured)}, {up_to}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Reliability:
        """Read what `to_dict` wrote; raises DataError for missing or unknown keys."""
        since = {field.name: None for field in fields(cls) if field.default is None}  # guards of old lack them
        values = checked_fields(cls, {**since, **data} if isinstance(data, dict) else data)
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
        replicates, seed: draws of the bootstrap, and as many of labels for each true error that is tried.

    Raises:
        DataError: probabilities outside [0, 1], other labels, shapes that do not match.

    >>> reliability(np.array([0.5, 0.5]), np.array([0, 1])).ece_measured
    0.0
    """
    images = scored(probabilities, labels, groups, what="Probabilities")
    p, y = images.scores, images.labels
    if p.min() < 0 or p.max() > 1:
        raise DataError(f"Probabilities must lie in [0, 1]; they lie in [{p.min():.6g}, {p.max():.6g}].")
    group = np.bincount(images.group)
    sums = np.column_stack(
        [np.bincount(images.group, terms) for terms in (np.square(p - y), log_losses(p, y))] + [group]
    )  # (G, 3)
    rng, *error_rngs = np.random.default_rng(seed).spawn(3)
    observed = sums[:, :2].sum(axis=0) / len(p)
    totals = np.concatenate([draws @ sums for draws in _draws(images.n_groups, replicates, rng)])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(totals[:, :2] / totals[:, 2:], tails, axis=0)
    brier, log_loss = (
        Estimate(float(v), float(min(a, v)), float(max(b, v))) for v, a, b in zip(observed, low, high, strict=True)
    )
    (wide, wide_noise, wide_measured), (mass, mass_noise, mass_measured) = (
        _told(calibration_error(p, y, place, own, group=images.group, replicates=replicates, confidence=confidence))
        for place, own in zip((bin_of(p, bins), _mass_bin_of(p, bins)), error_rngs, strict=True)
    )
    return Reliability(
        wide,
        mass,
        brier,
        log_loss,
        wide_noise,
        mass_noise,
        len(p),
        int(y.sum()),
        images.n_groups,
        confidence,
        wide_measured,
        mass_measured,
    )


def _told(error: CalibrationError) -> tuple[Estimate, Estimate, float]:
    """The error, its noise, and what was measured."""
    noise = Estimate(error.noise, error.noise_low, error.noise_high)
    return Estimate(error.value, error.low, error.high), noise, error.measured


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


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else f"{value:.2f}"
