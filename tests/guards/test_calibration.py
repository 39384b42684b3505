from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.calibration import (
    CALIBRATORS,
    Beta,
    Identity,
    Isotonic,
    Platt,
    Temperature,
    calibrator_from_dict,
    fit_calibrator,
    sigmoid,
)


def _logits(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are three times too sure and off by one."""
    g = np.random.default_rng(seed)
    true = g.normal(-0.5, 1.2, n)
    return 3 * true + 1, (g.random(n) < expit(true)).astype(int)


class _Logit(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its only feature."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> _Logit:
        self.classes_, self.fitted_ = np.unique(y), True
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x[:, 0]


def _scikit(method: str, logits: np.ndarray, labels: np.ndarray, at: np.ndarray) -> np.ndarray:
    from sklearn.frozen import FrozenEstimator

    frozen = FrozenEstimator(_Logit().fit(logits[:, None], labels))
    # one calibrator a fold would be averaged: here all of them see all images
    everything = [(np.arange(len(labels)), np.arange(len(labels)))] * 2
    model = CalibratedClassifierCV(frozen, method=method, ensemble=True, cv=everything)
    return model.fit(logits[:, None], labels).predict_proba(at[:, None])[:, 1]


@pytest.mark.parametrize(("kind", "method", "tolerance"), [("platt", "sigmoid", 1e-4), ("isotonic", "isotonic", 3e-3)])
def test_platt_and_isotonic_are_scikit_learns(kind: str, method: str, tolerance: float) -> None:
    logits, labels = _logits()
    at = np.linspace(-12, 12, 101)
    ours = fit_calibrator(kind, logits, labels).probabilities(at)
    np.testing.assert_allclose(ours, _scikit(method, logits, labels, at), atol=tolerance)


def test_isotonic_keeps_away_from_certainty_and_weighs_images() -> None:
    logits, labels = _logits(60)
    weights = np.random.default_rng(1).uniform(0.5, 2, 60)
    fitted = Isotonic.fit(logits, labels, weights)
    model = IsotonicRegression(y_min=1 / 62, y_max=61 / 62, out_of_bounds="clip").fit(logits, labels, weights)
    at = np.linspace(-15, 15, 301)
    np.testing.assert_allclose(fitted.probabilities(at), model.predict(at), atol=1e-12)
    apart = Isotonic.fit(np.arange(60.0), np.repeat([0, 1], 30))
    assert apart.probabilities(np.array([-1e9, 1e9])).tolist() == pytest.approx([1 / 62, 61 / 62])


def test_temperature_minimises_the_cross_entropy() -> None:
    logits, labels = _logits(20_000)
    loss = lambda t: np.logaddexp(0, -(2 * labels - 1) * logits / np.exp(t[0])).mean()  # noqa: E731
    expected = float(np.exp(minimize(loss, [0.0], tol=1e-10).x[0]))
    assert Temperature.fit(logits, labels).temperature == pytest.approx(expected, rel=5e-3)  # Platt's targets differ


def test_beta_calibration_is_logistic_regression_on_its_two_features() -> None:
    logits, labels = _logits(50_000)
    p = expit(logits)
    features = np.column_stack([np.log(p), -np.log1p(-p)])
    model = LogisticRegression(C=1e10, tol=1e-10, max_iter=5000).fit(features, labels)
    fitted = Beta.fit(logits, labels)
    np.testing.assert_allclose(
        [fitted.a, fitted.b, fitted.c], [*model.coef_[0], model.intercept_[0]], rtol=5e-3, atol=2e-3
    )
    at = np.linspace(-10, 10, 41)
    expected = model.predict_proba(np.column_stack([np.log(expit(at)), -np.log(expit(-at))]))[:, 1]
    np.testing.assert_allclose(fitted.probabilities(at), expected, atol=2e-3)


def test_beta_calibration_finds_the_best_fit_under_its_constraint() -> None:
    g = np.random.default_rng(3)
    logits = g.normal(0, 2, 500)
    labels = (g.random(500) < np.where(logits < 0, expit(-0.4 * logits - 1), expit(logits))).astype(int)  # falls first
    fitted = Beta.fit(logits, labels)
    assert fitted.a == 0 and fitted.b > 0
    unsafe = labels.sum()
    targets = np.where(labels == 1, (unsafe + 1) / (unsafe + 2), 1 / (500 - unsafe + 2))

    def loss(abc: np.ndarray) -> float:
        margin = -abc[0] * np.logaddexp(0, -logits) + abc[1] * np.logaddexp(0, logits) + abc[2]
        return float((np.logaddexp(0, margin) - targets * margin).mean())

    best = minimize(loss, [1.0, 1.0, 0.0], bounds=[(0, None), (0, None), (None, None)], tol=1e-12)
    assert loss(np.array([fitted.a, fitted.b, fitted.c])) == pytest.approx(best.fun, abs=1e-6)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits with ties, separated, reversed or far out; labels of both classes; weights."""
    n = draw(st.integers(2, 40))
    g = np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = (g.random(n) < draw(st.sampled_from([0.1, 0.5, 0.9]))).astype(int)
    labels[:2] = [0, 1]
    logits = draw(st.sampled_from([-5.0, 0.0, 1.0, 50.0])) * labels + g.normal(size=n)
    logits = np.round(logits * draw(st.sampled_from([0.01, 1, 30])), draw(st.sampled_from([0, 1, 8])))
    return logits + draw(st.sampled_from([0.0, -40.0, 40.0])), labels, g.uniform(0.5, 2, n)


@settings(max_examples=30, deadline=None)
@given(labelled(), st.sampled_from(list(CALIBRATORS)), st.booleans())
def test_every_calibrator_is_non_decreasing_and_survives_json(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], kind: str, weighted: bool
) -> None:
    logits, labels, weights = data
    fitted = fit_calibrator(kind, logits, labels, weights if weighted else None)
    at = np.sort(np.concatenate([logits, np.linspace(-300, 300, 200), np.linspace(-3, 3, 50)]))
    p = fitted.probabilities(at)
    assert p.shape == at.shape and np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1
    assert (np.diff(p) >= -1e-12).all()
    back = calibrator_from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert back == fitted and (back.probabilities(at) == p).all()


