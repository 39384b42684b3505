from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from guardtrain import metrics as gm
from guardtrain.errors import DataError
from guardtrain.guards.reliability import Reliability, ece, reliability


def _right(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right."""
    g = np.random.default_rng(seed)
    p = g.beta(0.6, 1.2, n)
    return p, (g.random(n) < p).astype(int)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 80), st.integers(0, 999), st.sampled_from([1, 4, 15, 1000]), st.sampled_from([2, 15]))
def test_ece_is_that_of_the_metrics(n: int, seed: int, levels: int, bins: int) -> None:
    g = np.random.default_rng(seed)
    p, y = g.integers(0, levels + 1, n) / levels, g.integers(0, 2, n)
    expected = gm.ece(torch.from_numpy(p)[None], torch.from_numpy(y), bins).item()
    assert ece(p, y, bins) == pytest.approx(expected, abs=1e-12)
    assert reliability(p, y, bins=bins, replicates=2).ece_measured == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 200), st.integers(0, 999), st.sampled_from([3, 10, 1000]))
def test_equal_mass_bins_are_scikit_learns(n: int, seed: int, levels: int) -> None:
    g = np.random.default_rng(seed)
    p, y = g.integers(0, levels + 1, n) / levels, g.integers(0, 2, n)
    y[:2] = [0, 1]
    shares, means = calibration_curve(y, p, n_bins=5, strategy="quantile")
    edges = np.quantile(p, np.linspace(0, 1, 6))
    sizes = np.bincount(np.searchsorted(edges[1:-1], p), minlength=5)
    expected = (np.abs(shares - means) * sizes[sizes > 0]).sum() / n
    assert ece(p, y, 5, equal_mass=True) == pytest.approx(expected, abs=1e-12)
    assert reliability(p, y, bins=5, replicates=2).ece_equal_mass_measured == pytest.approx(expected, abs=1e-12)


def test_brier_and_log_loss_are_scikit_learns_and_lie_in_their_intervals() -> None:
    p, y = _right(300)
    found = reliability(p, y)
    assert found.brier.value == pytest.approx(brier_score_loss(y, p))
    assert found.log_loss.value == pytest.approx(log_loss(y, p))
    for one in (found.ece, found.ece_equal_mass, found.brier, found.log_loss):
        assert 0 <= one.low <= one.value <= one.high
    half = np.square(p - y).std() / np.sqrt(300) * 1.96
    assert found.brier.high - found.brier.low == pytest.approx(2 * half, rel=0.15)


def test_right_probabilities_are_within_their_noise_and_wrong_ones_are_not() -> None:
    inside = []
    for seed in range(60):
        p, y = _right(250, seed)
        found = reliability(p, y, replicates=200)
        inside.append(found.ece.low == 0)
        assert found.ece_noise.low < found.ece_noise.value < found.ece_noise.high
    assert np.mean(inside) >= 0.9
    p, y = _right(2000)
    assert not reliability(p**3, y, replicates=200).within_noise


def test_groups_widen_the_intervals() -> None:
    p, y = _right(200)
    four = [np.repeat(a, 4) for a in (p, y, np.arange(200))]
    alone, together = reliability(four[0], four[1]), reliability(*four)
    width = lambda r: r.brier.high - r.brier.low  # noqa: E731
    assert width(together) == pytest.approx(2 * width(alone), rel=0.15)
    assert together.n_groups == 200 and together.n_images == 800


def test_it_is_repeatable_and_survives_json() -> None:
    p, y = _right(50)
    found = reliability(p, y, seed=3)
    assert reliability(p, y, seed=3) == found != reliability(p, y, seed=4)
    assert Reliability.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(DataError, match="lacks ece"):
        Reliability.from_dict({})


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y = _right(40)
    whole = reliability(p, y, replicates=50)
    monkeypatch.setattr("guardtrain.guards.reliability._BLOCK", 100)
    assert reliability(p, y, replicates=50).brier == whole.brier


def test_logits_are_refused() -> None:
    with pytest.raises(DataError, match=r"must lie in \[0, 1\]"):
        reliability(np.array([-1.0, 0.5]), np.array([0, 1]))
