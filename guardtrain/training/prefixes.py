"""Full-batch losses of many linear heads at once, as block products over shared prefixes of the images' orderings.

Heads of one seed draw their images from the same orderings, and a smaller budget's images are a prefix of a larger
one's. So an ordering is cut where any head's prefix ends, and each segment is multiplied once with the weights of all
heads that reach it: no head has a copy of its rows, none is padded, and the work is that of the images alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guardtrain.training.batches import RunPlan

_LEAST_ROWS = 256  # of a segment: below, a product costs more to call than to compute


class _Segment(NamedTuple):
    """Rows `start … stop - 1` of an ordering, and the heads, from place `first` on (by length), that reach into them.

    `seen` `(n, heads)` is which rows each of these heads sees, in the type of the rows; None where they see all.
    """

    start: int
    stop: int
    first: int
    seen: Tensor | None


class _Ordering:
    """One ordering of rows, and the heads that learn from prefixes of it, shortest first.

    Args:
        x: `(L, D)` the rows, in order.
        y: `(L,)` their labels, 0 or 1, in the type of `x`.
        heads: `(h,)` int64 heads, by ascending length.
        lengths: `(h,)` how much of the ordering each sees.
    """

    def __init__(self, x: Tensor, y: Tensor, heads: Tensor, lengths: Tensor) -> None:
        self.x, self.y, self.heads, self.lengths = x, y, heads, lengths
        self.segments: list[_Segment] = []
        start, stops = 0, torch.unique(lengths).tolist()
        for stop in stops:
            if stop - start < _LEAST_ROWS and stop != stops[-1]:
                continue
            first = int(torch.searchsorted(lengths, start, right=True))  # those before end earlier
            reach = lengths[first:]
            rows = torch.arange(start, stop, device=x.device)
            seen = (rows[:, None] < reach).to(x.dtype) if int(reach[0]) < stop else None
            self.segments.append(_Segment(start, stop, first, seen))
            start = stop

    def retained(self, active: Tensor) -> _Ordering:
        """The same without the heads that are not `active` `(R,)`."""
        stay = active[self.heads]
        return _Ordering(self.x, self.y, self.heads[stay], self.lengths[stay])


class PrefixLoss:
    """Weighted binary cross-entropy of R linear heads, each over all its own training images.

    Equals `weighted_bce` on gathered rows, and so do its gradients.

    Args:
        embeddings: `(N, D)` floating.
        labels: `(N,)` 0 or 1.
        plans: the R runs; where `split` is set, the rows before and after it come from two orderings.
        class_weights: `(R, 2)` weight of a safe and of an unsafe image for each head.
    """

    def __init__(self, embeddings: Tensor, labels: Tensor, plans: Sequence[RunPlan], class_weights: Tensor) -> None:
        dtype, device = embeddings.dtype, embeddings.device
        self.class_weights = class_weights.to(dtype)
        self._orderings = []
        for rows, members in _orderings(plans):
            index = torch.from_numpy(rows).to(device)
            heads = torch.tensor([r for r, _ in members], device=device)
            lengths = torch.tensor([n for _, n in members], device=device)
            self._orderings.append(_Ordering(embeddings[index], labels[index].to(dtype), heads, lengths))
        counts = [np.bincount(labels[torch.from_numpy(plan.train)].cpu().numpy(), minlength=2) for plan in plans]
        self._mass = (torch.tensor(np.array(counts), device=device, dtype=dtype) * self.class_weights).sum(1)  # (R,)
        self._active, self._mask = self._orderings, torch.ones(len(plans), dtype=torch.bool, device=device)

    def focus(self, active: Tensor) -> None:
        """From now on evaluate only the heads in the mask `active` `(R,)`; the others get loss and gradient 0."""
        if not torch.equal(active, self._mask):
            self._active = [kept for o in self._orderings if len((kept := o.retained(active)).heads)]
            self._mask = active.clone()

    def __call__(self, weight: Tensor, bias: Tensor) -> Tensor:
        """`(R,)` losses of heads with weights `(R, D)` and biases `(R,)`, differentiable in both."""
        losses: Tensor = _Losses.apply(weight, bias, self)
        return losses

    def evaluate(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses `(R,)` and their gradients by weight `(R, D)` and bias `(R,)`."""
        losses, by_weight, by_bias = torch.zeros_like(bias), torch.zeros_like(weight), torch.zeros_like(bias)
        for ordering in self._active:
            heads = ordering.heads
            own_weight, own_bias = weight[heads], bias[heads]
            safe, unsafe = self.class_weights[heads].unbind(1)
            loss, gw, gb = torch.zeros_like(own_bias), torch.zeros_like(own_weight), torch.zeros_like(own_bias)
            for start, stop, first, seen in ordering.segments:
                x, y = ordering.x[start:stop], ordering.y[start:stop, None]
                logits = torch.addmm(own_bias[first:], x, own_weight[first:].T)  # (n, heads)
                mass = torch.addcmul(safe[first:], y, unsafe[first:] - safe[first:])
                if seen is not None:
                    mass *= seen
                loss[first:] += ((F.softplus(logits) - y * logits) * mass).sum(0)
                slope = (torch.sigmoid(logits) - y) * mass
                gw[first:].addmm_(slope.T, x)
                gb[first:] += slope.sum(0)
            losses.index_add_(0, heads, loss)
            by_weight.index_add_(0, heads, gw)
            by_bias.index_add_(0, heads, gb)
        return losses / self._mass, by_weight / self._mass[:, None], by_bias / self._mass


class _Losses(torch.autograd.Function):
    """`PrefixLoss.evaluate` as one differentiable step: its gradient comes with it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, objective: PrefixLoss) -> Tensor:
        losses, by_weight, by_bias = objective.evaluate(weight, bias)
        ctx.save_for_backward(by_weight, by_bias)
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        by_weight, by_bias = ctx.saved_tensors
        return gradient[:, None] * by_weight, gradient * by_bias, None


def _orderings(plans: Sequence[RunPlan]) -> list[tuple[np.ndarray, list[tuple[int, int]]]]:
    """The orderings behind the plans: rows `(L,)`, and `(head, length)` of its prefixes, shortest first.

    Rows that are a prefix of another plan's are found by comparing them, longest first; plans that share none
    have an ordering of their own.
    """
    parts = [(part, r) for r, plan in enumerate(plans) for part in plan.parts if len(part)]
    parts.sort(key=lambda item: -len(item[0]))
    by_first: dict[int, list[tuple[np.ndarray, list[tuple[int, int]]]]] = {}
    for rows, r in parts:
        candidates = by_first.setdefault(int(rows[0]), [])
        for ordering, members in candidates:
            if np.array_equal(ordering[: len(rows)], rows):
                members.append((r, len(rows)))
                break
        else:
            candidates.append((rows, [(r, len(rows))]))
    return [(rows, members[::-1]) for candidates in by_first.values() for rows, members in candidates]