def test_a_fit_that_finds_nothing_is_nearly_flat_at_the_rate() -> None:
    logits, labels = np.array([3.0, 2.0, 1.0, 0.0, -1.0, -2.0] * 10), np.array([0, 0, 1, 0, 1, 1] * 10)
    p = Beta.fit(logits, labels).probabilities(np.sort(logits))
    assert np.ptp(p) < 0.01 and p.mean() == pytest.approx(0.5, abs=0.01)
    assert np.ptp(p) > 0


def test_the_sigmoid_is_exact_in_both_tails() -> None:
    x = np.array([-800.0, -40.0, -1.0, 0.0, 30.0, 800.0])
    np.testing.assert_allclose(sigmoid(x), expit(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("logits", "labels", "weights", "message"),
    [
        ([1.0, np.nan], [0, 1], None, "must be finite; 1 of 2"),
        ([1.0, 2.0], [0, 2], None, "Labels must be 0"),
        ([1.0, 2.0], [1, 1], None, "needs safe validation images; all 2 are unsafe"),
        ([], [], None, "are empty"),
        ([1.0, 2.0], [0], None, "shapes"),
        ([1.0, 2.0], [0, 1], [1.0, 0.0], "Weights must be"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits: list, labels: list, weights: list | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Platt.fit(np.array(logits), np.array(labels), None if weights is None else np.array(weights))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "spline"}, "is of kind identity, temperature"),
        (None, "this one is None"),
        ({"kind": "platt", "slope": 1.0}, "lacks intercept"),
        ({"kind": "platt", "slope": 1.0, "intercept": 0.0, "code": "x"}, "has no code"),
        ({"kind": "platt", "slope": -1.0, "intercept": 0.0}, "no increasing map"),
        ({"kind": "platt", "slope": "1 + 1", "intercept": 0.0}, "must hold numbers"),
        ({"kind": "temperature", "temperature": float("nan")}, "no increasing map"),
        ({"kind": "beta", "a": 0.0, "b": 0.0, "c": 1.0}, "no increasing map"),
        ({"kind": "isotonic", "logits": [0.0, 1.0], "values": [0.5, 0.2]}, "ascending"),
    ],
)
def test_what_is_no_calibrator_is_refused(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        calibrator_from_dict(data)


def test_an_unknown_kind_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="there are: identity, temperature, platt, beta, isotonic"):
        fit_calibrator("spline", np.array([0.0, 1.0]), np.array([0, 1]))
    assert Identity().to_dict() == {"kind": "identity"}
