"""Losses of many linear heads at once, as block products over shared prefixes of the images' orderings.

Heads of one seed draw their images from the same orderings, and a smaller budget's images are a prefix of a larger
one's. So an ordering is cut where prefixes end, and each segment is multiplied once with the weights of all heads that
reach it: no head has a copy of its rows, none is padded much, and the work is that of the images alone. A fold that a
head leaves out is a mask over its prefix. Orderings of one shape (those of a grid's seeds) are stacked and go through
one batched product. Pairs are an ordering, too: of midpoints, and of differences, of their two images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from guardtrain.training.batches import RunPlan
from guardtrain.training.settings import PairSettings

_LEAST_ROWS = 256  # of a segment of a stack: below, a product costs more to call than to compute
WHOLE = -1  # the fold left out by a head that learns from all its images

# What an ordering holds, and thereby which loss its rows have.
REAL, PAIR, MIDPOINT, DIFFERENCE = "real", "pair", "midpoint", "difference"


class PrefixHead(NamedTuple):
    """A head: the plan (by its place) whose images it learns from, and the fold of them it leaves out."""

    plan: int
    left_out: int = WHOLE


class _Segment(NamedTuple):
    """Rows of a stack that the same heads reach.

    `x` `(S, n, P)`, `sign` `(S, n, 1)` is -1 for unsafe rows, `first` is the first head of the stack that reaches them,
    `mass` `(S, n, h - first)` is what each row counts in each head's loss.
    """

    x: Tensor
    sign: Tensor
    first: int
    mass: Tensor


class _Work(NamedTuple):
    """A stack's segments, and the places `(S, h)` of its heads among those in focus."""

    kind: str
    heads: Tensor
    segments: list[_Segment]


@dataclass(frozen=True)
class _Stack:
    """S orderings of one kind and shape, and the h heads of each, by ascending length.

    `x` `(S, L, P)`, `unsafe` `(S, L)` bool, `folds` `(S, L)` int64 or None, `heads` `(S, h)` int64, `lengths` and
    `left_out` `(h,)` int64.
    """

    kind: str
    x: Tensor
    unsafe: Tensor
    folds: Tensor | None
    heads: Tensor
    lengths: Tensor
    left_out: Tensor

    def seen(self, start: int, stop: int, first: int) -> Tensor:
        """`(S or 1, n, h - first)` bool: which heads learn from rows `start … stop - 1`."""
        rows = torch.arange(start, stop, device=self.x.device)
        inside = (rows[:, None] < self.lengths[first:])[None]
        if self.folds is None:
            return inside
        return inside & (self.folds[:, start:stop, None] != self.left_out[first:])

    def cuts(self) -> list[tuple[int, int, int]]:
        """`(start, stop, first)`: rows between two cuts, and the first of the heads that reach into them."""
        found, start = [], 0
        stops = torch.unique(self.lengths).tolist()
        for stop in stops:
            if (stop - start) * len(self.x) < _LEAST_ROWS and stop != stops[-1]:
                continue
            found.append((start, stop, int(torch.searchsorted(self.lengths, start, right=True))))
            start = stop
        return found

    def columns(self, keep: Tensor) -> _Stack:
        """Return the loss with the heads at `keep` `(k,)` only."""
        return replace(self, heads=self.heads[:, keep], lengths=self.lengths[keep], left_out=self.left_out[keep])


