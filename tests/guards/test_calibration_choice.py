from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss

from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.calibration import CALIBRATORS, Identity, fit_calibrator
from guardtrain.guards.calibration_choice import Calibration, choose_calibration


def _drawn(n: int, slope: float, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `slope · true + shift`."""
    g = np.random.default_rng(seed)
    true = g.normal(-0.3, 1.5, n)
    return slope * true + shift, (g.random(n) < expit(true)).astype(int)


@pytest.mark.parametrize(
    ("slope", "shift", "expected"), [(1.0, 0.0, "identity"), (4.0, 0.0, "temperature"), (2.0, 2.0, "platt")]
)
def test_the_simplest_that_is_right_is_chosen(slope: float, shift: float, expected: str) -> None:
    kinds = [choose_calibration(*_drawn(800, slope, shift, s), replicates=10).calibrator.kind for s in range(8)]
    assert kinds.count(expected) >= 6, kinds


def test_a_step_in_the_probabilities_takes_the_freest() -> None:
    g = np.random.default_rng(0)
    logits = g.normal(0, 2, 5000)
    labels = (g.random(5000) < np.select([logits < -1, logits < 1], [0.05, 0.5], 0.6)).astype(int)
    assert choose_calibration(logits, labels, replicates=10).calibrator.kind == "isotonic"


@pytest.mark.parametrize("score", ["log_loss", "brier"])
def test_candidates_are_judged_by_what_they_did_not_see(score: str) -> None:
    logits, labels = _drawn(120, 2.0, 1.0)
    found = choose_calibration(logits, labels, score=score, replicates=10)
    judge = log_loss if score == "log_loss" else brier_score_loss
    losses = {c.kind: c.loss for c in found.candidates}
    assert list(losses) == list(CALIBRATORS) and found.folds == 5
    assert losses["identity"] == pytest.approx(judge(labels, expit(logits)))
    inside = fit_calibrator("isotonic", logits, labels).probabilities(logits)
    assert losses["isotonic"] > judge(labels, inside) + 0.005  # learnt by heart it would look better
    best = min(found.candidates, key=lambda c: c.loss)
    assert best.difference == 0 and best.error == 0
    chosen = next(c for c in found.candidates if c.kind == found.calibrator.kind)
    assert chosen.difference <= chosen.error


def test_groups_are_never_split() -> None:
    """Every image four times: unless copies stay together isotonic regression is judged on images it knows."""
    logits, labels = _drawn(60, 1.0, 0.0)
    four = [np.repeat(a, 4) for a in (logits, labels, np.arange(60))]
    apart = choose_calibration(four[0], four[1], replicates=10)
    whole = choose_calibration(four[0], four[1], groups=four[2], replicates=10)
    losses = [next(c.loss for c in found.candidates if c.kind == "isotonic") for found in (apart, whole)]
    assert losses[0] < losses[1] - 0.02
    assert whole.before.n_groups == 60


def test_it_halves_the_calibration_error_of_a_head_that_is_too_sure() -> None:
    logits, labels = _drawn(1000, 4.0, 2.0)
    found = choose_calibration(logits, labels)
    assert found.after.ece.value < found.before.ece.value / 2
    assert found.after.within_noise and not found.before.within_noise
    test_logits, test_labels = _drawn(4000, 4.0, 2.0, seed=1)
    p = found.calibrator.probabilities(test_logits)
    assert log_loss(test_labels, p) == pytest.approx(found.after.log_loss.value, abs=0.05)
    assert found.line.startswith(
        f"{found.calibrator.kind} (cross-fitted on 1,000 validation images): ECE without chance ."
    )


def test_weights_count_in_fits_and_losses() -> None:
    logits, labels = _drawn(200, 2.0, 0.0)
    weights = np.where(np.arange(200) < 100, 1.0, 1e-9)
    rows = slice(0, 100)
    weighted = choose_calibration(logits, labels, weights=weights, kinds=["identity"], replicates=2)
    assert weighted.candidates[0].loss == pytest.approx(log_loss(labels[rows], expit(logits[rows])), abs=1e-6)


def test_too_few_images_choose_nothing() -> None:
    found = choose_calibration(np.array([-1.0, 0.0, 2.0]), np.array([0, 0, 1]), replicates=10)
    assert found.calibrator == Identity() and found.folds == 0 and found.candidates == ()
    assert "too few images to choose" in found.line


def test_it_survives_json() -> None:
    found = choose_calibration(*_drawn(100, 3.0, 1.0), replicates=20)
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


def test_what_is_not_there_is_refused() -> None:
    logits, labels = _drawn(20, 1.0, 0.0)
    with pytest.raises(ConfigError, match="no calibrator 'spline'"):
        choose_calibration(logits, labels, kinds=["spline"])
    with pytest.raises(ConfigError, match="not by 'ece'"):
        choose_calibration(logits, labels, score="ece")
    with pytest.raises(DataError, match="needs unsafe validation images"):
        choose_calibration(logits, np.zeros(20, dtype=int))
