from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from guardtrain.training.losses import class_weights, weighted_bce


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