class PrefixLoss:
    """The loss of R linear heads without its penalty, each over all its own training images.

    `1/A · (Σ_i a_i·BCE_i + g·Σ_j (centring·m_j² + logistic·softplus(-d_j)))` with A the sum of the `a_i`; a_i is the
    image's class weight, times g for pair images; m_j and d_j are mean and difference (unsafe minus safe) of the logits
    of pair j; g lifts pair images to the share `pairs.mass` of A where they have less. See `PairSettings`.

    Args:
        x: `(N, D)` floating rows.
        labels: `(N,)` 0 or 1.
        plans: the runs; where `split` is set, the rows before it are real images and those after it pair images.
        heads: the R heads.
        balanced: weigh both classes to the same mass within each head's images, else every image counts once.
        pairs: what is made of pairs.
        centres: `(2, D)` subtracted from pair images and from real images where these have intercepts of their own;
            None subtracts nothing. The intercepts then are those at the centres.

    Attributes:
        width: P: the D weights and a bias; where real images have an intercept of their own, it comes after that of the
            pair images.
        sees_pairs: `(R,)` bool, which heads learn from pair images.
        has_offset: `(R,)` bool, which heads have two intercepts: those that see both kinds of images.
        images: `(R,)` float64, how many images each head learns from.
    """

    def __init__(
        self,
        x: Tensor,
        labels: Tensor,
        plans: Sequence[RunPlan],
        heads: Sequence[PrefixHead],
        *,
        balanced: bool,
        pairs: PairSettings | None = None,
        centres: Tensor | None = None,
    ) -> None:
        self.count, self.pairs = len(heads), pairs or PairSettings()
        offset = has_two_intercepts(plans, self.pairs)
        self._centres = (x.new_zeros(2, x.shape[1]) if centres is None else centres) if offset else None
        self._stacks = _stacks(x, labels, plans, heads, self._centres, self.pairs)
        self._dim, self.width = x.shape[1], x.shape[1] + (2 if offset else 1)
        counts = {kind: torch.zeros(self.count, 2, dtype=torch.float64, device=x.device) for kind in (REAL, PAIR)}
        for stack in self._stacks:
            if stack.kind not in counts:
                continue
            for start, stop, first in stack.cuts():
                seen = stack.seen(start, stop, first).expand(len(stack.x), -1, -1)
                unsafe = (seen & stack.unsafe[:, start:stop, None]).sum(1)
                both = torch.stack([seen.sum(1) - unsafe, unsafe], dim=-1)  # (S, h, 2)
                counts[stack.kind].index_add_(0, stack.heads[:, first:].reshape(-1), both.flatten(0, 1).double())
        everything = counts[REAL] + counts[PAIR]
        self.images = everything.sum(1)
        classes = self.images[:, None] / (2 * everything.clamp_min(1)) if balanced else torch.ones_like(everything)
        mass = {kind: (classes * counts[kind]).sum(1) for kind in counts}
        share = self.pairs.mass
        lift = share / (1 - share) * mass[REAL] / mass[PAIR].clamp_min(1e-9)  # g
        lift = torch.where(mass[PAIR] > 0, lift.clamp_min(1.0), 1.0)
        total = mass[REAL] + lift * mass[PAIR]
        self._weights = {  # (R, 2): what a safe and an unsafe row of each kind counts
            REAL: (classes / total[:, None]).to(x.dtype),
            PAIR: (classes * (lift / total)[:, None]).to(x.dtype),
            MIDPOINT: (self.pairs.centring * lift / total)[:, None].expand(-1, 2).to(x.dtype),
            DIFFERENCE: (self.pairs.logistic * lift / total)[:, None].expand(-1, 2).to(x.dtype),
        }
        self.sees_pairs = mass[PAIR] > 0
        self.has_offset = (mass[REAL] > 0) & (mass[PAIR] > 0) if offset else torch.zeros_like(total, dtype=torch.bool)
        self.focus(torch.ones(self.count, dtype=torch.bool, device=x.device))

    def focus(self, active: Tensor) -> Tensor:
        """Leave heads out of the work; `(k,)` int64 are those that `evaluate` takes from now on, in order.

        Args:
            active: `(R,)` bool: heads that must stay. Heads that share a batched product with one of them stay, too.
        """
        stay = active.clone()
        before = -1
        while before != (before := int(stay.sum())):  # a head stays in all its stacks or in none
            for stack in self._stacks:
                columns = stay[stack.heads].any(0)
                stay[stack.heads[:, columns].reshape(-1)] = True
        self._place = stay.cumsum(0) - 1
        self._work = []
        for stack in self._stacks:
            columns = torch.nonzero(stay[stack.heads].any(0))[:, 0]
            if len(columns):
                kept = stack.columns(columns)
                segments = [self._segment(kept, cut) for cut in kept.cuts()]
                self._work.append(_Work(kept.kind, self._place[kept.heads], segments))
        self._active = torch.nonzero(stay)[:, 0]
        return self._active

    def _segment(self, stack: _Stack, cut: tuple[int, int, int]) -> _Segment:
        start, stop, first = cut
        seen = stack.seen(start, stop, first)
        unsafe = stack.unsafe[:, start:stop, None]
        mass = self._mass(stack, first, unsafe) * seen
        sign = torch.where(unsafe, -1.0, 1.0).to(stack.x)
        return _Segment(stack.x[:, start:stop], sign, first, mass)

    def _mass(self, stack: _Stack, first: int, unsafe: Tensor) -> Tensor:
        """`(S, n, h - first)` what rows with these labels count in the heads that learn from them."""
        weights = self._weights[stack.kind][stack.heads[:, first:]]  # (S, h, 2)
        return torch.where(unsafe, weights[:, None, :, 1], weights[:, None, :, 0])

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses `(k,)`, gradients `(k, P)` and mean curvatures of the heads in focus at `(k, P)`.

        The curvature of a logistic loss is p(1 - p), that of a squared logit 2. The curvatures are `(k, 1 + P - D)`: of
        all rows, and of the rows of each intercept.
        """
        losses, gradient = points.new_zeros(len(points)), torch.zeros_like(points)
        curvature = points.new_zeros(len(points), 1 + self.width - self._dim)
        for kind, heads, segments in self._work:
            weights = points[heads]  # (S, h, P)
            value, bend, slopes = weights.new_zeros(heads.shape), weights.new_zeros(heads.shape), None
            for x, sign, first, mass in segments:
                logits = torch.bmm(x, weights[:, first:].transpose(1, 2))  # (S, n, h)
                if kind == MIDPOINT:
                    slope = logits * mass
                    value[:, first:] += (slope * logits).sum(1)
                    bend[:, first:] += 2 * mass.sum(1)
                    slope *= 2
                else:
                    margin = logits.mul_(sign)  # > 0 where the head is wrong
                    wrong = torch.sigmoid(margin)
                    value[:, first:] += _softplus_(margin).mul_(mass).sum(1)
                    slope = wrong * mass
                    bend[:, first:] += slope.sum(1) - wrong.mul_(slope).sum(1)
                    slope *= sign
                if slopes is None:  # the first segment is that of all heads
                    slopes = torch.bmm(slope.transpose(1, 2), x)
                else:
                    slopes[:, first:] += torch.bmm(slope.transpose(1, 2), x)
            flat = heads.view(-1)
            losses[flat] += value.view(-1)  # a head is once in a stack
            curvature[flat, 0] += bend.view(-1)
            if kind != DIFFERENCE:
                curvature[flat, 1 + _intercept(kind, curvature.shape[1] > 2)] += bend.view(-1)
            assert slopes is not None
            gradient[flat] += slopes.flatten(0, 1)
        return losses, gradient, curvature

    def moments(self, dim: int) -> tuple[Tensor, Tensor]:
        """Mean `(R, dim)` of each head's rows of images, and the mean square `(R,)` of their norms."""
        dtype = self._stacks[0].x.dtype
        mean = torch.zeros(self.count, dim, dtype=dtype, device=self.images.device)
        square = torch.zeros(self.count, dtype=dtype, device=self.images.device)
        for stack in self._stacks:
            if stack.kind not in (REAL, PAIR):
                continue
            rows = stack.x[:, :, :dim]
            norms = torch.linalg.vecdot(rows, rows)  # (S, L)
            for start, stop, first in stack.cuts():
                seen = stack.seen(start, stop, first).expand(len(rows), -1, -1).to(dtype).transpose(1, 2)
                heads = stack.heads[:, first:].reshape(-1)
                total = torch.bmm(seen, rows[:, start:stop])  # (S, h, dim)
                squares = torch.bmm(seen, norms[:, start:stop, None])[:, :, 0]
                if self._centres is not None:  # rows were moved by c: Σ(r + c) and Σ‖r + c‖² from Σr and Σ‖r‖²
                    centre, count = self._centres[_intercept(stack.kind, True)], seen.sum(2)
                    squares += 2 * total @ centre + count * centre.square().sum()
                    total += count[:, :, None] * centre
                mean.index_add_(0, heads, total.flatten(0, 1))
                square.index_add_(0, heads, squares.flatten())
        images = self.images.to(dtype)
        return mean / images[:, None], square / images

    def to(self, dtype: torch.dtype) -> None:
        """Go on in another precision; all heads are in focus."""
        self._stacks = [replace(stack, x=stack.x.to(dtype)) for stack in self._stacks]
        self._weights = {kind: weights.to(dtype) for kind, weights in self._weights.items()}
        self.focus(torch.ones(self.count, dtype=torch.bool, device=self.images.device))


