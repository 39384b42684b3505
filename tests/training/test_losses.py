from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from guardtrain.errors import ConfigError
from guardtrain.training.losses import class_weights, contrastive_terms, weighted_bce
from guardtrain.training.settings import PairSettings


def test_weighted_bce_is_scikit_learns_log_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 20, generator=generator) * 4
    labels = torch.randint(0, 2, (3, 20), generator=generator)
    weights = torch.rand(3, 20, generator=generator)
    weights[0, 10:] = 0  # padding
    losses = weighted_bce(logits, labels, weights)
    for r in range(3):
        expected = log_loss(labels[r], logits[r].sigmoid().double(), sample_weight=weights[r], labels=[0, 1])
        assert losses[r].item() == pytest.approx(expected, rel=1e-5)


def test_balanced_class_weights_are_scikit_learns():
    labels = np.array([0, 0, 0, 0, 1, 0, 1])
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    np.testing.assert_allclose(class_weights(torch.from_numpy(labels), "balanced").numpy(), expected, rtol=1e-6)
    assert class_weights(torch.from_numpy(labels), "none").tolist() == [1, 1]


def _published(features: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """PairCFR's loss of each anchor `(n,)`, in its words: one softmax for each positive, over it and all negatives."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    weight = np.exp(unit @ unit.T / temperature)
    losses = np.zeros(len(labels))
    for i, label in enumerate(labels):
        negatives = weight[i, labels != label].sum()
        positives = [j for j in np.flatnonzero(labels == label) if j != i]
        if positives:
            losses[i] = np.mean([-np.log(weight[i, j] / (weight[i, j] + negatives)) for j in positives])
    return losses


def test_contrastive_terms_are_the_published_loss_whatever_the_padding():
    generator = torch.Generator().manual_seed(0)
    unsafe, safe = torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64)
    counts = [6, 3, 1, 0]  # a single pair draws nothing together
    there = torch.arange(6)[None] < torch.tensor(counts)[:, None]
    ours = contrastive_terms(unsafe, safe, there, 0.3)
    for r, count in enumerate(counts):
        features = torch.cat([unsafe[r, :count], safe[r, :count]]).numpy()
        expected = _published(features, np.repeat([1, 0], count), 0.3).reshape(2, count).mean(0)
        np.testing.assert_allclose(ours[r, :count].numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("there", [True, False])
def test_features_that_vanish_have_finite_slopes(there):
    halves = [torch.zeros(1, 3, 5, requires_grad=True) for _ in range(2)]
    contrastive_terms(*halves, torch.full((1, 3), there), 0.3).sum().backward()
    for half in halves:
        assert bool(half.grad.isfinite().all())


@pytest.mark.parametrize("name", ["contrastive", "gradient", "centring", "logistic", "offset", "temperature", "mass"])
def test_impossible_weights_of_pairs_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=rf"loss\.pairs\.{name} .*-1"):
        PairSettings(**{name: -1.0})
    assert not PairSettings(temperature=0.5).active
