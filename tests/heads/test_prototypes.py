from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from guardtrain.errors import ConfigError
from guardtrain.heads import PrototypeHead, ZeroShotHead
from tests.heads.toys import anchors, logits, toy_data


def _started(head: PrototypeHead, data) -> torch.nn.Module:
    bank = head.bank(2, data.x.shape[1])
    bank.reset([0, 1])
    rows = torch.from_numpy(data.x)
    bank.start(rows, torch.from_numpy(data.y), [torch.arange(len(rows)), torch.arange(len(rows) // 2)])
    return bank


def test_each_head_is_a_softmax_over_all_its_prototypes() -> None:
    data = toy_data(40, 8)
    bank = _started(PrototypeHead(prototypes=3, scale=7.0), data)
    x = toy_data(20, 8, seed=1).x
    for r in range(2):
        cosines = F.normalize(torch.from_numpy(x), dim=-1) @ F.normalize(bank.directions[r].reshape(6, 8), dim=-1).T
        unsafe = torch.softmax(7 * cosines, 1)[:, 3:].sum(1)  # the probability of the unsafe ones
        torch.testing.assert_close(torch.sigmoid(bank(torch.from_numpy(x)))[r], unsafe)


def test_one_prototype_starts_at_the_class_means() -> None:
    data = toy_data(40, 8)
    bank = _started(PrototypeHead(), data)
    unit = data.x / np.linalg.norm(data.x, axis=1, keepdims=True)
    for r, n in enumerate((40, 20)):
        for c in (0, 1):
            mean = unit[:n][data.y[:n] == c].mean(0)
            found = bank.directions[r, c, 0].detach().numpy()
            np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


def test_more_prototypes_find_the_clusters_of_a_class() -> None:
    g = np.random.default_rng(0)
    centres = np.eye(4)
    x = np.concatenate([centres[[k]] + 0.05 * g.normal(size=(10, 4)) for k in range(4)])
    data = toy_data(40, 4)
    data.x[:], data.y[:] = x, np.repeat([0, 0, 1, 1], 10)
    bank = PrototypeHead(prototypes=2).bank(1, 4)
    bank.start(torch.from_numpy(data.x), torch.from_numpy(data.y), [torch.arange(40)])
    found = bank.directions[0].detach().numpy()  # (2, 2, 4)
    for c in (0, 1):
        assert sorted(found[c].argmax(1)) == [2 * c, 2 * c + 1]
        assert found[c].max(1).min() > 0.98


def test_from_text_it_starts_as_zero_shot() -> None:
    data, x = toy_data(40, 8), toy_data(20, 8, seed=1).x
    bank = _started(PrototypeHead().anchored(anchors(8)), data)
    text = ZeroShotHead().anchored(anchors(8)).solve(data, [1.0])[0]
    np.testing.assert_allclose(logits(bank, x), logits(text, x), rtol=1e-3, atol=1e-3)
    many = _started(PrototypeHead(prototypes=3).anchored(anchors(8)), data)
    unit = anchors(8) / np.linalg.norm(anchors(8), axis=1, keepdims=True)
    np.testing.assert_allclose(many.directions[0, :, 0].detach().numpy(), unit, atol=1e-5)


def test_training_is_that_of_learned_prompts() -> None:
    """As Q16 learns its prompts: cross-entropy of softmax(100·cos) by gradient descent on two free vectors."""
    data = toy_data(40, 8, separation=0.2)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    bank = PrototypeHead().anchored(anchors(8)).bank(1, 8)
    bank.start(x, y, [torch.arange(40)])
    prompts = torch.from_numpy(anchors(8)).float()
    prompts = (prompts / prompts.norm(dim=1, keepdim=True)).requires_grad_()
    ours, theirs = torch.optim.SGD(bank.parameters(), 1e-3), torch.optim.SGD([prompts], 1e-3)
    for _ in range(20):
        loss = F.binary_cross_entropy_with_logits(bank(x[None])[0], y.float())
        out = 100 * F.normalize(x, dim=-1) @ F.normalize(prompts, dim=-1).T
        for optimizer, value in ((ours, loss), (theirs, F.cross_entropy(out, y))):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    torch.testing.assert_close(bank.directions[0, :, 0], prompts, rtol=1e-3, atol=1e-4)
    assert (bank.directions[0, :, 0] - torch.from_numpy(bank._anchors())).abs().max() > 0.01


def test_the_scale_is_trained_where_it_is_asked_for() -> None:
    assert [n for n, _ in PrototypeHead().bank(1, 8).named_parameters()] == ["directions"]
    assert {n for n, _ in PrototypeHead(learn_scale=True).bank(1, 8).named_parameters()} == {"directions", "log_scale"}


def test_fewer_images_than_prototypes_leave_the_rest_random() -> None:
    data = toy_data(4, 8)
    bank = PrototypeHead(prototypes=5).bank(1, 8)
    bank.reset([3])
    before = bank.directions.detach().clone()
    bank.start(torch.from_numpy(data.x), torch.from_numpy(data.y), [torch.arange(4)])
    counts = np.bincount(data.y)
    for c in (0, 1):
        same = (bank.directions[0, c] == before[0, c]).all(1).tolist()
        assert same == [False] * counts[c] + [True] * (5 - counts[c])


@pytest.mark.parametrize("settings", [{"prototypes": 0}, {"scale": -1.0}])
def test_impossible_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match="head"):
        PrototypeHead(**settings)


def test_features_are_the_cosines_that_the_logits_are_made_of() -> None:
    data = toy_data(40, 8)
    bank = _started(PrototypeHead(prototypes=3, scale=7.0), data)
    rows = torch.from_numpy(toy_data(20, 8, seed=1).x).expand(2, -1, -1)
    found, features = bank.with_features(rows, None, 5)
    torch.testing.assert_close(found, bank(rows))
    unsafe, safe = (7 * features[:, :, part] for part in (slice(3, None), slice(3)))
    torch.testing.assert_close(torch.logsumexp(unsafe, 2) - torch.logsumexp(safe, 2), found[:, 5:])
    assert bool((features.abs() <= 1 + 1e-6).all())


def test_slope_cosines_are_those_of_finite_differences() -> None:
    bank = _started(PrototypeHead(prototypes=2, scale=7.0), toy_data(40, 8)).double()
    rows = torch.from_numpy(toy_data(6, 8, seed=1).x).double().expand(2, -1, -1)
    directions = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0)).double()
    steps = 1e-5 * torch.eye(8).double()
    slopes = torch.stack([(bank(rows + step) - bank(rows - step)) / 2e-5 for step in steps], dim=2)[:, 2:]
    expected = F.cosine_similarity(slopes, directions.repeat_interleave(2, 1), dim=2)
    torch.testing.assert_close(bank.slope_cosines(rows, directions, None, 2), expected, rtol=1e-5, atol=1e-6)
