"""AdamW for a bank: each head has its own learning rate, weight decay, penalty and length of training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim.adam import adam


class BankAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) on parameters stacked as `(R, ...)`.

    torch's own AdamW takes one learning rate and weight decay a parameter; here both are vectors over the
    heads, and a head whose `steps` are done (or that was stopped) leaves the work: it keeps its values to the bit.
    With equal settings for all heads the result is torch's AdamW with a cosine schedule. Heads of equal settings take
    their step in one call of torch's fused kernel, which passes once over parameters, gradients and moments.

    Args:
        params: parameters, each `(R, ...)`; those of shape `(R, k)` are biases and are not decayed.
        lr: `(R,)` peak learning rates; the rate follows half a cosine from lr to 0 over `schedule_steps`.
        weight_decay: `(R,)` decoupled weight decay.
        steps: `(R,)` int64 number of steps each head learns for.
        schedule_steps: length of the cosine, which may exceed `steps` (early stopping cuts it short).
        penalty: `(R,)` factor of the squared norm of the weights (not the biases) in the loss; its gradient is added
            here, where it costs nothing, so the loss that is differentiated must be without it. None is zero.
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
        penalty: Tensor | None = None,
    ) -> None:
        super().__init__(params, {"betas": betas, "eps": eps})
        self.head_lr, self.weight_decay, self.steps = lr, weight_decay, steps
        self.penalty = torch.zeros_like(lr) if penalty is None else penalty
        self.schedule_steps = schedule_steps
        self.taken = 0
        self._groups: dict[bool, dict[tuple[float, float, float], list[slice]]] = {}
        self._grouped: list[bool] | None = None  # which heads were learning when the groups were made

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of every head that still learns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        cosine = self._cosine(self.taken)
        for group in self.param_groups:
            for weights in (True, False):
                chosen = [p for p in group["params"] if p.grad is not None and (p.ndim > 2) == weights]
                for (lr, decay, penalty), runs in self._learning(weights).items() if chosen else ():
                    views = [self._views(p, heads) for p in chosen for heads in runs]
                    if decay and penalty:  # both at once is more than the kernel knows
                        for parameter, gradient, *_ in views:
                            gradient.add_(parameter, alpha=2 * penalty)
                    coupled = penalty > 0 and decay == 0
                    own, gradients, means, squares = (list(column) for column in zip(*views, strict=True))
                    taken = torch.full((len(own),), float(self.taken), device=own[0].device)
                    adam(
                        own,
                        gradients,
                        means,
                        squares,
                        [],
                        list(taken.unbind()),
                        fused=own[0].device.type in ("cpu", "cuda"),
                        decoupled_weight_decay=not coupled,
                        amsgrad=False,
                        beta1=group["betas"][0],
                        beta2=group["betas"][1],
                        lr=lr * cosine,
                        weight_decay=2 * penalty if coupled else decay,
                        eps=group["eps"],
                        maximize=False,
                    )
        self.taken += 1
        return loss

    def _cosine(self, taken: int) -> float:
        """Return what the learning rate is multiplied by after so many steps."""
        return 0.5 * (1 + math.cos(math.pi * min(1.0, taken / self.schedule_steps)))

    def moments(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Both moments of a parameter, `(R, ...)` each."""
        state = self.state[parameter]
        if not state:
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state["mean"], state["square"]

    def _views(self, parameter: Tensor, heads: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values, gradient and both moments of some neighbouring heads."""
        means, squares = self.moments(parameter)
        assert parameter.grad is not None
        return parameter[heads], parameter.grad[heads], means[heads], squares[heads]

    def stepper(
        self,
        heads: slice,
        values: Sequence[Tensor],
        gradients: Sequence[Tensor],
        moments: Sequence[tuple[Tensor, Tensor]],
    ) -> Callable[[int], None]:
        """Return what takes the steps of some neighbouring heads, whose gradients lie elsewhere than in the parameters.

        torch's kernel is called as torch's own AdamW calls it, whose bookkeeping takes as long as a small head's step.

        Args:
            heads: which.
            values, gradients: `(k, ...)` of each parameter, on the CPU.
            moments: of each parameter for all heads, see `moments`.

        Returns:
            Given the number of steps taken before, takes the next one in place, which does not count in `taken`.
        """
        numbers = [
            (value, gradient, mean[heads], square[heads])
            for value, gradient, (mean, square) in zip(values, gradients, moments, strict=True)
        ]
        of_heads = (self.head_lr, self.weight_decay, self.penalty, self.steps)
        settings = list(zip(*(of_all[heads].tolist() for of_all in of_heads), strict=True))
        calls = []
        for (lr, decay, penalty, steps), runs in _runs(settings).items():
            for weights in (True, False):
                chosen = [of for of in numbers if (of[0].ndim > 2) == weights]
                parts = [[of_one[run] for of_one in of] for of in chosen for run in runs]
                own = (decay, penalty) if weights else (0.0, 0.0)
                calls.append(([list(column) for column in zip(*parts, strict=True)], lr, *own, steps))
        group, counts = self.param_groups[0], torch.zeros(())
        beta1, beta2 = group["betas"]

        def step(taken: int) -> None:
            cosine = self._cosine(taken)
            counts.fill_(taken + 1)
            for parts, lr, decay, penalty, steps in calls:
                if taken >= steps:
                    continue
                if decay and penalty:  # both at once is more than the kernel knows
                    torch._foreach_add_(parts[1], parts[0], alpha=2 * penalty)
                coupled = penalty > 0 and decay == 0
                kernel = torch._fused_adam_ if coupled else torch._fused_adamw_
                kernel(
                    *parts,
                    [],
                    [counts] * len(parts[0]),
                    lr=lr * cosine,
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=2 * penalty if coupled else decay,
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                )

        return step

    def _learning(self, weights: bool) -> dict[tuple[float, float, float], list[slice]]:
        """The heads that still learn, as runs of neighbours, by learning rate, weight decay and penalty.

        Biases have neither decay nor penalty.
        """
        learning = (self.steps > self.taken).tolist()
        if learning != self._grouped:
            decays, penalties = self.weight_decay.tolist(), self.penalty.tolist()
            none = [0.0] * len(learning)
            self._groups = {
                True: _runs(list(zip(self.head_lr.tolist(), decays, penalties, strict=True)), learning),
                False: _runs(list(zip(self.head_lr.tolist(), none, none, strict=True)), learning),
            }
            self._grouped = learning
        return self._groups[weights]

    def state_dict(self) -> dict[str, Any]:
        """torch's state with the steps taken and, because early stopping changes them, the steps allowed."""
        return {**super().state_dict(), "taken": self.taken, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        state = dict(state_dict)
        self.taken, self.steps = state.pop("taken"), state.pop("steps")
        super().load_state_dict(state)


_Setting = TypeVar("_Setting")


def _runs(settings: Sequence[_Setting], learning: Sequence[bool] | None = None) -> dict[_Setting, list[slice]]:
    """For each setting the runs of neighbouring heads that have it, without those that no longer learn."""
    runs: dict[_Setting, list[slice]] = {}
    start = 0
    for (setting, learns), same in itertools.groupby(zip(settings, learning or [True] * len(settings), strict=True)):
        stop = start + len(list(same))
        if learns:
            runs.setdefault(setting, []).append(slice(start, stop))
        start = stop
    return runs
