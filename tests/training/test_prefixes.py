from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.training.batches import RunPlan
from guardtrain.training.losses import weighted_bce
from guardtrain.training.prefixes import PrefixLoss, _orderings

N, D = 700, 5


def _plans(draws: list[tuple[int, int, int]]) -> list[RunPlan]:
    """(seed, real images, pair images) → plans that share the seed's two orderings, as a curve's do."""
    plans = []
    for seed, n_real, n_pairs in draws:
        real = np.random.default_rng([seed, 0]).permutation(400)[:n_real]
        pairs = 400 + np.random.default_rng([seed, 1]).permutation(300)[:n_pairs]
        plans.append(RunPlan(np.concatenate([real, pairs]), seed, split=n_real))
    return plans


def _problem(draws: list[tuple[int, int, int]]):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (N,), generator=generator)
    plans = _plans(draws)
    class_weights = torch.rand(len(plans), 2, generator=generator, dtype=torch.float64) + 0.1
    weight = torch.randn(len(plans), D, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(len(plans), generator=generator, dtype=torch.float64, requires_grad=True)
    return x, y, plans, class_weights, weight, bias


def _one_by_one(x, y, plans, class_weights, weight, bias) -> torch.Tensor:
    losses = []
    for r, plan in enumerate(plans):
        rows = torch.from_numpy(plan.train)
        logits = x[rows] @ weight[r] + bias[r]
        losses.append(weighted_bce(logits[None], y[rows][None], class_weights[r][y[rows]][None])[0])
    return torch.stack(losses)


@settings(max_examples=40, deadline=None)
@given(
    draws=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 400), st.integers(0, 300)).filter(lambda d: d[1] + d[2] > 0),
        min_size=1,
        max_size=9,
    )
)
def test_losses_and_gradients_are_those_of_each_head_alone(draws: list[tuple[int, int, int]]) -> None:
    x, y, plans, class_weights, weight, bias = _problem(draws)
    ours = PrefixLoss(x, y, plans, class_weights)(weight, bias)
    theirs = _one_by_one(x, y, plans, class_weights, weight, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    mixed = torch.arange(1, len(plans) + 1, dtype=torch.float64)  # so that a gradient in the wrong place shows
    for a, b in zip(
        torch.autograd.grad((mixed * ours).sum(), (weight, bias)),
        torch.autograd.grad((mixed * theirs).sum(), (weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_heads_out_of_focus_leave_the_work_and_come_back() -> None:
    x, y, plans, class_weights, weight, bias = _problem([(0, 300, 0), (0, 16, 16), (1, 64, 200), (0, 300, 256)])
    objective = PrefixLoss(x, y, plans, class_weights)
    whole = objective(weight, bias).detach()
    active = torch.tensor([True, False, False, True])
    objective.focus(active)
    part, by_weight, _ = objective.evaluate(weight.detach(), bias.detach())
    torch.testing.assert_close(part[active], whole[active])
    assert not part[~active].any()
    assert not by_weight[~active].any()
    objective.focus(torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(objective(weight, bias).detach(), whole)


def test_an_ordering_is_shared_by_all_its_prefixes() -> None:
    plans = _plans([(0, 16, 8), (0, 64, 32), (0, 256, 0), (1, 64, 32)])
    found = sorted((len(rows), members) for rows, members in _orderings(plans))
    assert found == [
        (32, [(0, 8), (1, 32)]),
        (32, [(3, 32)]),
        (64, [(3, 64)]),
        (256, [(0, 16), (1, 64), (2, 256)]),
    ]
    # without a split nothing is known of two orderings: whole plans are compared
    assert len(_orderings([RunPlan(plan.train, plan.seed) for plan in plans])) == 4
