from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from guardtrain.errors import ConfigError
from guardtrain.heads import CLAPHead, HeadData, ZeroShotHead
from tests.heads.toys import anchors, logits, toy_data


def _published(data: HeadData, text: np.ndarray, strength: float, scale: float, steps: int) -> torch.Tensor:
    """The published module in torch: prototypes normalised in the logits, class-wise multipliers, SGD with momentum."""
    features = F.normalize(torch.from_numpy(data.x).double(), dim=-1)
    labels, base = torch.from_numpy(data.y), F.normalize(torch.from_numpy(text).double(), dim=-1)
    one_hot = F.one_hot(labels, 2).double()
    zero_shot = torch.softmax(scale * features @ base.T, -1)
    multipliers = torch.diag(zero_shot.T @ one_hot) / one_hot.sum(0)
    prototypes = base.clone().requires_grad_()
    optimizer = torch.optim.SGD([prototypes], 0.002, momentum=0.9)
    for _ in range(steps):
        out = scale * features @ F.normalize(prototypes, dim=-1).T
        hold = torch.mean(multipliers * (prototypes - base).pow(2).sum(-1))
        loss = F.cross_entropy(out, labels) + strength * hold
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return prototypes.detach()


@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_it_is_the_optimum_of_the_published_objective(strength: float) -> None:
    data, x = toy_data(30, 8, separation=0.3), toy_data(50, 8, seed=1).x
    found = CLAPHead(scale=20.0).anchored(anchors(8)).solve(data, [strength])[0]
    prototypes = _published(data, anchors(8), strength, 20.0, 5000)
    unit = F.normalize(prototypes, dim=-1).numpy()
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = 20 * rows @ (unit[1] - unit[0])
    np.testing.assert_allclose(logits(found, x), expected, atol=0.01)
    text = logits(ZeroShotHead(scale=20.0).anchored(anchors(8)).solve(data, [1.0])[0], x)
    assert np.abs(expected - text).max() > 0.5  # the images have moved it


def test_a_firm_hold_is_zero_shot() -> None:
    data, x = toy_data(30, 8), toy_data(50, 8, seed=1).x
    held = CLAPHead().anchored(anchors(8)).solve(data, [1e9])[0]
    text = ZeroShotHead().anchored(anchors(8)).solve(data, [1.0])[0]
    np.testing.assert_allclose(logits(held, x), logits(text, x), atol=1e-3)


def test_class_weights_count() -> None:
    data = toy_data(30, 6, weighted=True)  # 10 unsafe of 30: once more makes 20 to 20
    twice = np.concatenate([np.arange(30), np.flatnonzero(data.y == 1)])
    head = CLAPHead(scale=20.0).anchored(anchors(6))
    ours, repeated = head.solve(data, [5.0])[0], head.solve(HeadData.of(data.x[twice], data.y[twice]), [5.0])[0]
    np.testing.assert_allclose(logits(ours, data.x), logits(repeated, data.x), atol=1e-3)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"head\.scale"):
        CLAPHead(scale=0.0)
