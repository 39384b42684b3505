"""L-BFGS for many heads at once: every head has its own history, step length and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_ARMIJO = 1e-4  # share of the predicted decrease a step must bring (Nocedal and Wright, ch. 3)
_REFUSALS = 25  # steps refused in a row after which a head is where rounding lets it go


class BatchedLBFGS:
    """Limited-memory BFGS (Nocedal and Wright, Numerical Optimization, alg. 7.5) on R points `(R, P)`, by ask and tell.

    `trial` is where each head wants its loss and gradient; `tell` takes them, and sets the next. A head whose trial is
    refused by Armijo's condition comes back with a shorter step while its neighbours go on, so that no evaluation
    waits for a line search. A head is done when its Newton decrement is at most `tolerance`, or when rounding lets it
    come no closer. The decrement, `√(gᵀHg)` with L-BFGS's H, does not depend on the units of the parameters, and half
    its square is about how far the loss is above its minimum (Boyd and Vandenberghe, Convex Optimization, 9.5.1).

    Args:
        start: `(R, P)` floating.
        tolerance: see above.
        history: curvature pairs kept.

    Attributes:
        point: `(R, P)` the best points so far, with `losses` `(R,)` and `gradient` `(R, P)`.
        trial: `(R, P)` the points to evaluate next; those of heads that are done do not move.
        done: `(R,)` bool.
        stuck: `(R,)` bool: done by rounding, not by tolerance.
        failed: `(R,)` bool: no finite loss at the start; done, too.
    """

    def __init__(self, start: Tensor, *, tolerance: float, history: int = 30) -> None:
        heads = len(start)
        self.tolerance, self.history = tolerance, history
        self.point, self.trial = start, start.clone()
        self.losses = start.new_full((heads,), torch.inf)
        self.gradient = torch.zeros_like(start)
        self.done = torch.zeros(heads, dtype=torch.bool, device=start.device)
        self.stuck, self.failed = self.done.clone(), self.done.clone()
        self._begun = False
        self._direction = torch.zeros_like(start)
        self._slope, self._length = torch.zeros_like(self.losses), torch.ones_like(self.losses)
        self._refused = torch.zeros(heads, dtype=torch.int64, device=start.device)
        self._gamma = torch.ones_like(self.losses)
        self._least, self._stale = torch.full_like(self.losses, torch.inf), torch.zeros_like(self._refused)
        # s, y (R, P) and 1 / (s·y) (R,), which is zero where a head has no pair
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    @torch.no_grad()
    def tell(self, losses: Tensor, gradient: Tensor, curvature: Tensor | None = None) -> None:
        """Take what was found at `trial`, and set the next one.

        Args:
            losses: `(R,)`.
            gradient: `(R, P)`.
            curvature: `(R, P)` > 0, a diagonal that resembles the Hessian there; None where nothing is known of it.
        """
        if not self._begun:
            self._begin(losses, gradient, curvature)
            return
        finite = torch.isfinite(losses) & torch.isfinite(gradient).all(1)
        enough = losses <= self.losses + _ARMIJO * self._length * self._slope
        # where rounding hides a decrease of the loss the gradient still shows it (Hager and Zhang 2005, eq. 4.1)
        rounding = 16 * torch.finfo(losses.dtype).eps * self.losses.abs()
        flatter = torch.linalg.vecdot(gradient, self._direction) <= -0.8 * self._slope
        accepted = finite & (enough | ((losses <= self.losses + rounding) & flatter)) & ~self.done
        refused = ~accepted & ~self.done
        self._remember(accepted, gradient, curvature)
        self.point = torch.where(accepted[:, None], self.trial, self.point)
        self.gradient = torch.where(accepted[:, None], gradient, self.gradient)
        before, self.losses = self.losses, torch.where(accepted, losses, self.losses)
        self._stale = torch.where(before - self.losses > rounding, 0, self._stale)
        self._refused = torch.where(refused, self._refused + 1, 0)
        # the least of the parabola through what is known of a refused step, within a half and a tenth of it
        rise = ((losses - before) / self._length - self._slope).nan_to_num(torch.inf, torch.inf)
        shorter = -0.5 * self._length * self._slope / rise.clamp_min(torch.finfo(losses.dtype).tiny)
        shorter = torch.clamp(shorter, 0.1 * self._length, 0.5 * self._length)
        self._length = torch.where(refused, shorter, 1.0)
        lost = self._refused >= _REFUSALS
        self.stuck, self.done = self.stuck | lost, self.done | lost
        self._aim(accepted, curvature)

    def keep(self, heads: Tensor) -> None:
        """Go on with these heads alone; `heads` `(k,)` int64."""
        for name in ("point", "trial", "losses", "gradient", "done", "stuck", "failed"):
            setattr(self, name, getattr(self, name)[heads])
        for name in ("_direction", "_slope", "_length", "_refused", "_gamma", "_least", "_stale"):
            setattr(self, name, getattr(self, name)[heads])
        self._pairs = [(s[heads], y[heads], rho[heads]) for s, y, rho in self._pairs]

    def restart(self, *, tolerance: float, dtype: torch.dtype) -> None:
        """Go on from here in another precision; what was learned of the curvature stays, no head is done."""
        self.tolerance = tolerance
        self.point = self.trial = self.point.to(dtype)
        self.losses = torch.full_like(self.losses, torch.inf, dtype=dtype)
        self.gradient, self._direction = self.gradient.to(dtype), self._direction.to(dtype)
        self._slope, self._length, self._gamma = (v.to(dtype) for v in (self._slope, self._length, self._gamma))
        self._pairs = [(s.to(dtype), y.to(dtype), rho.to(dtype)) for s, y, rho in self._pairs]
        self.done, self.stuck = self.failed.clone(), torch.zeros_like(self.stuck)
        self._refused = torch.zeros_like(self._refused)
        self._least, self._stale = torch.full_like(self.losses, torch.inf), torch.zeros_like(self._refused)
        self._begun = False

    def _begin(self, losses: Tensor, gradient: Tensor, curvature: Tensor | None) -> None:
        """The start: there is nothing to compare with."""
        self._begun = True
        self.failed = self.failed | ~(torch.isfinite(losses) & torch.isfinite(gradient).all(1))
        self.losses, self.gradient = losses, gradient.nan_to_num(0.0, 0.0, 0.0)
        self.done = self.done | self.failed
        self._aim(~self.done, curvature)
        if curvature is None and not self._pairs:  # nothing is known of the scale
            self._length = (1 / self.gradient.abs().sum(1).clamp_min(1e-12)).clamp_max(1.0)
            self._step()

    def _remember(self, accepted: Tensor, gradient: Tensor, curvature: Tensor | None) -> None:
        """Keep the new curvature pair; heads where it is not positive, or that did not move, get weight zero."""
        s, y = self.trial - self.point, gradient - self.gradient
        usable = accepted[:, None]
        s, y = torch.where(usable, s, 0.0), torch.where(usable, y, 0.0)
        product = torch.linalg.vecdot(s, y)
        scaled = torch.linalg.vecdot(y, y if curvature is None else y / curvature)
        usable = product > 1e-10 * scaled
        self._gamma = torch.where(usable, product / torch.where(usable, scaled, 1.0), self._gamma)
        self._pairs.append((s, y, torch.where(usable, 1 / torch.where(usable, product, 1.0), 0.0)))
        del self._pairs[: -self.history]

    def _aim(self, heads: Tensor, curvature: Tensor | None) -> None:
        """A new direction for these `heads` `(R,)` bool, and the next trial of all."""
        direction = self._two_loops(curvature)
        slope = torch.linalg.vecdot(self.gradient, direction)
        uphill = (slope > 0) & heads
        if bool(uphill.any()):  # the history misleads: start it anew for these heads
            plain = -self.gradient if curvature is None else -self.gradient / curvature
            direction = torch.where(uphill[:, None], plain, direction)
            slope = torch.linalg.vecdot(self.gradient, direction)
            self._pairs = [(s, y, torch.where(uphill, 0.0, rho)) for s, y, rho in self._pairs]
        self._direction = torch.where(heads[:, None], direction, self._direction)
        self._slope = torch.where(heads, slope, self._slope)
        self.done = self.done | (heads & (-slope <= self.tolerance**2))
        better = heads & (-slope < 0.9 * self._least)
        self._least = torch.where(better, -slope, self._least)
        self._stale = torch.where(better, 0, self._stale + 1)
        still = ~self.done & (self._stale >= _REFUSALS)  # rounding is all that is left
        self.stuck, self.done = self.stuck | still, self.done | still
        self._step()

    def _step(self) -> None:
        moved = self.point + self._length[:, None] * self._direction
        self.trial = torch.where(self.done[:, None], self.point, moved)

    def _two_loops(self, curvature: Tensor | None) -> Tensor:
        """`-H·gradient` for all heads at once."""
        q = self.gradient.clone()
        alphas = []
        for s, y, rho in reversed(self._pairs):
            alpha = rho * torch.linalg.vecdot(s, q)
            q.addcmul_(y, alpha[:, None], value=-1)
            alphas.append(alpha)
        q *= self._gamma[:, None]
        if curvature is not None:
            q /= curvature
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            beta = rho * torch.linalg.vecdot(y, q)
            q.addcmul_(s, (alpha - beta)[:, None])
        return q.neg_()

    _STATE = ("point", "trial", "losses", "gradient", "done", "stuck", "failed")
    _OWN = ("_begun", "_direction", "_slope", "_length", "_refused", "_gamma", "_least", "_stale", "_pairs")

    def state_dict(self) -> dict[str, Any]:
        """All that decides the next trial."""
        return {name: getattr(self, name) for name in self._STATE + self._OWN} | {"_pairs": list(self._pairs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in self._STATE + self._OWN:
            setattr(self, name, state[name])
        self._pairs = [(s, y, rho) for s, y, rho in self._pairs]


class BankLBFGS(torch.optim.Optimizer):
    """`BatchedLBFGS` as a torch optimizer, for parameters stacked as `(R, ...)` whose losses autograd differentiates.

    One step is one evaluation of all heads.

    Args:
        params: parameters, each `(R, ...)`.
        head_losses: the `(R,)` losses of the last evaluation of the closure.
        history: curvature pairs kept.
        tolerance: see `BatchedLBFGS`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        head_losses: Callable[[], Tensor],
        history: int = 10,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(params, {})
        self.head_losses = head_losses
        self.solver = BatchedLBFGS(self._gather("data"), tolerance=tolerance, history=history)
        self.taken = 0

    @property
    def done(self) -> Tensor:
        """`(R,)` bool: heads that are at their optimum, or as near as rounding lets them."""
        return self.solver.done

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """One evaluation of `closure`, which leaves all heads' gradients; ends with the best points as parameters."""
        self._scatter(self.solver.trial)
        result = torch.enable_grad()(closure)()
        self.solver.tell(self.head_losses().clone(), self._gather("grad"))
        self._scatter(self.solver.point)
        self.taken += 1
        return result

    def _gather(self, what: str) -> Tensor:
        """`(R, P)` copy of all parameters' `data` or `grad`."""
        return torch.cat([getattr(p, what).flatten(1) for p in self._parameters()], dim=1)

    @torch.no_grad()
    def _scatter(self, flat: Tensor) -> None:
        for parameter, part in zip(
            self._parameters(), flat.split([p[0].numel() for p in self._parameters()], dim=1), strict=True
        ):
            parameter.copy_(part.view_as(parameter))

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """torch's state and the solver's."""
        return {**super().state_dict(), "lbfgs": self.solver.state_dict(), "taken": self.taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        state = dict(state_dict)
        self.solver.load_state_dict(state.pop("lbfgs"))
        self.taken = state.pop("taken")
        super().load_state_dict(state)
