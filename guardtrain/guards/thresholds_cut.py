"""Putting a threshold beside a score, and the rates it then has on validation."""

from __future__ import annotations

import numpy as np

from guardtrain.guards.calibration_inputs import Scored
from guardtrain.guards.thresholds_rates import Rate, effective_number
from guardtrain.guards.thresholds_rules import Rule

_MARGIN = 1e-4  # a threshold keeps that share of the scores' span from the image it excludes, if there is room


def beside(scores: np.ndarray, edge: float, *, upward: bool) -> float:
    """A threshold from which on the scores above `edge` are called unsafe (`upward`), or those from `edge` on.

    No other score lies between it and `edge`. It keeps off both by more than float32 would round away, so that runtimes
    of lower precision decide alike; where there is no room it is the lowest score that is called unsafe.
    """
    towards = scores[scores > edge] if upward else scores[scores < edge]
    gap = float(np.abs(towards - edge).min()) if len(towards) else np.inf
    step = min(gap / 2, _MARGIN * float(scores.max() - scores.min()) or np.inf)
    least = float(np.spacing(np.float32(max(abs(edge), float(np.finfo(np.float32).tiny)))))
    if not least <= step < np.inf:
        step = min(least, gap) if upward else 0.0
    return float(edge) + step if upward else float(edge) - step


def called_rate(images: Scored, label: int, threshold: float, confidence: float) -> Rate:
    """The share of one class that is called unsafe."""
    own = images.scores[images.labels == label]
    worth = effective_number(class_groups(images, label))
    return Rate.measured(int((own >= threshold).sum()), len(own), confidence=confidence, effective=worth)


def flagged_precision(images: Scored, threshold: float, confidence: float) -> Rate:
    """The share of those called unsafe that are."""
    called = images.scores >= threshold
    worth = effective_number(_numbered(images, called))
    right = int(images.labels[called].sum())
    return Rate.measured(right, int(called.sum()), confidence=confidence, effective=worth)


def class_groups(images: Scored, label: int) -> np.ndarray:
    """The groups of one class's images, numbered from 0."""
    return _numbered(images, images.labels == label)


def _numbered(images: Scored, rows: np.ndarray) -> np.ndarray:
    if images.n_groups == len(images.group):
        return np.arange(int(rows.sum()))
    return np.unique(images.group[rows], return_inverse=True)[1]


def with_confidence(promise: str, rule: Rule) -> str:
    """The promise with the rule's confidence, in words."""
    return f"{promise} with {rule.confidence:.0%} confidence"


def group_notes(n: int, worth: float, images: str) -> tuple[str, ...]:
    """The note that tells of groups, where there are some."""
    if worth > n - 0.5:
        return ()
    return (f"{n} {images} images lie in groups and count as {worth:.0f} independent ones.",)
