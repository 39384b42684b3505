from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from guardtrain.errors import ConfigError
from guardtrain.heads import TipAdapterFHead, TipAdapterHead, ZeroShotHead, join_states
from guardtrain.training.optimizer import BankAdamW
from tests.heads.toys import anchors, logits, toy_data


def _published(x: torch.Tensor, keys: torch.Tensor, y: np.ndarray, alpha: float, beta: float) -> torch.Tensor:
    """Two-class logits: zero-shot plus the cache model, `exp(-(β - β·affinity)) @ one-hot`."""
    features = F.normalize(x.double(), dim=-1)
    text = F.normalize(torch.from_numpy(anchors(x.shape[1])), dim=-1)
    affinity = features @ keys.T
    cache = (-(beta - beta * affinity)).exp() @ F.one_hot(torch.from_numpy(y), 2).double()
    return 100.0 * features @ text.T + alpha * cache


@pytest.mark.parametrize(("strength", "alpha"), [(1.0, 1.3), (0.1, 13.0), (10.0, 0.13)])
def test_training_free_is_the_published_formula(strength: float, alpha: float) -> None:
    data, x = toy_data(30, 8), torch.from_numpy(toy_data(50, 8, seed=1).x)
    keys = F.normalize(torch.from_numpy(data.x).double(), dim=-1)
    expected = _published(x, keys, data.y, alpha, 5.5)
    bank = TipAdapterHead(alpha=1.3).anchored(anchors(8)).solve(data, [strength])[0]
    np.testing.assert_allclose(logits(bank, x.numpy()), expected[:, 1] - expected[:, 0], rtol=1e-3, atol=1e-3)


def test_class_weights_count_in_the_cache() -> None:
    data = toy_data(30, 8, weighted=True)
    head = TipAdapterHead(beta=1e-6).anchored(anchors(8))  # every image votes alike: balanced classes cancel
    x = toy_data(50, 8, seed=1).x
    ours, text = (logits(h.solve(data, [1e-3])[0], x) for h in (head, ZeroShotHead().anchored(anchors(8))))
    np.testing.assert_allclose(ours, text, atol=0.05)


def test_trained_keys_start_as_the_training_free_head_and_learn_as_published() -> None:
    """Against the published adapter: a linear layer without bias whose weights are the keys, and torch's AdamW."""
    sets = [toy_data(30, 8), toy_data(12, 8, seed=3)]
    x = torch.from_numpy(np.concatenate([d.x for d in sets]))
    y = torch.from_numpy(np.concatenate([d.y for d in sets]))
    bank = TipAdapterFHead().anchored(anchors(8)).bank(2, 8)
    bank.reset([0, 1])
    bank.start(x, y, [torch.arange(30), torch.arange(30, 42)])
    test = torch.from_numpy(toy_data(50, 8, seed=1).x)
    for r, data in enumerate(sets):
        free = TipAdapterHead().anchored(anchors(8)).solve(data, [1.0])[0]
        torch.testing.assert_close(bank(test)[r], free(test)[0], rtol=1e-4, atol=1e-4)

    batch = [torch.from_numpy(d.x[:12]) for d in sets]
    targets = torch.stack([torch.from_numpy(d.y[:12]) for d in sets])
    optimizer = BankAdamW(bank.parameters(), *torch.full((2, 2), 0.01), torch.tensor([20, 20]), 20, eps=1e-4)
    for _ in range(20):
        loss = F.binary_cross_entropy_with_logits(bank(torch.stack(batch)), targets.float(), reduction="none")
        optimizer.zero_grad()
        loss.mean(1).sum().backward()
        optimizer.step()

    for r, data in enumerate(sets):
        adapter = torch.nn.Linear(8, len(data.x), bias=False).double()
        adapter.weight.data = F.normalize(torch.from_numpy(data.x).double(), dim=-1)
        published = torch.optim.AdamW(adapter.parameters(), lr=0.01, eps=1e-4, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(published, 20)
        for _ in range(20):
            loss = F.cross_entropy(_published(batch[r], adapter.weight, data.y, 1.0, 5.5), targets[r])
            published.zero_grad()
            loss.backward()
            published.step()
            schedule.step()
        expected = _published(test, adapter.weight, data.y, 1.0, 5.5).detach()
        moved = (expected[:, 1] - expected[:, 0]).float()
        torch.testing.assert_close(bank(test)[r].detach(), moved, rtol=1e-3, atol=1e-2)
        assert (moved - bank(test)[1 - r].detach()).abs().max() > 0.1  # heads of their own
    assert (bank.keys[1][bank.mass[1] == 0] == 0).all()  # padding stays padding


def test_features_are_the_affinities_that_vote_and_padding_is_none() -> None:
    sets = [toy_data(30, 8), toy_data(12, 8, seed=3)]
    x = torch.from_numpy(np.concatenate([d.x for d in sets]))
    y = torch.from_numpy(np.concatenate([d.y for d in sets]))
    head = TipAdapterFHead().anchored(anchors(8))
    both, alone = head.bank(2, 8), head.bank(1, 8)
    both.start(x, y, [torch.arange(30), torch.arange(30, 42)])
    alone.start(x, y, [torch.arange(30, 42)])
    rows = torch.from_numpy(toy_data(20, 8, seed=1).x).expand(2, -1, -1)
    found, features = both.with_features(rows, None, 5)
    torch.testing.assert_close(found, both(rows))
    votes = (features.unflatten(2, (2, -1)) * both.mass[:, None]).sum(3)
    text = (F.normalize(rows, dim=-1) * both.text[:, None]).sum(2)
    torch.testing.assert_close(votes[:, :, 1] - votes[:, :, 0] + text[:, 5:], found[:, 5:], rtol=1e-4, atol=1e-4)
    own = alone.with_features(rows[1:], None, 5)[1]
    torch.testing.assert_close(features[1][features[1] != 0].sum(), own.sum())


def test_memory_of_trained_keys_is_told_and_free_ones_are_no_parameters() -> None:
    assert TipAdapterFHead().bank(1, 8).parameters_per_image == 8
    assert TipAdapterHead().bank(1, 8).parameters_per_image == 0
    assert list(TipAdapterHead().bank(1, 8).parameters()) == []


def test_caches_of_different_sizes_are_joined() -> None:
    head = TipAdapterHead().anchored(anchors(8))
    banks = [head.solve(toy_data(n, 8, seed=n), [1.0])[0] for n in (12, 30)]
    whole = head.bank(2, 8)
    whole.load_state_dict(join_states([bank.state_dict() for bank in banks]))
    x = torch.from_numpy(toy_data(50, 8, seed=1).x)
    torch.testing.assert_close(whole(x), torch.cat([bank(x) for bank in banks]))


@pytest.mark.parametrize("name", ["alpha", "beta", "scale"])
def test_impossible_settings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"head\.{name} must be > 0"):
        TipAdapterHead(**{name: 0.0})
