"""From scores to logits: Platt's logistic fit on scores that each image got from a head fitted without it."""

from __future__ import annotations

import numpy as np

_STEPS = 50
_LEAST_SLOPE = 1e-3  # in units of 1 / (the scores' spread)


def platt(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, *, intercept: bool = True
) -> tuple[float, float]:
    """Slope and intercept that make logits of scores (Platt, Advances in Large Margin Classifiers, 1999).

    Minimises the cross-entropy of `slope·score + intercept` with Platt's smoothed targets, (N₊ + 1) / (N₊ + 2) for
    unsafe and 1 / (N₋ + 2) for safe images: scores that separate the classes then have a finite slope. Newton's
    method with halved steps, as Lin, Lin and Weng (Machine Learning 68, 2007) recommend.

    The slope is never negative: at a tiny budget scores of images left out can be worse than chance by
    construction, and the logits then only become nearly flat. The order of the scores is the head's own business.

    Args:
        scores: `(n,)`, not those of images the head was fitted on.
        labels: `(n,)`, 1 is unsafe.
        weights: `(n,)` what each image counts; None for 1.
        intercept: whether the intercept is fitted, too; else it is 0.

    Returns:
        Slope > 0 and intercept; (1, 0) where `scores` are empty, of one class or all the same.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    unsafe, spread = int((labels == 1).sum()), float(scores.std()) if len(scores) else 0.0
    if not 0 < unsafe < len(scores) or spread == 0:
        return 1.0, 0.0
    targets = np.where(labels == 1, (unsafe + 1) / (unsafe + 2), 1 / (len(labels) - unsafe + 2))
    design = np.stack([scores / spread, np.ones(len(scores))])[: 2 if intercept else 1]  # (2, n)
    found = _newton(design, targets, weights)
    if found[0] < _LEAST_SLOPE:
        found[0] = _LEAST_SLOPE
        if intercept:
            found[1:] = _newton(design[1:], targets, weights)
    return float(found[0] / spread), float(found[1]) if intercept else 0.0


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(-logits))`, without overflow."""
    return 0.5 * (1 + np.tanh(logits / 2))


def _newton(design: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The minimiser `(p,)` of the weighted cross-entropy of `designᵀ·β` with soft targets."""

    def loss(beta: np.ndarray) -> float:
        logits = beta @ design
        return float((weights * (np.logaddexp(0, logits) - targets * logits)).sum())

    beta = np.zeros(len(design))
    value = loss(beta)
    for _ in range(_STEPS):
        p = sigmoid(beta @ design)
        gradient = design @ (weights * (p - targets))
        curvature = (design * (weights * p * (1 - p))) @ design.T
        step = np.linalg.solve(curvature + 1e-12 * weights.sum() * np.eye(len(beta)), gradient)
        length = 1.0
        while (trial := loss(beta - length * step)) > value and length > 1e-8:
            length /= 2
        if trial > value:
            break
        beta, gained, value = beta - length * step, value - trial, trial
        if gained <= 1e-12 * weights.sum():
            break
    return beta
