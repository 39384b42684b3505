"""AdamW for a bank: each head has its own learning rate, weight decay and length of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class BankAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) on parameters stacked as `(R, ...)`.

    torch's own AdamW takes one learning rate and weight decay a parameter; here both are vectors over the
    heads, and a head whose `steps` are done (or that was stopped) keeps its values to the bit.
    With equal settings for all heads the result is torch's AdamW with a cosine schedule.

    Args:
        params: parameters, each `(R, ...)`; those of shape `(R, k)` are biases and are not decayed.
        lr: `(R,)` peak learning rates; the rate follows half a cosine from lr to 0 over `schedule_steps`.
        weight_decay: `(R,)` decoupled weight decay.
        steps: `(R,)` int64 number of steps each head learns for.
        schedule_steps: length of the cosine, which may exceed `steps` (early stopping cuts it short).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: Tensor,
        weight_decay: Tensor,
        steps: Tensor,
        schedule_steps: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"betas": betas, "eps": eps})
        self.head_lr, self.weight_decay, self.steps = lr, weight_decay, steps
        self.schedule_steps = schedule_steps
        self.taken = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of every head that still learns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.taken / self.schedule_steps)))
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                mean, square = state["mean"], state["square"]
                mean.lerp_(parameter.grad, 1 - beta1)
                square.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
                trailing = (-1,) + (1,) * (parameter.ndim - 1)
                learning = (self.steps.to(parameter.device) > self.taken).view(trailing)
                rate = self.head_lr.to(parameter).view(trailing) * cosine * learning
                if parameter.ndim > 2:
                    parameter.mul_(1 - rate * self.weight_decay.to(parameter).view(trailing))
                correction1 = 1 - beta1 ** (self.taken + 1)
                correction2 = 1 - beta2 ** (self.taken + 1)
                denominator = (square / correction2).sqrt_().add_(group["eps"])
                parameter.addcdiv_(mean * (rate / -correction1), denominator)
        self.taken += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """torch's state with the steps taken and, because early stopping changes them, the steps allowed."""
        return {**super().state_dict(), "taken": self.taken, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        state = dict(state_dict)
        self.taken, self.steps = state.pop("taken"), state.pop("steps")
        super().load_state_dict(state)
