from __future__ import annotations

import pytest
import torch

from guardtrain.training.optimizer import BankAdamW


def _train(optimizer, parameters, steps, scheduler=None):
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def _parameters(heads=3):
    generator = torch.Generator().manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(heads, 5, 2, generator=generator))
    bias = torch.nn.Parameter(torch.randn(heads, 2, generator=generator))
    return [weight, bias]


def test_equal_settings_give_torchs_adamw_with_its_cosine_schedule():
    ours, theirs = _parameters(), _parameters()
    length = 40
    bank = BankAdamW(ours, torch.full((3,), 0.02), torch.full((3,), 0.3), torch.full((3,), length), length)
    groups = [{"params": theirs[:1], "weight_decay": 0.3}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(reference, length)
    _train(bank, ours, length)
    _train(reference, theirs, length, scheduler)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", [0, 1, 2])
def test_each_head_follows_its_own_settings(head):
    lr, decay, steps = torch.tensor([0.01, 0.05, 0.1]), torch.tensor([0.0, 0.5, 1.0]), torch.tensor([5, 20, 12])
    together = _parameters()
    _train(BankAdamW(together, lr, decay, steps, 20), together, 20)
    # the same gradients, and every head given the settings of this one
    alone = _parameters()
    uniform = [value[head].expand(3).clone() for value in (lr, decay, steps)]
    _train(BankAdamW(alone, *uniform, 20), alone, 20)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[head], b[head], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.4])
def test_the_penalty_is_that_of_the_loss(decay):
    """Against torch's AdamW, on gradients to which the penalty's have been added; another penalty for each head."""
    ours = _parameters()
    penalty = torch.tensor([0.0, 0.3, 2.0])
    arguments = torch.full((3,), 0.05), torch.full((3,), decay), torch.full((3,), 30), 30
    optimizer = BankAdamW(ours, *arguments, penalty=penalty)
    theirs = _parameters()
    groups = [{"params": theirs[:1], "weight_decay": decay}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 30)
    generator = torch.Generator().manual_seed(5)
    for _ in range(30):
        gradients = [torch.randn(p.shape, generator=generator) for p in ours]
        for p, g in zip(ours, gradients, strict=True):
            p.grad = g.clone()
        optimizer.step()
        theirs[0].grad = gradients[0] + 2 * penalty[:, None, None] * theirs[0].detach()
        theirs[1].grad = gradients[1]
        reference.step()
        scheduler.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_head_whose_steps_are_done_keeps_its_values_to_the_bit():
    parameters = _parameters()
    optimizer = BankAdamW(parameters, torch.full((3,), 0.1), torch.full((3,), 0.1), torch.tensor([4, 9, 9]), 9)
    _train(optimizer, parameters, 4)
    before = [p.detach().clone() for p in parameters]
    _train(optimizer, parameters, 3)
    for p, old in zip(parameters, before, strict=True):
        assert torch.equal(p[0], old[0])
        assert not torch.equal(p[1], old[1])


def test_state_round_trip_continues_the_same_training():
    whole, parts = _parameters(), _parameters()
    arguments = torch.full((3,), 0.1), torch.full((3,), 0.1), torch.tensor([6, 6, 3]), 6
    generator = torch.Generator().manual_seed(3)
    gradients = [[torch.randn(p.shape, generator=generator) for p in whole] for _ in range(6)]

    def take(optimizer, parameters, some):
        for step in some:
            for p, g in zip(parameters, step, strict=True):
                p.grad = g.clone()
            optimizer.step()

    take(BankAdamW(whole, *arguments), whole, gradients)
    first = BankAdamW(parts, *arguments)
    take(first, parts, gradients[:2])
    second = BankAdamW(parts, *arguments)
    second.load_state_dict(first.state_dict())
    take(second, parts, gradients[2:])
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)