def _softplus_(z: Tensor) -> Tensor:
    """log(1 + exp(z)) in place: `max(z, 0) - log σ(|z|)`, from functions that are vectorised (softplus is not)."""
    rest = torch.sigmoid(z.abs()).log_()
    return z.relu_().sub_(rest)


class _Ordering(NamedTuple):
    """Rows `(L,)` (or `(L, 2)` of pairs) with their folds, and `(plan, length)` of its prefixes, shortest first."""

    kind: str
    rows: np.ndarray
    folds: np.ndarray | None
    members: list[tuple[int, int]]


def _stacks(
    x: Tensor,
    labels: Tensor,
    plans: Sequence[RunPlan],
    heads: Sequence[PrefixHead],
    centres: Tensor | None,
    pairs: PairSettings,
) -> list[_Stack]:
    """The orderings behind the plans, with the heads that learn from prefixes of them; those of one shape together."""
    of_plan: list[list[int]] = [[] for _ in plans]
    for r, head in enumerate(heads):
        of_plan[head.plan].append(r)
    by_shape: dict[tuple[object, ...], list[tuple[_Ordering, list[int]]]] = {}
    for ordering in orderings(plans, midpoints=pairs.centring > 0, differences=pairs.logistic > 0):
        columns = [(r, length) for plan, length in ordering.members for r in of_plan[plan]]
        shape = (
            *(ordering.kind, len(ordering.rows), ordering.folds is None),
            *((length, heads[r].left_out) for r, length in columns),
        )
        if columns:
            by_shape.setdefault(shape, []).append((ordering, [r for r, _ in columns]))
    stacks = []
    for (kind, _, unfolded, *shape_columns), found in by_shape.items():
        index = torch.from_numpy(np.stack([ordering.rows for ordering, _ in found])).to(x.device)
        folds = None if unfolded else np.stack([ordering.folds for ordering, _ in found if ordering.folds is not None])
        lengths, left_out = (torch.from_numpy(column.copy()).to(x.device) for column in np.array(shape_columns).T)
        stacks.append(
            _Stack(
                str(kind),
                _rows(x, index, str(kind), centres),
                labels[index] == 1 if index.ndim == 2 else torch.ones(index.shape[:2], dtype=torch.bool).to(x.device),
                None if folds is None else torch.from_numpy(folds).to(x.device),
                torch.tensor([members for _, members in found], device=x.device),
                lengths,
                left_out,
            )
        )
    return stacks


