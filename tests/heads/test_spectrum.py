from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.heads.spectrum import Spectrum


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_it_solves_as_the_full_matrix_does(n: int, dim: int, penalty: float, seed: int) -> None:
    g = np.random.default_rng(seed)
    rows, vectors = g.normal(size=(n, dim)), g.normal(size=(3, dim))
    spectrum = Spectrum.of(rows)
    expected = np.linalg.solve(rows.T @ rows + penalty * np.eye(dim), vectors.T).T
    np.testing.assert_allclose(spectrum.solve(vectors, penalty), expected, rtol=1e-7, atol=1e-9 / penalty)
    np.testing.assert_allclose(spectrum.images * np.sqrt(spectrum.squares) @ spectrum.directions.T, rows, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_no_penalty_is_the_pseudo_inverse(shape: tuple[int, int]) -> None:
    g = np.random.default_rng(0)
    rows = g.normal(size=shape)
    rows[-1] = rows[0]  # a rank below both sides
    vector = g.normal(size=shape[1])
    np.testing.assert_allclose(Spectrum.of(rows).solve(vector, 0.0), np.linalg.pinv(rows.T @ rows) @ vector, rtol=1e-8)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        Spectrum.of(np.array([[1.0, np.nan]]))
