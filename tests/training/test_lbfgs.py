from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch

from guardtrain.training.lbfgs import BankLBFGS


def _rosenbrock(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Each head's own, curved valley; minimum 0 at (1, 1, ...)."""
    return (scale[:, None] * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def _minimise(start: torch.Tensor, loss, iterations: int = 500, **settings) -> tuple[torch.Tensor, BankLBFGS]:
    parameter = torch.nn.Parameter(start.clone())
    values = [torch.empty(0)]
    optimizer = BankLBFGS([parameter], lambda: values[0], **settings)

    def closure():
        optimizer.zero_grad()
        losses = loss(parameter)
        values[0] = losses.detach()
        losses.sum().backward()
        return losses.sum()

    for _ in range(iterations):
        optimizer.step(closure)
        if bool(optimizer.done.all()):
            break
    return parameter.detach(), optimizer


def test_each_head_finds_its_own_minimum() -> None:
    scale = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    start = torch.zeros(3, 4, dtype=torch.float64) - 0.5
    found, optimizer = _minimise(start, lambda x: _rosenbrock(x, scale), tolerance=1e-9)
    assert bool(optimizer.done.all())
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-6)


def test_it_needs_about_as_many_iterations_as_scipys() -> None:
    """The same quadratic, ill-conditioned as CLIP embeddings are."""
    diagonal = torch.logspace(0, 3, 30, dtype=torch.float64)
    target = torch.randn(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    count = [0]

    def loss(x):
        count[0] += 1
        return 0.5 * (diagonal * (x - target) ** 2).sum(1)

    found, _ = _minimise(torch.zeros(1, 30, dtype=torch.float64), loss, tolerance=1e-8)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-6)
    d, t = diagonal.numpy(), target[0].numpy()
    reference = scipy.optimize.minimize(
        lambda x: (0.5 * (d * (x - t) ** 2).sum(), d * (x - t)),
        np.zeros(30),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": 1e-8, "ftol": 0, "maxcor": 10},
    )
    assert count[0] <= 2 * reference.nfev


def test_a_head_does_not_depend_on_its_neighbours() -> None:
    scale = torch.tensor([1.0, 10.0, 100.0, 3.0], dtype=torch.float64)
    start = torch.linspace(-1, 1, 16, dtype=torch.float64).view(4, 4)
    together, _ = _minimise(start, lambda x: _rosenbrock(x, scale), tolerance=1e-9)
    for r in range(4):
        alone, _ = _minimise(start[r : r + 1], lambda x, r=r: _rosenbrock(x, scale[r : r + 1]), tolerance=1e-9)
        torch.testing.assert_close(alone[0], together[r], rtol=0, atol=1e-7)


def test_a_head_that_is_done_stays_where_it_is() -> None:
    scale = torch.tensor([1.0, 100.0], dtype=torch.float64)
    start = torch.stack([torch.ones(4), -torch.ones(4)]).double()  # the first starts at its minimum
    found, optimizer = _minimise(start, lambda x: _rosenbrock(x, scale), iterations=3)
    assert torch.equal(found[0], start[0])
    assert optimizer.done.tolist() == [True, False]


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_state_round_trip_continues_the_same_path(cut: int) -> None:
    scale = torch.tensor([5.0, 50.0], dtype=torch.float64)
    parameter = torch.nn.Parameter(-torch.ones(2, 5, dtype=torch.float64))
    values = [torch.empty(0)]

    def closure():
        parameter.grad = None
        losses = _rosenbrock(parameter, scale)
        values[0] = losses.detach()
        losses.sum().backward()

    def optimizer():
        return BankLBFGS([parameter], lambda: values[0])

    first = optimizer()
    for _ in range(cut):
        first.step(closure)
    saved, state = parameter.detach().clone(), first.state_dict()
    for _ in range(8):
        first.step(closure)
    expected = parameter.detach().clone()
    parameter.data.copy_(saved)
    second = optimizer()
    second.load_state_dict(state)
    for _ in range(8):
        second.step(closure)
    assert torch.equal(parameter, expected)
