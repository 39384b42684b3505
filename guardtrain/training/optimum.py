"""The optimum of a bank of linear heads: penalised logistic regression by batched L-BFGS on shared prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guardtrain.heads import LinearBank
from guardtrain.heads.products import fast_float32_products
from guardtrain.metrics.functional import auroc_of, rank
from guardtrain.training.basis import Basis
from guardtrain.training.batches import RunPlan
from guardtrain.training.lbfgs import BatchedLBFGS
from guardtrain.training.prefixes import WHOLE, PrefixHead, PrefixLoss, has_two_intercepts
from guardtrain.training.settings import LossSettings

_ROUGH = 1e-3  # the Newton decrement where float32 hands over to float64
_FINEST_FLOAT32 = 1e-4  # tolerances down to this need no float64
_JUDGED = 3e-3  # where a fold's head is near enough to its optimum to be judged: its loss is 5e-6 above it
_LEAVE = 0.7  # heads that are done leave the work when no more than this share is left


class LinearOptimum:
    """Finds the optimum of R linear heads for each of S strengths of the penalty, one after the other.

    The loss of a head is that of `PrefixLoss`, plus `l2 / (2n)·‖w‖²` over its n images, with w on inputs that the head
    standardises by its own mean and scale: without pair terms scikit-learn's `LogisticRegression` with C = 1 / l2. It
    is minimised in the images' principal axes (see `Basis`), in float32 until the Newton decrement is 1e-3, then in
    float64. Each strength starts from the last one's solution.

    Args:
        embeddings: `(N, D)` float32, on the device to work on.
        labels: `(N,)` int, 1 is unsafe.
        plans: the runs.
        heads: the R heads.
        strengths: `(S, R)` l2.
        loss: class weights and what is made of pairs.
        tolerance: Newton decrement at which a head is done, see `BatchedLBFGS`.
        iterations: most evaluations for each strength.
        held_out: only what heads are worth on the folds left out is wanted, to be compared: float32 and 3e-3 are
            enough.

    Attributes:
        held_out_losses: one `(R,)` CPU tensor for each strength that is done, 1 - AUROC on the fold that each head
            leaves out; NaN where that holds one class; empty without `held_out`. (The log-loss of few images asks for
            heads that are unsure, which calibration mends later, and so for penalties that cost AUROC.)
        unfinished: heads that were not done after `iterations`.
        failed: `(R,)` bool: heads whose images hold NaN or infinity, or whose loss does.
    """

    def __init__(
        self,
        embeddings: Tensor,
        labels: Tensor,
        plans: Sequence[RunPlan],
        heads: Sequence[PrefixHead],
        strengths: Tensor,
        *,
        loss: LossSettings,
        tolerance: float,
        iterations: int,
        held_out: bool = False,
    ) -> None:
        self.tolerance, self.iterations, self.held_out = tolerance, iterations, held_out
        used, compact = _compact(plans)
        device = embeddings.device
        rows = embeddings[torch.from_numpy(used).to(device)]
        broken = ~torch.isfinite(rows).all(1)
        if bool(broken.any()):  # in a product with others a NaN would be everybody's
            rows = torch.where(broken[:, None], 0.0, rows)
        whole = ~broken if not bool(broken.all()) else broken
        self.basis, centres = Basis.of(rows[whole]), None
        if has_two_intercepts(plans, loss.pairs):
            # Around their own means, what tells the two kinds apart is no direction that the weights could share with
            # the intercepts: that valley would take L-BFGS hundreds of steps.
            kind = _is_real(len(rows), compact).to(device)
            means = torch.stack([rows[~kind & whole].mean(0), rows[kind & whole].mean(0)]).nan_to_num(0.0)
            within = rows - means[kind.long()]
            self.basis = replace(Basis.of(within[whole]), mean=rows[whole].mean(0))
            centres = self.basis.project(means)
        self._centres = centres
        self.loss = PrefixLoss(
            self.basis.project(rows),
            labels[torch.from_numpy(used).to(labels.device)].to(device),
            compact,
            heads,
            balanced=loss.class_weight == "balanced",
            pairs=loss.pairs,
            centres=centres,
        )
        dim, count = embeddings.shape[1], len(heads)
        if held_out:
            self._left_out = [_left_out(compact[head.plan], head.left_out).to(device) for head in heads]
            self._x, self._labels = self.basis.project(rows), labels.to(device)[torch.from_numpy(used).to(device)]
        self._mean, square = self.loss.moments(dim)
        spread = (square - self._mean.square().sum(1)) / dim
        self._scale = spread.clamp_min(1e-12).sqrt()  # (R,) of each head's rows, in units of the basis
        self._strengths = strengths.to(device, torch.float64)
        self._variances, self._offset = self.basis.variances, loss.pairs.offset
        self.points = torch.zeros(count, self.loss.width, dtype=torch.float64, device=device)  # (R, P)
        hurt = [bool(broken[torch.from_numpy(compact[head.plan].train).to(device)].any()) for head in heads]
        self.failed = torch.tensor(hurt, device=device)
        self.held_out_losses: list[Tensor] = []
        self.unfinished = 0
        self._stage, self._evaluations = 0, 0
        self._solver: BatchedLBFGS | None = None
        self._members = self._focus = self._where = torch.arange(count, device=device)

    @property
    def finished(self) -> bool:
        """Whether all strengths are done."""
        return self._stage >= len(self._strengths)

    @property
    def progress(self) -> float:
        """About what share of the work is done, in [0, 1]."""
        if self.finished or self._solver is None:
            return self._stage / len(self._strengths)
        done = 1 - int((~self._solver.done).sum()) / len(self.points)
        if not self.held_out:
            done = 0.5 * done + 0.5 * (self._solver.point.dtype == torch.float64)
        return (self._stage + done) / len(self._strengths)

    @property
    def mean_loss(self) -> float:
        """Mean of the penalised losses of the heads at work; NaN between two strengths."""
        return float("nan") if self._solver is None else float(self._solver.losses.mean())

    @torch.no_grad()
    def advance(self, evaluations: int) -> None:
        """So many evaluations of all heads that are not done, or fewer where all are."""
        with fast_float32_products():
            for _ in range(evaluations):
                if self.finished:
                    return
                if self._solver is None:
                    self._begin()
                self._evaluate()

    def _begin(self) -> None:
        """Start on a strength."""
        self.loss.to(torch.float32)
        tolerance = _JUDGED if self.held_out else self.tolerance
        if self.tolerance < _FINEST_FLOAT32:
            tolerance = max(tolerance, _ROUGH)
        self._solver = BatchedLBFGS(self.points.float(), tolerance=tolerance)
        self._members = self._focus = self._where = torch.arange(len(self.points), device=self.points.device)
        self._evaluations = 0

    def _evaluate(self) -> None:
        solver = self._solver
        assert solver is not None
        point = solver.trial[self._where]
        losses, gradient, curvature = self.loss.evaluate(point)
        diagonal = torch.cat([curvature[:, :1] * self._variances.to(point.dtype), curvature[:, 1:]], dim=1)
        self._penalise(point, losses, gradient, diagonal)
        diagonal = diagonal.maximum(1e-6 * diagonal.amax(1, keepdim=True))
        if len(self._focus) < len(self._members):
            losses, gradient, diagonal = self._all(losses, 0), self._all(gradient, 0), self._all(diagonal, 1)
        solver.tell(losses, gradient, diagonal)
        self._evaluations += 1
        left = ~solver.done
        remaining = int(left.sum())
        if remaining == 0 or self._evaluations >= self.iterations:
            self._end_phase(solver, remaining)
        elif remaining <= _LEAVE * len(self._focus):
            self._leave(solver, left)

    def _all(self, values: Tensor, rest: float) -> Tensor:
        """Values of the heads in focus among those of all members."""
        out = values.new_full((len(self._members), *values.shape[1:]), rest)
        out[self._where] = values
        return out

    def _leave(self, solver: BatchedLBFGS, left: Tensor) -> None:
        """Let heads that are done leave the work; where float64 is to come, what was learned of them stays."""
        stay = torch.zeros(len(self.points), dtype=torch.bool, device=left.device)
        stay[self._members[left]] = True
        kept = self.loss.focus(stay)
        if len(kept) == len(self._focus):
            return
        place = torch.empty(len(self.points), dtype=torch.int64, device=left.device)
        place[self._members] = torch.arange(len(self._members), device=left.device)
        self._focus, self._where = kept, place[kept]
        if self.held_out or solver.point.dtype == torch.float64:
            self._keep_points(solver)
            solver.keep(self._where)
            self._members, self._where = kept, torch.arange(len(kept), device=kept.device)

    def _keep_points(self, solver: BatchedLBFGS) -> None:
        self.points[self._members] = solver.point.double()
        self.failed[self._members] |= solver.failed

    def _end_phase(self, solver: BatchedLBFGS, remaining: int) -> None:
        """From float32 to float64, or on to the next strength."""
        self._keep_points(solver)
        precise = not self.held_out and self.tolerance < _FINEST_FLOAT32
        if precise and solver.point.dtype == torch.float32 and remaining == 0:
            self.loss.to(torch.float64)
            solver.restart(tolerance=self.tolerance, dtype=torch.float64)
            self._focus = self._where = self._members
            return
        self.unfinished += remaining
        if self.held_out:
            self.held_out_losses.append(torch.where(self.failed, torch.inf, self._misranked()).cpu())
        self._stage += 1
        self._solver = None

    def _penalise(self, point: Tensor, losses: Tensor, gradient: Tensor, diagonal: Tensor) -> None:
        """Add the penalty to losses `(k,)`, gradients and Hessian diagonals `(k, P)` of the heads in focus, in place.

        It is on the weights on standardised inputs, and on the difference of the two intercepts, in units of
        `pairs.offset`.
        """
        dim = self._mean.shape[1]
        strength = self._strengths[self._stage, self._focus] / self.loss.images[self._focus]
        factor = (strength * self._scale[self._focus].double().square()).to(point.dtype)[:, None]
        weights = point[:, :dim]
        losses += 0.5 * (factor * weights).mul_(weights).sum(1)
        gradient[:, :dim] += factor * weights
        diagonal[:, :dim] += factor
        if self.loss.width == dim + 2:
            tie = (strength * self.loss.has_offset[self._focus] / self._offset**2).to(point.dtype)
            assert self._centres is not None
            shift = (self._centres[0] - self._centres[1]).to(point.dtype)
            apart = point[:, dim + 1] - point[:, dim] + weights @ shift  # of the intercepts at one place
            losses += 0.5 * tie * apart.square()
            gradient[:, dim + 1] += tie * apart
            gradient[:, dim] -= tie * apart
            gradient[:, :dim] += (tie * apart)[:, None] * shift
            diagonal[:, :dim] += tie[:, None] * shift.square()
            diagonal[:, dim:] += tie[:, None]

    def _bias(self) -> Tensor:
        """`(R, 1)` the intercept a head keeps: that of pair images, where it has two."""
        dim = self._mean.shape[1]
        biases = self.points[:, dim:]
        if self._centres is None:
            return biases
        biases = biases - self.points[:, :dim] @ self._centres.double().T
        return torch.where(self.loss.sees_pairs[:, None], biases[:, :1], biases[:, 1:])

    def _misranked(self) -> Tensor:
        """`(R,)` 1 - AUROC of the heads on the images they leave out: an intercept changes nothing of that."""
        weights = self.points[:, : self._x.shape[1]].to(self._x.dtype)
        found = []
        for weight, rows in zip(weights, self._left_out, strict=True):
            found.append(1 - auroc_of(rank((self._x[rows] @ weight)[None].nan_to_num(), self._labels[rows])))
        return torch.cat(found)

    def write(self, bank: LinearBank) -> None:
        """Make the heads of `bank` those found, on inputs standardised by each head's own images."""
        dim = self._mean.shape[1]
        weight, bias = self.basis.on_embeddings(torch.cat([self.points[:, :dim], self._bias()], dim=1))
        scale = (self._scale.double() * self.basis.scale).float()
        mean = (self._mean.double() @ self.basis.axes.double().T * self.basis.scale + self.basis.mean.double()).float()
        with torch.no_grad():
            bank.input_mean.copy_(mean)
            bank.input_scale.copy_(scale)
            bank.weight.copy_((weight * scale[:, None].double())[:, :, None])
            bank.bias.copy_((bias + (weight * mean.double()).sum(1))[:, None])

    def state_dict(self) -> dict[str, Any]:
        """Return what a later start continues from: the points, and which strengths are done."""
        if self._solver is not None:
            self._keep_points(self._solver)
        return {
            "points": self.points.cpu(),
            "stage": self._stage,
            "held_out_losses": list(self.held_out_losses),
            "unfinished": self.unfinished,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave; what was learned of the curvature is learned anew."""
        self.points = state["points"].to(self.points.device)
        self._stage, self.unfinished = state["stage"], state["unfinished"]
        self.held_out_losses = list(state["held_out_losses"])
        self._solver = None


def _left_out(plan: RunPlan, fold: int) -> Tensor:
    """`(m,)` int64 rows of a plan's images in one of its folds."""
    assert plan.folds is not None, "a head that is judged leaves a fold out"
    return torch.from_numpy(plan.train[plan.folds == fold])


def fold_heads(plans: Sequence[RunPlan], labels: np.ndarray) -> list[PrefixHead]:
    """A head for every fold of every plan whose other folds hold both classes."""
    found = []
    for p, plan in enumerate(plans):
        assert plan.folds is not None, "cross-validation needs the folds of every plan"
        for fold in np.unique(plan.folds):
            # a head cannot learn from one class; the other folds still speak
            if len(np.unique(labels[plan.train[plan.folds != fold]])) == 2:
                found.append(PrefixHead(p, int(fold)))
    return found


def whole_heads(plans: Sequence[RunPlan]) -> list[PrefixHead]:
    """A head for every plan, learning from all its images."""
    return [PrefixHead(p, WHOLE) for p in range(len(plans))]


def _is_real(count: int, plans: Sequence[RunPlan]) -> Tensor:
    """`(count,)` bool: rows that any plan takes for real images."""
    real = torch.zeros(count, dtype=torch.bool)
    for plan in plans:
        real[torch.from_numpy(plan.parts[0])] = True
    return real


def _compact(plans: Sequence[RunPlan]) -> tuple[np.ndarray, list[RunPlan]]:
    """The rows any plan uses, `(n,)` ascending, and the plans with places among them for rows."""
    used = np.unique(np.concatenate([plan.train for plan in plans]))
    compact = [
        replace(
            plan,
            train=np.searchsorted(used, plan.train),
            pairs=None if plan.pairs is None else np.searchsorted(used, plan.pairs),
        )
        for plan in plans
    ]
    return used, compact
