from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from guardtrain.heads.calibration import platt


def _reference(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, intercept: bool) -> tuple[float, float]:
    """scikit-learn on every image twice, once a label, with the smoothed target as weight."""
    unsafe = labels.sum()
    targets = np.where(labels == 1, (unsafe + 1) / (unsafe + 2), 1 / (len(labels) - unsafe + 2))
    model = LogisticRegression(C=1e10, tol=1e-10, max_iter=10_000, fit_intercept=intercept)
    model.fit(
        np.tile(scores, 2)[:, None],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    return float(model.coef_[0, 0]), float(np.ravel(model.intercept_)[0])


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("gap", [1.5, 50.0])  # the second separates the classes
def test_it_is_logistic_regression_with_platts_targets(gap: float, intercept: bool) -> None:
    g = np.random.default_rng(0)
    labels = (np.arange(40) % 4 == 0).astype(int)
    scores, weights = g.normal(size=40) + gap * labels, g.uniform(0.5, 2, 40)
    expected = _reference(scores, labels, weights, intercept)
    np.testing.assert_allclose(platt(scores, labels, weights, intercept=intercept), expected, rtol=1e-4)


def test_scores_worse_than_chance_are_flattened_not_turned_round() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    slope, intercept = platt(-labels + np.linspace(0, 0.1, 5), labels)
    assert 0 < slope < 0.01
    assert intercept == pytest.approx(logit((3 / 4 * 2 + 1 / 5 * 3) / 5), abs=0.01)  # the mean smoothed target


@pytest.mark.parametrize(("scores", "labels"), [([], []), ([1.0, 2.0], [1, 1]), ([3.0, 3.0], [0, 1])])
def test_scores_that_say_nothing_stay(scores: list[float], labels: list[int]) -> None:
    assert platt(np.array(scores), np.array(labels)) == (1.0, 0.0)
