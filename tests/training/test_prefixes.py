"""The losses of heads on shared prefixes, against each head alone: its own rows, its own loop, torch's autograd."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import softplus

from guardtrain.training.batches import RunPlan
from guardtrain.training.prefixes import WHOLE, PrefixHead, PrefixLoss, orderings
from guardtrain.training.settings import PairSettings

REAL_IMAGES, PAIRS, D = 400, 150, 5
N = REAL_IMAGES + 2 * PAIRS


@dataclass(frozen=True)
class Problem:
    """Rows, labels, plans and heads as a curve's; a pair's unsafe image is in row 400 + 2j, its safe one in the next.

    `centres` `(2, D)` are those of pair and of real images.
    """

    x: torch.Tensor
    labels: torch.Tensor
    plans: list[RunPlan]
    heads: list[PrefixHead]
    balanced: bool
    pairs: PairSettings
    centres: torch.Tensor | None = None

    def __repr__(self) -> str:
        plans = [f"seed {p.seed}, {len(p.train)} images, split {p.split}, folds {p.folds}" for p in self.plans]
        return f"{plans}, {self.heads}, balanced={self.balanced}, {self.pairs}, centres={self.centres}"

    @property
    def loss(self) -> PrefixLoss:
        return PrefixLoss(
            self.x,
            self.labels,
            self.plans,
            self.heads,
            balanced=self.balanced,
            pairs=self.pairs,
            centres=self.centres,
        )

    def points(self, seed: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(len(self.heads), self.loss.width, generator=generator, dtype=torch.float64).to(self.x)


def _plan(seed: int, n_real: int, n_pair_images: int, *, folds: int = 0, own_folds: bool = False, control: str = ""):
    """Prefixes of the seed's two orderings; folds keep pairs together and are the seed's, or the plan's own."""
    rng = np.random.default_rng
    real = rng([seed, 0]).permutation(REAL_IMAGES)[:n_real]
    order = rng([seed, 1]).permutation(PAIRS)
    halves = REAL_IMAGES + 2 * order[:, None] + rng([seed, 2]).permuted(np.tile([0, 1], (PAIRS, 1)), axis=1)
    pair_images = halves.reshape(-1)[:n_pair_images]
    pairs = REAL_IMAGES + 2 * order[: n_pair_images // 2, None] + np.arange(2)
    train = np.concatenate([real, pair_images])
    groups = np.where(np.arange(N) < REAL_IMAGES, np.arange(N), REAL_IMAGES + (np.arange(N) - REAL_IMAGES) // 2)
    fold_of = rng([seed, 3, n_real if own_folds else 0]).integers(0, max(folds, 1), N)[groups]
    return RunPlan(
        train,
        seed,
        folds=fold_of[train] if folds else None,
        split=None if control == "one ordering" else n_real,
        pairs=None if control else pairs,
    )


@st.composite
def problems(draw: st.DrawFn, dtype: torch.dtype = torch.float64) -> Problem:
    """Grids of shapes by seeds, so that orderings of one shape are stacked, and a few plans that share with none."""
    sizes = st.tuples(st.integers(0, REAL_IMAGES), st.integers(0, 2 * PAIRS)).filter(lambda s: sum(s) > 0)
    folds = draw(st.sampled_from([0, 2, 3]))
    control = draw(st.sampled_from(["", "", "", "unpaired", "one ordering"]))
    options = {"folds": folds, "own_folds": draw(st.booleans()), "control": control}
    shapes = draw(st.lists(sizes, min_size=1, max_size=4))
    plans = [_plan(seed, *shape, **options) for seed in range(draw(st.integers(1, 3))) for shape in shapes]
    others = draw(st.lists(st.tuples(st.integers(3, 4), sizes), max_size=2))
    plans += [_plan(seed, *shape) for seed, shape in others]
    heads = []
    for p, plan in enumerate(plans):
        left_out = [WHOLE, *(np.unique(plan.folds).tolist() if plan.folds is not None else [])]
        heads += [PrefixHead(p, fold) for fold in left_out if plan.folds is None or np.any(plan.folds != fold)]
    heads = draw(st.permutations(heads))[: draw(st.integers(1, len(heads)))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10)))
    labels = (torch.rand(N, generator=generator) < 0.3).long()
    labels[REAL_IMAGES:] = torch.tensor([1, 0]).repeat(PAIRS)
    number = st.sampled_from([0.0, 0.5, 2.0])
    pairs = PairSettings(draw(st.sampled_from([0.0, 0.3, 0.9])), draw(number), draw(number), draw(number))
    x = torch.randn(N, D, generator=generator, dtype=torch.float64).to(dtype)
    centres = x[:2] if draw(st.booleans()) else None
    return Problem(x, labels, plans, heads, draw(st.booleans()), pairs, centres)


