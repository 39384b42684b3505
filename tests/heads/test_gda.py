from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from guardtrain.errors import ConfigError
from guardtrain.heads import GDAHead, HeadData, RidgeHead
from guardtrain.heads.calibration import platt
from guardtrain.heads.gda import WithinClass, discriminant, empirical_bayes
from guardtrain.heads.spectrum import Spectrum
from tests.heads.toys import logits, toy_data

SHAPES = [(40, 6), (20, 30)]


@pytest.mark.parametrize(("n", "dim"), SHAPES)
@pytest.mark.parametrize("shrinkage", [0.1, 0.9, 1.0])
def test_fixed_shrinkage_is_scikit_learns(n: int, dim: int, shrinkage: float) -> None:
    data = toy_data(n, dim)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(data.x.astype(float), data.y)
    x = toy_data(50, dim, seed=1).x
    bank = GDAHead(covariance="fixed", shrinkage=shrinkage, calibrate=False).solve(data, [1.0])[0]
    np.testing.assert_allclose(logits(bank, x), reference.decision_function(x.astype(float)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_the_published_estimator(n: int, dim: int) -> None:
    """Means, the covariance of Kubokawa and Srivastava with its pseudo-inverse, W and b, as the paper writes them."""
    data = toy_data(n, dim, weighted=True)  # balanced: uniform priors, as in the paper
    x = data.x.astype(float)
    means = np.stack([x[data.y == c].mean(0) for c in (0, 1)])
    covariance = np.cov((x - means[data.y]).T)
    inverse = dim * np.linalg.pinv((n - 1) * covariance + np.trace(covariance) * np.eye(dim))
    w = means @ inverse
    b = np.log(0.5) - np.einsum("cd,de,ce->c", means, inverse, means) / 2
    test = toy_data(50, dim, seed=1).x
    published = test @ w.T + b
    bank = GDAHead(calibrate=False).solve(data, [1.0])[0]
    factor = (n - 1 + dim) / dim  # ours keeps the trace of the covariance; the paper tunes a factor instead
    np.testing.assert_allclose(logits(bank, test), factor * (published[:, 1] - published[:, 0]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_ledoit_wolf(n: int, dim: int) -> None:
    data = toy_data(n, dim)
    within = WithinClass.of(data.x, data.y)
    covariance, _ = ledoit_wolf(within.rows, assume_centered=True)
    weight = np.linalg.solve(covariance, within.means[1] - within.means[0])
    bias = np.log((data.y == 1).sum() / (data.y == 0).sum()) - weight @ within.means.mean(0)
    found = logits(GDAHead(covariance="ledoit_wolf", calibrate=False).solve(data, [1.0])[0], data.x)
    np.testing.assert_allclose(found, data.x @ weight + bias, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_leave_one_out_logits_are_those_of_refits(n: int, dim: int) -> None:
    data = toy_data(n, dim)
    within = WithinClass.of(data.x, data.y)
    spectrum = Spectrum.of(within.rows)
    factor, penalty = empirical_bayes(spectrum.trace, n, dim, 0.7)
    weight, bias, left_out = discriminant(within, spectrum, factor, penalty)
    expected = []
    for i in range(n):
        keep = np.arange(n) != i
        rest = WithinClass.of(data.x[keep], data.y[keep])
        w = factor * np.linalg.solve(rest.rows.T @ rest.rows + penalty * np.eye(dim), rest.means[1] - rest.means[0])
        expected.append(w @ (data.x[i] - rest.means.mean(0)))
    np.testing.assert_allclose(left_out, expected, rtol=1e-6, atol=1e-8)
    slope, offset = platt(np.array(expected), data.y)
    calibrated = GDAHead().solve(data, [0.7])[0]
    np.testing.assert_allclose(
        logits(calibrated, data.x), slope * (data.x @ weight + bias) + offset, rtol=1e-3, atol=1e-3
    )


def test_a_class_of_one_image_has_no_leave_one_out_logit() -> None:
    data = HeadData.of(np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 0, 0, 0, 1]))
    within = WithinClass.of(data.x, data.y)
    assert np.isnan(discriminant(within, Spectrum.of(within.rows), 1.0, 1.0)[2]).tolist() == [False] * 4 + [True]
    assert np.isfinite(logits(GDAHead().solve(data, [1.0])[0], data.x)).all()
    two = HeadData.of(np.eye(2, 3), np.array([0, 1]))  # no scatter at all: the nearest mean
    assert logits(GDAHead().solve(two, [1.0])[0], np.eye(2, 3)).tolist() == pytest.approx([-1, 1])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SHAPES), st.floats(0.01, 100), st.floats(-5, 5), st.integers(0, 99))
@pytest.mark.parametrize("head", [GDAHead(), RidgeHead()], ids=lambda h: h.name)
def test_axes_origin_and_unit_of_the_embedding_do_not_matter(head, shape, unit: float, shift: float, seed: int) -> None:
    data = toy_data(*shape, seed=seed)
    turn = ortho_group.rvs(shape[1], random_state=seed)
    moved = HeadData.of(unit * (data.x @ turn + shift), data.y)
    ours, theirs = (logits(head.solve(d, [1.0])[0], d.x) for d in (data, moved))
    np.testing.assert_allclose(ours, theirs, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("settings", [{"covariance": "full"}, {"shrinkage": 1.5}])
def test_impossible_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match="head"):
        GDAHead(**settings)
