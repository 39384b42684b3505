from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier

from guardtrain.heads import RidgeHead
from guardtrain.heads.calibration import platt
from tests.heads.toys import logits, toy_data

STRENGTHS = [0.01, 1.0, 30.0]


def _scaled(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    like = like.astype(float)
    return (x - like.mean(0)) / np.sqrt(np.square(like - like.mean(0)).sum(1).mean())


@pytest.mark.parametrize(("n", "dim"), [(40, 6), (20, 30)])
def test_every_strength_is_scikit_learns_ridge(n: int, dim: int) -> None:
    data, test = toy_data(n, dim, weighted=True), toy_data(50, dim, seed=1).x
    banks = RidgeHead(calibrate=False).solve(data, STRENGTHS)
    for bank, alpha in zip(banks, STRENGTHS, strict=True):
        x = _scaled(data.x, data.x)
        reference = Ridge(alpha=alpha).fit(x, 2 * data.y - 1, sample_weight=data.weights)
        expected = reference.predict(_scaled(test, data.x))
        np.testing.assert_allclose(logits(bank, test), expected, rtol=1e-3, atol=1e-4)
        sides = RidgeClassifier(alpha=alpha, class_weight="balanced").fit(x, data.y).predict(_scaled(test, data.x))
        clear = np.abs(expected) > 1e-3  # of either solver's rounding
        assert clear.sum() > 40
        assert ((logits(bank, test) > 0) == (sides == 1))[clear].all()


@pytest.mark.parametrize(("n", "dim"), [(40, 6), (20, 30)])
def test_it_is_calibrated_on_predictions_for_images_left_out(n: int, dim: int) -> None:
    data = toy_data(n, dim, weighted=True)
    x, targets = _scaled(data.x, data.x), 2 * data.y - 1
    for bank, alpha in zip(RidgeHead().solve(data, STRENGTHS), STRENGTHS, strict=True):
        left_out = np.empty(n)
        for i in range(n):
            keep = np.arange(n) != i
            model = Ridge(alpha=alpha).fit(x[keep], targets[keep], sample_weight=data.weights[keep])
            left_out[i] = model.predict(x[i : i + 1])[0]
        slope, offset = platt(left_out, data.y, data.weights)
        whole = Ridge(alpha=alpha).fit(x, targets, sample_weight=data.weights).predict(x)
        np.testing.assert_allclose(logits(bank, data.x), slope * whole + offset, rtol=2e-3, atol=2e-3)


def test_no_penalty_goes_through_every_target() -> None:
    data = toy_data(10, 30)
    plain, calibrated = (RidgeHead(calibrate=c).solve(data, [0.0])[0] for c in (False, True))
    np.testing.assert_allclose(logits(plain, data.x), 2 * data.y - 1, atol=1e-3)
    assert np.isfinite(logits(calibrated, data.x)).all()


def test_images_that_are_all_the_same_give_a_flat_head() -> None:
    data = toy_data(6, 3)
    data.x[:] = 1
    assert np.ptp(logits(RidgeHead().solve(data, [1.0])[0], np.eye(3))) == 0
