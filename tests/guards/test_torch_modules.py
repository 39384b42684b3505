from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import GuardError
from guardtrain.guards.calibration import (
    CALIBRATORS,
    Beta,
    Calibrator,
    Identity,
    Isotonic,
    Platt,
    Temperature,
    fit_calibrator,
)
from guardtrain.guards.torch_modules import calibrator_module

LOGITS = st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=20)
KINDS = [Identity(), Temperature(0.4), Temperature(8.0), Platt(1.7, -3.0), Beta(0.5, 2.0, 0.3), Beta(0.0, 1.0, -1.0)]


def _agrees(calibrator: Calibrator, logits: np.ndarray, tolerance: float = 3e-6) -> None:
    found = calibrator_module(calibrator)(torch.from_numpy(logits)).numpy()
    assert found.shape == logits.shape
    np.testing.assert_allclose(found, calibrator.probabilities(logits), atol=tolerance, rtol=0)


@pytest.mark.parametrize("calibrator", KINDS, ids=str)
@settings(max_examples=30, deadline=None)
@given(logits=LOGITS)
def test_plain_calibrators_equal_numpys(calibrator: Calibrator, logits: list[float]) -> None:
    _agrees(calibrator, np.array(logits, dtype=np.float32))


@settings(max_examples=60, deadline=None)
@given(
    corners=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12, unique=True),
    values=st.lists(st.floats(0, 1), min_size=12, max_size=12),
    logits=LOGITS,
)
def test_interpolation_equals_numpys_also_at_its_corners(
    corners: list[float], values: list[float], logits: list[float]
) -> None:
    x = sorted(corners)
    calibrator = Isotonic(tuple(x), tuple(sorted(values[: len(x)])))
    _agrees(calibrator, np.array([*logits, *x, *(np.array(x) + 0.5)], dtype=np.float32))


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_fitted_calibrators_equal_numpys(kind: str) -> None:
    g = np.random.default_rng(0)
    labels = g.integers(0, 2, 200)
    logits = (g.normal(size=200) * 3 + labels).astype(np.float32)
    _agrees(fit_calibrator(kind, logits, labels), np.concatenate([logits, g.normal(size=500).astype(np.float32) * 9]))


def test_a_calibrator_of_ones_own_is_refused() -> None:
    class Mine(Identity):
        kind = "mine"

    assert calibrator_module(Mine()) is not None  # an Identity by another name still is one

    class Other(Calibrator):
        kind = "other"

        def probabilities(self, logits: np.ndarray) -> np.ndarray:
            return logits

        def moved(self, by: float) -> Calibrator:
            return self

        @classmethod
        def _fitted(cls, logits, labels, weights):
            return cls()

    with pytest.raises(GuardError, match="'other' cannot be exported"):
        calibrator_module(Other())