class Alone:
    """What a head learns from, row by row: what `PrefixLoss` documents, without any sharing."""

    def __init__(self, problem: Problem, head: PrefixHead) -> None:
        self.problem, self.plan = problem, problem.plans[head.plan]
        n, split = len(self.plan.train), self.plan.split
        self.pooled = np.arange(n) >= (n if split is None else split)
        self.out = np.zeros(n, dtype=bool) if self.plan.folds is None else self.plan.folds == head.left_out
        self.labels = problem.labels[torch.from_numpy(self.plan.train)].numpy()
        weights = np.ones(n)
        if problem.balanced:
            for label in (0, 1):
                of_class = (self.labels[~self.out] == label).sum()
                weights[self.labels == label] = (~self.out).sum() / (2 * max(of_class, 1))
        real, pair = (weights[~self.out & (self.pooled == kind)].sum() for kind in (False, True))
        share = problem.pairs.mass
        self.lift = max(1.0, share / (1 - share) * real / pair) if pair else 1.0
        self.weights = weights * np.where(self.pooled, self.lift, 1.0)
        self.total = self.weights[~self.out].sum()
        self.sees_real, self.sees_pairs = bool(real), bool(pair)

    def score(self, point: torch.Tensor, rows: np.ndarray, pooled: np.ndarray) -> torch.Tensor:
        """Logits of images; with two intercepts they are taken from their kind's centre, by their kind's intercept."""
        x, kind = self.problem.x[torch.from_numpy(rows)].double(), torch.zeros(len(rows), dtype=torch.int64)
        if len(point) == D + 2:
            kind = torch.from_numpy(~pooled).long()
            x = x if self.problem.centres is None else x - self.problem.centres.double()[kind]
        return x @ point[:D] + point[D + kind]

    def logits(self, point: torch.Tensor) -> torch.Tensor:
        """Of all the plan's images."""
        return self.score(point, self.plan.train, self.pooled)

    def cross_entropies(self, point: torch.Tensor) -> torch.Tensor:
        """Of all the plan's images, times what each counts."""
        sign = torch.from_numpy(1 - 2 * self.labels)
        return torch.from_numpy(self.weights) * softplus(sign * self.logits(point))

    def loss(self, point: torch.Tensor) -> torch.Tensor:
        loss = self.cross_entropies(point)[torch.from_numpy(~self.out)].sum()
        for mean, difference in self.pair_logits(point):
            pairs = self.problem.pairs
            loss = loss + self.lift * (pairs.centring * mean**2 + pairs.logistic * softplus(-difference))
        return loss / self.total

    def pair_logits(self, point: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Mean and difference of every pair of which the head learns."""
        if self.plan.pairs is None:
            return []
        learnt = set(self.plan.train[~self.out].tolist())
        found = []
        for pair in self.plan.pairs:
            assert (pair[0] in learnt) == (pair[1] in learnt)
            if pair[0] in learnt:
                unsafe, safe = self.score(point, pair, np.ones(2, dtype=bool))
                found.append(((unsafe + safe) / 2, unsafe - safe))
        return found

    def curvatures(self, point: torch.Tensor) -> list[float]:
        """Of all terms, and of those of each intercept: of pairs' logits (and means) first, where there are two."""
        p = torch.sigmoid(self.logits(point)).numpy()
        bends = self.weights * p * (1 - p) / self.total
        pooled, real = (bends[~self.out & (self.pooled == kind)].sum() for kind in (True, False))
        between = 0.0
        for _, difference in self.pair_logits(point):
            q = float(torch.sigmoid(difference))
            pooled += self.lift * 2 * self.problem.pairs.centring / self.total
            between += self.lift * self.problem.pairs.logistic * q * (1 - q) / self.total
        own = [pooled, real] if len(point) == D + 2 else [pooled + real]
        return [pooled + real + between, *own]


def _one_by_one(problem: Problem, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses, gradients and curvatures in float64."""
    points = points.double().requires_grad_()
    alone = [Alone(problem, head) for head in problem.heads]
    losses = torch.stack([head.loss(point) for head, point in zip(alone, points, strict=True)])
    (gradient,) = torch.autograd.grad(losses.sum(), points)  # a head's loss depends on its own point only
    curvatures = [head.curvatures(point) for head, point in zip(alone, points.detach(), strict=True)]
    return losses.detach(), gradient, torch.tensor(curvatures, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_losses_gradients_and_curvatures_are_those_of_each_head_alone(problem: Problem) -> None:
    points = problem.points()
    for ours, theirs in zip(problem.loss.evaluate(points), _one_by_one(problem, points), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@settings(max_examples=10, deadline=None)
@given(problems(dtype=torch.float32))
def test_float32_is_float64_within_its_rounding_and_changes_into_it(problem: Problem) -> None:
    loss, points = problem.loss, problem.points()
    theirs = _one_by_one(problem, points)
    for ours, exact in zip(loss.evaluate(points), theirs, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)
    loss.focus(torch.zeros(len(points), dtype=torch.bool))
    loss.to(torch.float64)  # all heads are back
    for ours, exact in zip(loss.evaluate(points.double()), theirs, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6)  # the weights of classes were float32


@settings(max_examples=30, deadline=None)
@given(problems())
def test_images_moments_and_offsets_are_those_of_each_heads_own_images(problem: Problem) -> None:
    loss = problem.loss
    mean, square = loss.moments(D)
    for r, head in enumerate(problem.heads):
        alone = Alone(problem, head)
        rows = problem.x[torch.from_numpy(alone.plan.train[~alone.out])]
        assert loss.images[r] == len(rows)
        torch.testing.assert_close(mean[r], rows.mean(0))
        torch.testing.assert_close(square[r], rows.square().sum(1).mean())
        assert bool(loss.sees_pairs[r]) == alone.sees_pairs
        assert bool(loss.has_offset[r]) == (alone.sees_real and alone.sees_pairs and problem.pairs.offset > 0)


@settings(max_examples=30, deadline=None)
@given(problems(), st.data())
def test_heads_out_of_focus_leave_the_work_and_come_back(problem: Problem, data: st.DataObject) -> None:
    loss, points = problem.loss, problem.points()
    whole = loss.evaluate(points)
    count = len(points)
    for _ in range(2):  # a second focus may bring back heads that the first left out
        active = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
        kept = loss.focus(active)
        assert kept.tolist() == sorted(set(kept.tolist()))
        assert set(torch.nonzero(active)[:, 0].tolist()) <= set(kept.tolist())
        for part, everything in zip(loss.evaluate(points[kept]), whole, strict=True):
            torch.testing.assert_close(part, everything[kept], rtol=1e-10, atol=1e-12)
    assert loss.focus(torch.ones(count, dtype=torch.bool)).tolist() == list(range(count))
    torch.testing.assert_close(loss.evaluate(points)[1], whole[1], rtol=1e-10, atol=1e-12)


def _fixed(draws: list[tuple[int, int, int]], **options) -> list[RunPlan]:
    return [_plan(*draw, **options) for draw in draws]


def _problem_of(plans: list[RunPlan]) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (N,), generator=generator)
    heads = [PrefixHead(p) for p in range(len(plans))]
    return Problem(x, labels, plans, heads, True, PairSettings())


def test_only_heads_of_the_same_product_stay_for_one_that_must() -> None:
    # seeds 0 and 1 have the same shapes, so their orderings are stacked; seed 2 has another
    problem = _problem_of(_fixed([(0, 40, 0), (0, 90, 0), (1, 40, 0), (1, 90, 0), (2, 60, 0)]))
    active = torch.tensor([True, False, False, False, False])
    assert problem.loss.focus(active).tolist() == [0, 2]  # the twin of the other seed
    assert problem.loss.focus(active.roll(-1)).tolist() == [4]


@pytest.mark.parametrize("extreme", [-800.0, 800.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_heads_have_finite_losses(extreme: float, dtype: torch.dtype) -> None:
    problem = _problem_of(_fixed([(0, 50, 20)]))
    problem = replace(problem, x=problem.x.to(dtype), pairs=PairSettings(logistic=1.0))
    points = torch.zeros_like(problem.points())
    points[:, D] = extreme
    ours = problem.loss.evaluate(points)[0]
    assert ours.item() == pytest.approx(Alone(problem, problem.heads[0]).loss(points[0].double()).item(), rel=1e-5)


def test_a_share_that_the_pairs_have_anyway_lifts_nothing() -> None:
    problem = _problem_of(_fixed([(0, 50, 50)]))
    points = problem.points()
    for mass, equal in ((0.4, True), (0.6, False)):
        lifted = replace(problem, balanced=False, pairs=PairSettings(mass=mass)).loss.evaluate(points)[0]
        plain = replace(problem, balanced=False).loss.evaluate(points)[0]
        assert torch.allclose(lifted, plain) == equal


def test_an_ordering_is_shared_by_all_its_prefixes() -> None:
    plans = _fixed([(0, 16, 8), (0, 64, 32), (0, 256, 0), (1, 64, 32)], control="unpaired")
    found = sorted((ordering.kind, len(ordering.rows), ordering.members) for ordering in orderings(plans))
    assert found == [
        ("pair", 32, [(0, 8), (1, 32)]),
        ("pair", 32, [(3, 32)]),
        ("real", 64, [(3, 64)]),
        ("real", 256, [(0, 16), (1, 64), (2, 256)]),
    ]
    # without a split nothing is known of two orderings: whole plans are compared
    assert len(orderings([RunPlan(plan.train, plan.seed) for plan in plans])) == 4


def test_orderings_with_other_folds_are_other_orderings() -> None:
    shared, own, none = (
        _fixed([(0, 40, 20), (0, 80, 40)], **options) for options in ({"folds": 3}, {"folds": 3, "own_folds": True}, {})
    )
    kinds = {"midpoints": True, "differences": True}
    assert len(orderings(shared, **kinds)) == 4  # real, pair, midpoint, difference
    assert len(orderings(own, **kinds)) == 8
    assert len(orderings([shared[0], none[1]], **kinds)) == 8
    assert {ordering.kind for ordering in orderings(shared, differences=True)} == {"real", "pair", "difference"}


@settings(max_examples=40, deadline=None)
@given(problems())
def test_every_part_of_every_plan_is_in_one_ordering(problem: Problem) -> None:
    found = {}
    for ordering in orderings(problem.plans, midpoints=True, differences=True):
        lengths = [length for _, length in ordering.members]
        assert lengths == sorted(lengths)
        assert lengths[-1] == len(ordering.rows)
        for plan, length in ordering.members:
            assert (ordering.kind, plan) not in found
            folds = None if ordering.folds is None else ordering.folds[:length]
            found[ordering.kind, plan] = (ordering.rows[:length], folds)
    for p, plan in enumerate(problem.plans):
        for kind, rows, folds in zip(("real", "pair"), plan.parts, plan.fold_parts, strict=False):
            if not len(rows):
                assert (kind, p) not in found
                continue
            np.testing.assert_array_equal(found[kind, p][0], rows)
            if folds is not None:
                np.testing.assert_array_equal(found[kind, p][1], folds)
        if plan.pairs is not None and len(plan.pairs):
            np.testing.assert_array_equal(found["midpoint", p][0], plan.pairs)
            np.testing.assert_array_equal(found["difference", p][0], plan.pairs)
