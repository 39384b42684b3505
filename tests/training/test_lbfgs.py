from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.optimize
import torch

from guardtrain.training.lbfgs import BankLBFGS, BatchedLBFGS


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


# --- BatchedLBFGS: ask and tell ---


def _logistic(heads: int, n: int = 60, dim: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows times signs of R penalised logistic regressions, ill-conditioned, and their penalties."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(heads, n, dim, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, dim).double()
    sign = torch.where(torch.rand(heads, n, 1, generator=generator) < 0.5, -1.0, 1.0)
    return rows * sign, torch.logspace(-4, -1, heads, dtype=torch.float64)


def _objective(problem, points: torch.Tensor, which=slice(None)):
    """Losses `(R,)`, gradients and the Hessians' diagonals of the logistic regressions at `points`."""
    rows, penalty = (value[which].to(points.dtype) for value in problem)
    margin = (rows @ points[:, :, None])[:, :, 0]
    p = torch.sigmoid(margin)
    losses = torch.nn.functional.softplus(margin).mean(1) + 0.5 * penalty * points.square().sum(1)
    gradient = (p[:, None, :] @ rows)[:, 0] / rows.shape[1] + penalty[:, None] * points
    bend = (p * (1 - p))[:, None, :] @ rows.square()
    return losses, gradient, bend[:, 0] / rows.shape[1] + penalty[:, None]


def _solve(solver: BatchedLBFGS, problem, which=slice(None), *, curved: bool = True, evaluations: int = 300) -> int:
    for count in range(evaluations):
        if bool(solver.done.all()):
            return count
        losses, gradient, diagonal = _objective(problem, solver.trial, which)
        solver.tell(losses, gradient, diagonal if curved else None)
    return evaluations


def _scipys(problem) -> np.ndarray:
    """Minima of the same losses."""

    def one(x: np.ndarray, r: int):
        losses, gradient, _ = _objective(problem, torch.from_numpy(x)[None], slice(r, r + 1))
        return losses.item(), gradient[0].numpy()

    found = [
        scipy.optimize.minimize(
            one, np.zeros(problem[0].shape[2]), args=(r,), jac=True, options={"gtol": 1e-12, "maxiter": 5000}
        )
        for r in range(len(problem[0]))
    ]
    return np.array([result.fun for result in found])


@pytest.mark.parametrize("curved", [True, False])
def test_minima_are_scipys(curved: bool) -> None:
    problem = _logistic(5)
    solver = BatchedLBFGS(torch.zeros(5, 6, dtype=torch.float64), tolerance=1e-7)
    _solve(solver, problem, curved=curved)
    assert bool(solver.done.all())
    assert not bool(solver.stuck.any())
    np.testing.assert_allclose(solver.losses.numpy(), _scipys(problem), rtol=0, atol=1e-11)
    losses, gradient, _ = _objective(problem, solver.point)
    torch.testing.assert_close(solver.losses, losses, rtol=0, atol=0)  # the attributes belong to one another
    torch.testing.assert_close(solver.gradient, gradient, rtol=0, atol=0)


def test_half_the_squared_tolerance_is_about_how_far_the_loss_is_above_its_minimum() -> None:
    problem = _logistic(6, seed=3)
    minima = _scipys(problem)
    for tolerance in (1e-2, 1e-4):
        solver = BatchedLBFGS(torch.zeros(6, 6, dtype=torch.float64), tolerance=tolerance)
        _solve(solver, problem)
        assert ((solver.losses.numpy() - minima) <= 5 * tolerance**2).all()


def test_a_diagonal_of_the_hessian_saves_evaluations() -> None:
    problem = _logistic(4, dim=30)
    counts = []
    for curved in (True, False):
        solver = BatchedLBFGS(torch.zeros(4, 30, dtype=torch.float64), tolerance=1e-6)
        counts.append(_solve(solver, problem, curved=curved))
    assert counts[0] < counts[1]


def test_heads_have_the_same_path_with_and_without_neighbours() -> None:
    problem = _logistic(4)
    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    together = BatchedLBFGS(start, tolerance=1e-8)
    alone = [BatchedLBFGS(start[r : r + 1], tolerance=1e-8) for r in range(4)]
    for _ in range(12):
        together.tell(*_objective(problem, together.trial))
        for r, solver in enumerate(alone):
            solver.tell(*_objective(problem, solver.trial, slice(r, r + 1)))
            torch.testing.assert_close(solver.trial[0], together.trial[r], rtol=1e-6, atol=1e-9)
            assert solver.done[0] == together.done[r]


def test_a_refused_head_takes_shorter_steps_while_its_neighbours_go_on() -> None:
    """A loss that is a wall in all but a small ball: the first head's steps are refused until they are inside."""
    start = torch.zeros(2, 3, dtype=torch.float64)
    target = torch.tensor([[1e-3, 0, 0], [1.0, 2, 3]], dtype=torch.float64)
    solver = BatchedLBFGS(start, tolerance=1e-9)
    lengths = []
    for _ in range(6):
        away = solver.trial - target
        losses, gradient = 0.5 * away.square().sum(1), away.clone()
        wall = solver.trial[0].norm() > 0.002
        losses[0] += 1e3 * wall
        gradient[0] *= 1 if wall else 100.0  # steeper than the diagonal says: steps are too long
        solver.tell(losses, gradient, torch.ones_like(away))
        lengths.append(solver.trial[0].norm().item())
    torch.testing.assert_close(solver.point[1], target[1], rtol=0, atol=1e-12)  # one step of Newton
    assert lengths[0] > lengths[1] > lengths[2]
    assert 0.05 <= lengths[1] / lengths[0] <= 0.55
    assert solver.losses[0] <= 0.5 * 1e-6


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_fails_its_own_head_alone(value: float) -> None:
    problem = _logistic(3)
    solver, clean = (BatchedLBFGS(torch.zeros(3, 6, dtype=torch.float64), tolerance=1e-8) for _ in range(2))
    _solve(clean, problem)
    for _ in range(100):
        losses, gradient, diagonal = _objective(problem, solver.trial)
        losses[1], gradient[1] = value, torch.nan
        solver.tell(losses, gradient, diagonal)
    assert solver.failed.tolist() == [False, True, False]
    assert bool(solver.done.all())
    torch.testing.assert_close(solver.point[[0, 2]], clean.point[[0, 2]], rtol=0, atol=1e-9)
    assert bool(solver.point.isfinite().all())


def test_a_gradient_that_is_not_finite_fails_at_the_start() -> None:
    problem = _logistic(2)
    solver = BatchedLBFGS(torch.zeros(2, 6, dtype=torch.float64), tolerance=1e-8)
    losses, gradient, diagonal = _objective(problem, solver.trial)
    gradient[0, 3] = torch.inf
    solver.tell(losses, gradient, diagonal)
    assert solver.failed.tolist() == solver.done.tolist() == [True, False]


def test_a_step_to_where_the_loss_is_not_finite_is_taken_back() -> None:
    """x - log x has no value left of zero, where the first steps lead; its minimum is at 1."""
    solver = BatchedLBFGS(torch.full((1, 1), 3.0, dtype=torch.float64), tolerance=1e-9)
    seen = []
    for _ in range(60):
        x = solver.trial
        seen.append(x.item())
        solver.tell((x - x.log())[:, 0], 1 - 1 / x, torch.full_like(x, 0.1))
        if bool(solver.done.all()):
            break
    assert min(seen) < 0
    assert not solver.failed[0]
    assert solver.point.item() == pytest.approx(1.0, abs=1e-8)


def test_heads_that_are_kept_go_on_as_they_would_have() -> None:
    problem, keep = _logistic(5), torch.tensor([4, 1, 2])
    whole, part = (BatchedLBFGS(torch.zeros(5, 6, dtype=torch.float64), tolerance=1e-10) for _ in range(2))
    for solver in (whole, part):
        for _ in range(6):
            solver.tell(*_objective(problem, solver.trial))
    part.keep(keep)
    for _ in range(6):
        whole.tell(*_objective(problem, whole.trial))
        part.tell(*_objective(problem, part.trial, keep))
        for name in ("point", "trial", "losses", "gradient", "done", "stuck", "failed"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name)[keep], rtol=1e-7, atol=1e-10)


