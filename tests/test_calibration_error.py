"""The calibration error's interval against the truth of drawn images; what it does at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from guardtrain.bins import bin_of
from guardtrain.calibration_error import calibration_error, chance_alone

TRUE = {"right": 1.0, "too sure": 0.55}


def drawn(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n,), and how probable unsafe really is at each."""
    score = rng.normal(0, 1.5, n)
    return expit(score), expit(TRUE[kind] * score)


def true_error(kind: str) -> float:
    """The ECE, in 15 bins, of images without number."""
    p, q = drawn(kind, 400_000, np.random.default_rng(0))
    return float(np.abs(np.bincount(bin_of(p, 15), p - q)).sum() / len(p))


@pytest.mark.parametrize("kind", TRUE)
@pytest.mark.parametrize("n", [60, 200, 1000])
def test_its_interval_covers_the_true_error(kind: str, n: int) -> None:
    """About 95 of 100 would; below .86 of 80 are 1 in 1,000 where it covers so often."""
    rng, truth, covered = np.random.default_rng(n), true_error(kind), []
    assert truth == pytest.approx({"right": 0.0, "too sure": 0.084}[kind], abs=0.002)
    for _ in range(80):
        p, q = drawn(kind, n, rng)
        found = calibration_error(p, rng.random(n) < q, bin_of(p, 15), rng, replicates=200)
        assert found.low <= found.value <= found.high
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.86


def test_images_of_one_group_are_no_more_evidence_than_one() -> None:
    """Each image four times: the measured error says no more than that of a quarter as many."""
    rng = np.random.default_rng(3)
    p, q = drawn("right", 150, rng)
    y = rng.random(150) < q
    four = [np.repeat(a, 4) for a in (p, y, bin_of(p, 15))]
    once = calibration_error(p, y, bin_of(p, 15), np.random.default_rng(0))
    grouped = calibration_error(*four, np.random.default_rng(0), group=np.repeat(np.arange(150), 4))
    loose = calibration_error(*four, np.random.default_rng(0))
    assert grouped.measured == pytest.approx(once.measured)
    assert grouped.noise_high == pytest.approx(once.noise_high, rel=0.1)
    assert loose.noise_high < 0.6 * once.noise_high


@pytest.mark.parametrize(("p", "y"), [([1.0, 0.0], [1, 0]), ([1.0, 1.0], [0, 0]), ([0.5], [1]), ([0.0] * 5, [0] * 5)])
def test_edges(p: list[float], y: list[int]) -> None:
    probabilities = np.array(p)
    found = calibration_error(probabilities, np.array(y), bin_of(probabilities, 15), np.random.default_rng(0))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.measured == pytest.approx(abs(np.mean(probabilities) - np.mean(y)))
    assert found.high > 0 or found.measured == 0


def test_chance_alone_is_the_mean_error_of_right_probabilities() -> None:
    rng = np.random.default_rng(0)
    p, _ = drawn("right", 200, rng)
    every = [np.abs(np.bincount(bin_of(p, 15), p - (rng.random(200) < p))).sum() / 200 for _ in range(2000)]
    assert chance_alone(p, bin_of(p, 15), rng) == pytest.approx(np.mean(every), rel=0.05)
