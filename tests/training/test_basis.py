from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from guardtrain.training.basis import Basis


def _rows(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Correlated coordinates whose spreads differ a hundredfold, far from the origin."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    rows = rng.standard_normal((n, dim)) * np.logspace(0, -2, dim) @ rotation + 3
    return torch.from_numpy(rows).float()


def test_the_axes_are_the_principal_ones() -> None:
    rows = _rows(400, 12)
    basis, reference = Basis.of(rows), PCA().fit(rows.double().numpy())
    np.testing.assert_allclose(basis.mean, reference.mean_, atol=1e-5)
    np.testing.assert_allclose(basis.axes.T @ basis.axes, np.eye(12), atol=1e-5)
    order = torch.argsort(basis.variances, descending=True)
    expected = reference.explained_variance_ * 399 / 400 / basis.scale**2
    np.testing.assert_allclose(basis.variances[order], expected, rtol=1e-2, atol=1e-6)
    along = np.abs(reference.components_ @ basis.axes[:, order].numpy())
    np.testing.assert_allclose(along[:8, :8], np.eye(8), atol=1e-2)  # those that are well apart


@pytest.mark.parametrize("n", [1, 5, 300])
def test_projected_rows_are_centred_with_the_variances_that_it_says(n: int) -> None:
    rows = _rows(n, 12)
    basis = Basis.of(rows)
    x = basis.project(rows)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.mean(0), np.zeros(12), atol=1e-5)
    np.testing.assert_allclose(x.T @ x / n, np.diag(basis.variances), atol=1e-4)
    assert bool((basis.variances >= 0).all())
    if n > 1:
        assert float(basis.variances.mean()) == pytest.approx(1, rel=1e-4)
        assert basis.scale == pytest.approx(float((rows - rows.mean(0)).square().mean().sqrt()), rel=1e-4)


def test_distances_are_kept_up_to_the_scale() -> None:
    rows = _rows(40, 12)
    basis = Basis.of(rows)
    np.testing.assert_allclose(torch.pdist(basis.project(rows)) * basis.scale, torch.pdist(rows), rtol=1e-3)


def test_heads_give_the_same_logits_on_embeddings() -> None:
    rows = _rows(100, 12)
    basis = Basis.of(rows)
    points = torch.randn(3, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, bias = basis.on_embeddings(points)
    assert weight.dtype == bias.dtype == torch.float64
    inside = basis.project(rows).double() @ points[:, :-1].T + points[:, -1]
    np.testing.assert_allclose(rows.double() @ weight.T + bias, inside, atol=1e-4)


@pytest.mark.parametrize("n", [8192, 8193, 20_000])
def test_very_many_rows_are_seen_through_evenly_spaced_ones(n: int) -> None:
    rows = _rows(n, 4)
    rows[:, 0] += torch.linspace(-1, 1, n)  # the first rows alone would have another mean
    basis = Basis.of(rows)
    np.testing.assert_allclose(basis.mean, rows.mean(0), atol=0.02)
    if n == 8192:
        np.testing.assert_allclose(basis.mean, rows.mean(0), atol=1e-6)


def test_rows_that_are_all_the_same_have_a_basis() -> None:
    basis = Basis.of(torch.full((5, 3), 7.0))
    x = basis.project(torch.full((5, 3), 7.0))
    assert bool(x.isfinite().all())
    assert not bool(x.any())