def test_a_restart_in_float64_goes_on_from_the_float32_solution() -> None:
    problem = _logistic(4)
    solver = BatchedLBFGS(torch.zeros(4, 6), tolerance=1e-2)
    _solve(solver, problem)
    rough = solver.point.clone()
    assert rough.dtype == torch.float32
    solver.restart(tolerance=1e-8, dtype=torch.float64)
    assert not bool(solver.done.any())
    torch.testing.assert_close(solver.trial, rough.double(), rtol=0, atol=0)
    warm = _solve(solver, problem)
    assert solver.losses.dtype == torch.float64
    np.testing.assert_allclose(solver.losses.numpy(), _scipys(problem), rtol=0, atol=1e-12)
    cold = _solve(BatchedLBFGS(torch.zeros(4, 6, dtype=torch.float64), tolerance=1e-8), problem)
    assert warm < cold


def test_a_head_that_failed_stays_failed_after_a_restart() -> None:
    problem = _logistic(2)
    solver = BatchedLBFGS(torch.zeros(2, 6), tolerance=1e-2)
    for evaluation in range(200):
        losses, gradient, diagonal = _objective(problem, solver.trial)
        losses[0] = torch.nan
        solver.tell(losses, gradient, diagonal)
        if evaluation == 50:
            solver.restart(tolerance=1e-8, dtype=torch.float64)
    assert solver.failed.tolist() == [True, False]
    assert bool(solver.done.all())
    np.testing.assert_allclose(solver.losses[1].item(), _scipys(problem)[1], atol=1e-12)


def test_a_tolerance_below_rounding_ends_too() -> None:
    problem = _logistic(4)
    solver = BatchedLBFGS(torch.zeros(4, 6), tolerance=1e-30)
    assert _solve(solver, problem, evaluations=500) < 500
    assert bool(solver.stuck.all())
    exact = _scipys(problem)
    np.testing.assert_allclose(solver.losses.numpy(), exact, rtol=1e-5)


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_state_of_ask_and_tell_round_trips(cut: int) -> None:
    problem = _logistic(3)
    first = BatchedLBFGS(torch.zeros(3, 6, dtype=torch.float64), tolerance=1e-10)
    for _ in range(cut):
        first.tell(*_objective(problem, first.trial))
    second = BatchedLBFGS(torch.ones(3, 6, dtype=torch.float64), tolerance=1e-10)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(8):
        for solver in (first, second):
            solver.tell(*_objective(problem, solver.trial))
        assert torch.equal(first.trial, second.trial)
        assert torch.equal(first.done, second.done)