def _intercept(kind: str, offset: bool) -> int:
    """Which intercept an ordering's rows have: the second is that of real images."""
    return int(offset and kind == REAL)


def has_two_intercepts(plans: Sequence[RunPlan], pairs: PairSettings) -> bool:
    """Whether real and pair images have intercepts of their own in any of the runs."""
    return pairs.offset > 0 and any(0 < (plan.split or 0) < len(plan.train) for plan in plans)


def _rows(x: Tensor, index: Tensor, kind: str, centres: Tensor | None) -> Tensor:
    """`(S, L, P)`: what the heads multiply; the column of a row's own intercept is 1."""
    dim, offset = x.shape[1], centres is not None
    own = _intercept(kind, offset)
    with_intercept = torch.zeros(len(x), dim + (2 if offset else 1), dtype=x.dtype, device=x.device)
    with_intercept[:, :dim] = x if centres is None else x - centres[own]
    with_intercept[:, dim + own] = 1

    def gather(rows: Tensor) -> Tensor:
        return with_intercept.index_select(0, rows.reshape(-1)).view(*rows.shape, -1)

    if index.ndim == 2:
        return gather(index)
    unsafe, safe = gather(index[:, :, 0]), gather(index[:, :, 1])
    return unsafe - safe if kind == DIFFERENCE else (unsafe + safe) / 2


def orderings(plans: Sequence[RunPlan], *, midpoints: bool = False, differences: bool = False) -> list[_Ordering]:
    """The orderings behind the plans.

    Rows that are a prefix of another plan's are found by comparing them (and their folds), longest first; plans that
    share none have an ordering of their own.
    """
    parts: list[tuple[str, np.ndarray, np.ndarray | None, int]] = []
    for p, plan in enumerate(plans):
        parts += [
            (kind, rows, folds, p)
            for kind, rows, folds in zip((REAL, PAIR), plan.parts, plan.fold_parts, strict=False)
            if len(rows)
        ]
        if plan.pairs is not None and len(plan.pairs):
            kinds = [kind for kind, wanted in ((MIDPOINT, midpoints), (DIFFERENCE, differences)) if wanted]
            parts += [(kind, plan.pairs, plan.pair_folds, p) for kind in kinds]
    parts.sort(key=lambda part: -len(part[1]))
    by_first: dict[tuple[str, int], list[_Ordering]] = {}
    for kind, rows, folds, p in parts:
        candidates = by_first.setdefault((kind, int(rows.flat[0])), [])
        for ordering in candidates:
            if np.array_equal(ordering.rows[: len(rows)], rows) and _same_folds(ordering.folds, folds):
                ordering.members.append((p, len(rows)))
                break
        else:
            candidates.append(_Ordering(kind, rows, folds, [(p, len(rows))]))
    return [o._replace(members=o.members[::-1]) for found in by_first.values() for o in found]


def _same_folds(whole: np.ndarray | None, prefix: np.ndarray | None) -> bool:
    if whole is None or prefix is None:
        return whole is prefix
    return np.array_equal(whole[: len(prefix)], prefix)
