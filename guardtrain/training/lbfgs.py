"""L-BFGS for a bank: every head has its own history, step length and end; for convex heads it finds the optimum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_ARMIJO = 1e-4  # share of the predicted decrease a step must bring (Nocedal and Wright, ch. 3)
_HALVINGS = 20


class BankLBFGS(torch.optim.Optimizer):
    """Limited-memory BFGS (Nocedal and Wright, Numerical Optimization, alg. 7.5) on parameters stacked as `(R, ...)`.

    One step is one iteration of every head that is not done: a direction from its own curvature pairs, then a
    backtracking line search of its own (all heads are evaluated together, each keeps the first step length that
    satisfies Armijo's condition). A head is done when the largest entry of its gradient is at most `tolerance`, or
    when no step length improves its loss any more: then rounding is all that is left.

    Args:
        params: parameters, each `(R, ...)`.
        head_losses: the `(R,)` losses of the last evaluation of the closure.
        focus: told before each evaluation which heads `(R,)` matter in it, so that the others can leave the work.
        history: curvature pairs kept.
        tolerance: see above.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        head_losses: Callable[[], Tensor],
        focus: Callable[[Tensor], None] = lambda active: None,
        history: int = 10,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(params, {})
        self.head_losses, self.focus = head_losses, focus
        self.history, self.tolerance = history, tolerance
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y (R, P) and 1 / (s·y) (R,), zero where unusable
        self._losses: Tensor | None = None
        self._gradient: Tensor | None = None
        self.done: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """One iteration; `closure` evaluates all heads and leaves their gradients."""
        evaluate = torch.enable_grad()(closure)
        result = None
        if self._losses is None or self._gradient is None:
            result = evaluate()
            self._losses, self._gradient = self.head_losses().clone(), self._gather("grad")
            self.done = self._gradient.abs().amax(1) <= self.tolerance
        losses, gradient, done = self._losses, self._gradient, self.done
        assert done is not None
        start = self._gather("data")
        direction = self._direction(gradient)
        slope = (gradient * direction).sum(1)
        uphill = slope >= 0  # the history misleads: start it anew for these heads
        direction = torch.where(uphill[:, None], -gradient, direction)
        slope = torch.where(uphill, -gradient.square().sum(1), slope)
        length = torch.ones_like(losses)
        if not self._pairs:
            length = (1 / gradient.abs().sum(1).clamp_min(1e-12)).clamp_max(1.0)
        accepted = done.clone()
        new_losses, new_gradient = losses.clone(), gradient.clone()
        point = start.clone()
        for _ in range(_HALVINGS):
            trial = torch.where(accepted[:, None], point, start + length[:, None] * direction)
            self._scatter(trial)
            self.focus(~accepted)
            result = evaluate()
            values, gradients = self.head_losses(), self._gather("grad")
            good = ~accepted & (values <= losses + _ARMIJO * length * slope)
            new_losses = torch.where(good, values, new_losses)
            new_gradient = torch.where(good[:, None], gradients, new_gradient)
            point = torch.where(good[:, None], trial, point)
            accepted = accepted | good
            if bool(accepted.all()):
                break
            length = torch.where(accepted, length, length / 2)
        self._scatter(point)
        stuck = ~accepted
        self._remember(point - start, new_gradient - gradient)
        self._losses, self._gradient = new_losses, new_gradient
        self.done = done | stuck | (new_gradient.abs().amax(1) <= self.tolerance)
        return result

    def _direction(self, gradient: Tensor) -> Tensor:
        """`-H·gradient` by the two-loop recursion, for all heads at once."""
        q = gradient.clone()
        alphas = []
        for s, y, rho in reversed(self._pairs):
            alpha = rho * (s * q).sum(1)
            q -= alpha[:, None] * y
            alphas.append(alpha)
        if self._pairs:
            scale = torch.ones_like(q[:, 0])
            for s, y, rho in self._pairs:  # the newest usable pair of each head sets the scale
                newest = (s * y).sum(1) / y.square().sum(1).clamp_min(1e-30)
                scale = torch.where(rho > 0, newest, scale)
            q *= scale[:, None]
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            beta = rho * (y * q).sum(1)
            q += (alpha - beta)[:, None] * s
        return -q

    def _remember(self, s: Tensor, y: Tensor) -> None:
        """Keep the new curvature pair; heads where it is not positive (or that did not move) get weight zero."""
        curvature = (s * y).sum(1)
        usable = curvature > 1e-10 * y.square().sum(1)
        rho = torch.where(usable, 1 / torch.where(usable, curvature, 1.0), 0.0)
        self._pairs.append((s, y, rho))
        del self._pairs[: -self.history]

    def _gather(self, what: str) -> Tensor:
        """`(R, P)` copy of all parameters' `data` or `grad`."""
        return torch.cat([getattr(p, what).flatten(1) for p in self._parameters()], dim=1)

    def _scatter(self, flat: Tensor) -> None:
        for parameter, part in zip(
            self._parameters(), flat.split([p[0].numel() for p in self._parameters()], dim=1), strict=True
        ):
            parameter.copy_(part.view_as(parameter))

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """torch's state and ours: curvature pairs, last losses and gradients, and which heads are done."""
        own = {"pairs": list(self._pairs), "losses": self._losses, "gradient": self._gradient, "done": self.done}
        return {**super().state_dict(), "lbfgs": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        state = dict(state_dict)
        own = state.pop("lbfgs")
        self._pairs, self._losses = [tuple(pair) for pair in own["pairs"]], own["losses"]
        self._gradient, self.done = own["gradient"], own["done"]
        super().load_state_dict(state)
