from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import eigh

from guardtrain.errors import ConfigError
from guardtrain.heads import HeadData, LPPlusPlusHead
from tests.heads.toys import anchors, logits, toy_data


def _published(x: np.ndarray, y: np.ndarray, text: np.ndarray, epochs: int, test: np.ndarray) -> np.ndarray:
    """The published loop in torch: a linear layer under SGD with momentum, α by its own gradient every tenth epoch."""
    features = F.normalize(torch.from_numpy(x).double(), dim=-1)
    labels, clip = torch.from_numpy(y), F.normalize(torch.from_numpy(text).double(), dim=-1).T  # (D, 2)
    shots = int((y == 1).sum())
    classifier = torch.nn.Linear(x.shape[1], 2).double()
    classifier.weight.data = torch.stack([features[labels == c].sum(0) for c in (0, 1)])
    classifier.bias.data.zero_()
    own = torch.stack([(features @ clip)[labels == c, c].mean() for c in (0, 1)])
    alpha = (250 / shots * (own * shots)).mean() * torch.ones(1, 2, dtype=torch.float64)
    alpha.requires_grad_()
    rate = 4 * len(x) / eigh((features.T @ features).numpy(), eigvals_only=True)[-1]
    alpha_rate = len(x) / (4 * ((features @ clip) ** 2).sum(0).max())
    optimizer = torch.optim.SGD(classifier.parameters(), rate, momentum=0.9)
    for epoch in range(epochs):
        alpha.grad = None
        loss = F.cross_entropy(classifier(features) + alpha * (features @ clip), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (epoch + 1) % 10 == 0:
            alpha.data -= alpha_rate * alpha.grad
    held_out = F.normalize(torch.from_numpy(test).double(), dim=-1)
    out = (classifier(held_out) + alpha * (held_out @ clip)).detach().numpy()
    return out[:, 1] - out[:, 0]


@pytest.mark.parametrize("dim", [6, 40])
def test_it_walks_as_published(dim: int) -> None:
    data = toy_data(30, dim)
    keep = np.concatenate([np.flatnonzero(data.y == c)[:10] for c in (0, 1)])  # as many shots of both classes
    data = HeadData.of(data.x[keep], data.y[keep])
    x = toy_data(50, dim, seed=1).x
    banks = LPPlusPlusHead().anchored(anchors(dim)).solve(data, [10.0, 1.0, 1e-6])
    for bank, epochs in zip(banks, (30, 300, 1000), strict=True):
        expected = _published(data.x, data.y, anchors(dim), epochs, x)
        np.testing.assert_allclose(logits(bank, x), expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_class_weights_count() -> None:
    data = toy_data(30, 6, weighted=True)
    twice = np.concatenate([np.arange(30), np.flatnonzero(data.y == 1)])  # 10 unsafe of 30: once more makes 20 to 20
    assert data.weights[data.y == 1][0] == pytest.approx(2 * data.weights[data.y == 0][0])
    head = LPPlusPlusHead(iterations=3000, longest=3000).anchored(anchors(6))
    ours = logits(head.solve(data, [1.0])[0], data.x)
    repeated = logits(head.solve(HeadData.of(data.x[twice], data.y[twice]), [1.0])[0], data.x)
    assert np.corrcoef(ours, repeated)[0, 1] > 0.999  # paths differ, by their step sizes; where they lead does not


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"head\.iterations"):
        LPPlusPlusHead(iterations=0)
