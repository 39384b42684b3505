"""Which calibrator: judged by cross-fitting on validation with a proper score, of equals the simpler one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from guardtrain.errors import ConfigError
from guardtrain.guards.calibration import (
    CALIBRATORS,
    Calibrator,
    Identity,
    calibrator_from_dict,
    checked_weights,
    fit_calibrator,
)
from guardtrain.guards.calibration_inputs import Scored, checked_fields, require_classes, scored
from guardtrain.guards.reliability import Reliability, log_losses, reliability

SCORES = ("log_loss", "brier")


@dataclass(frozen=True)
class Candidate:
    """A calibrator that was tried.

    Args:
        kind: which.
        loss: mean of the score over images held out of its fit.
        difference: its loss above that of the best.
        error: standard error of the difference, over groups; the two are judged on the same images, so it is much
            smaller than that of either loss.
    """

    kind: str
    loss: float
    difference: float
    error: float


@dataclass(frozen=True)
class Calibration:
    """The calibrator of a guard, and how it was come by.

    Args:
        calibrator: fitted on all of validation; for a share of unsafe images other than validation's, moved there.
        score: what it was chosen by.
        candidates: all that were tried, the simplest first; none where validation was too small to choose.
        before: reliability of the head's own probabilities on validation.
        after: that of the chosen kind, each image judged by a fit that did not see its group, for validation's share
            of unsafe images.
        folds: of the cross-fitting; 0 where there was none.
    """

    calibrator: Calibrator
    score: str
    candidates: tuple[Candidate, ...]
    before: Reliability
    after: Reliability
    folds: int

    @property
    def kind(self) -> str:
        """Which calibrator was chosen; moved to another share of unsafe images it may be of another kind."""
        return _chosen(self.candidates) or self.calibrator.kind

    @property
    def line(self) -> str:
        """The result in one line, for a card."""
        a, b = self.before, self.after
        how = f"cross-fitted on {a.n_images:,} validation images" if self.folds else "too few images to choose"
        if self.kind == Identity.kind:
            return f"no calibration ({how}): ECE without chance {a.ece} ({b.chance}), Brier {a.brier}"
        return (
            f"{self.kind} ({how}): ECE without chance {a.ece} → {b.ece} ({b.chance}), "
            f"Brier {a.brier} → {b.brier}, log-loss {a.log_loss} → {b.log_loss}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "calibrator": self.calibrator.to_dict(),
            "score": self.score,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "folds": self.folds,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Calibration:
        """Read what `to_dict` wrote; raises DataError for what is missing, unknown or wrong."""
        values = checked_fields(cls, data)
        return cls(
            calibrator_from_dict(values["calibrator"]),
            values["score"],
            tuple(Candidate(**checked_fields(Candidate, candidate)) for candidate in values["candidates"]),
            Reliability.from_dict(values["before"]),
            Reliability.from_dict(values["after"]),
            values["folds"],
        )


def choose_calibration(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    kinds: Sequence[str] = tuple(CALIBRATORS),
    score: str = "log_loss",
    folds: int = 5,
    replicates: int = 1000,
    seed: int = 0,
) -> Calibration:
    """Choose a calibrator on validation and fit it.

    Each kind is fitted on the groups of all folds but one and judged on that one, fold by fold: isotonic regression
    cannot win by learning the images by heart. Chosen is the simplest kind whose loss is at most one standard error of
    the difference above the best one's; the simplest is the one that comes first in `CALIBRATORS`.

    Args:
        logits: (N,) of validation images, which the head was not trained on.
        labels: (N,) 0 safe, 1 unsafe.
        groups: (N,) names, never split; None: each image is its own.
        weights: (N,) above 0, what each image counts in fits and losses (not in the reliability); None for 1.
        kinds: what to choose from; one alone is taken.
        score: `log_loss` or `brier`, both proper.
        folds: at most; with fewer groups of a class there are fewer, below 2 nothing is chosen: the logits stay.
        replicates, seed: of the reliability's intervals; the seed also deals the folds.

    Raises:
        ConfigError: an unknown kind or score, or none.
        DataError: logits that are not finite, labels other than 0 and 1, one class only.
    """
    if unknown := [kind for kind in kinds if kind not in CALIBRATORS]:
        raise ConfigError(f"There is no calibrator '{unknown[0]}'; there are: {', '.join(CALIBRATORS)}.")
    if not kinds:
        raise ConfigError(f"No calibrator to choose from; there are: {', '.join(CALIBRATORS)}.")
    if score not in SCORES:
        raise ConfigError(f"Calibrators are chosen by {' or '.join(SCORES)}; not by '{score}'.")
    images = scored(logits, labels, groups, what="Logits")
    require_classes(images, (0, 1), "Calibration")
    mass = checked_weights(weights, len(images.scores))
    before = _reliability(Identity().probabilities(images.scores), images, replicates, seed)
    fold = _folds(images, folds, seed)
    if fold is None:
        return Calibration(Identity(), score, (), before, before, 0)
    ordered = [kind for kind in CALIBRATORS if kind in kinds]
    held_out = {kind: _cross_fitted(kind, images, mass, fold) for kind in ordered}
    losses = {kind: _losses(p, images.labels, score) for kind, p in held_out.items()}
    candidates = _candidates(losses, images, mass)
    chosen = _chosen(candidates)
    assert chosen is not None, "the best one is within its own error"
    calibrator = fit_calibrator(chosen, images.scores, images.labels, mass)
    after = before if chosen == Identity.kind else _reliability(held_out[chosen], images, replicates, seed)
    return Calibration(calibrator, score, candidates, before, after, int(fold.max()) + 1)


def _chosen(candidates: Sequence[Candidate]) -> str | None:
    """The simplest of those that are as good as the best; None of none."""
    return next((one.kind for one in candidates if one.difference <= one.error), None)


def _reliability(p: np.ndarray, images: Scored, replicates: int, seed: int) -> Reliability:
    return reliability(p, images.labels, images.group, replicates=replicates, seed=seed)


def _folds(images: Scored, folds: int, seed: int) -> np.ndarray | None:
    """(N,) the fold of each image, groups whole, labels stratified; None where there are too few groups."""
    from guardtrain.mixtures import Pool
    from guardtrain.mixtures import folds as deal

    fewest = min(len(np.unique(images.group[images.labels == label])) for label in (0, 1))
    k = min(folds, fewest)
    if k < 2:
        return None
    ids = [f"{i:09d}" for i in range(len(images.labels))]
    groups = np.array([f"{g:09d}" for g in images.group])
    return deal(Pool(ids=np.array(ids), labels=images.labels, groups=groups, name="validation"), k, seed)


def _cross_fitted(kind: str, images: Scored, mass: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(N,) probabilities, each of a fit that did not see the image's fold."""
    out = np.empty(len(fold))
    for value in np.unique(fold):
        own = fold == value
        inside = images.labels[~own]
        if inside.min() == inside.max():  # all of a class lay in this fold; nothing to fit
            out[own] = Identity().probabilities(images.scores[own])
            continue
        fitted = fit_calibrator(kind, images.scores[~own], inside, mass[~own])
        out[own] = fitted.probabilities(images.scores[own])
    return out


def _losses(p: np.ndarray, labels: np.ndarray, score: str) -> np.ndarray:
    return log_losses(p, labels) if score == "log_loss" else np.square(p - labels)


def _candidates(losses: dict[str, np.ndarray], images: Scored, mass: np.ndarray) -> tuple[Candidate, ...]:
    """All candidates with their distance to the best."""
    means = {kind: float(np.average(values, weights=mass)) for kind, values in losses.items()}
    best = min(means, key=means.__getitem__)
    out = []
    for kind, values in losses.items():
        excess = values - losses[best]
        centred = mass * (excess - np.average(excess, weights=mass)) / mass.sum()
        by_group = np.bincount(images.group, centred, images.n_groups)
        error = float(np.sqrt(images.n_groups / max(1, images.n_groups - 1) * np.square(by_group).sum()))
        out.append(Candidate(kind, means[kind], means[kind] - means[best], error))
    return tuple(out)
