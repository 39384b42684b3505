from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardtrain.heads import LinearHead, MLPHead
from guardtrain.training.banks import (
    CACHE_BYTES,
    FEWEST_HEADS,
    LBFGS_VECTORS,
    MOST_LINEAR_HEADS,
    full_batch_banks,
    linear_banks,
    stepped_banks,
)
from guardtrain.training.batches import RunPlan, batch_width

DIM = 12
MEMORY = st.sampled_from([1e-9, 1e-4, 1e-3, 1e-2, 4.0])
HEADS = st.sampled_from([LinearHead(), MLPHead(hidden=[7])])
# (seed, images, held-out images or None)
RUNS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 3000), st.none() | st.integers(1, 400)), min_size=1, max_size=40
)


def _plans(runs: Sequence[tuple[int, int, int | None]]) -> list[RunPlan]:
    """A seed's runs share a prefix of its ordering."""
    orders = {seed: np.random.default_rng(seed).permutation(4000) for seed, _, _ in runs}
    return [
        RunPlan(orders[seed][:n], seed, held_out=None if m is None else orders[seed][n : n + m]) for seed, n, m in runs
    ]


def _covers(banks: Sequence[torch.Tensor], count: int) -> None:
    """Every plan is in one bank, once, and no bank is empty."""
    assert all(len(bank) > 0 for bank in banks)
    assert all(bank.dtype == torch.int64 for bank in banks)
    assert sorted(torch.cat(list(banks)).tolist()) == list(range(count))


@example([(0, 1, None)] * 14 + [(1, 1, None), (1, 2793, None)], 5, 0.001)  # a seed moves to the next bank whole
@settings(max_examples=30, deadline=None)
@given(runs=RUNS, heads_each=st.sampled_from([1, 5, 100, 600]), memory_gb=MEMORY)
def test_linear_banks_keep_their_limits(runs, heads_each: int, memory_gb: float) -> None:
    plans = _plans(runs)
    banks = linear_banks(DIM, plans, heads_each, memory_gb)
    _covers(banks, len(plans))

    def memory(members: Sequence[int]) -> int:
        """Their rows twice in each precision (16 bytes a number would be 4 + 8, and 4 of the copy) and the state."""
        rows = set().union(*(plans[r].train.tolist() for r in members))
        return 16 * DIM * len(rows) + 8 * LBFGS_VECTORS * DIM * heads_each * len(members)

    def fits(members: Sequence[int]) -> bool:
        return len(members) * heads_each <= MOST_LINEAR_HEADS and memory(members) <= memory_gb * 2**30

    for bank in banks:
        assert len(bank) == 1 or fits(bank.tolist())
    for bank, following in itertools.pairwise(banks):  # no bank ends before it must: a seed that fits stays whole
        whole = [r for r, plan in enumerate(plans) if plan.seed == plans[int(following[0])].seed]
        assert not fits([*bank.tolist(), *(whole if fits(whole) else [int(following[0])])])
    seeds = [plans[r].seed for r in torch.cat(banks).tolist()]
    assert seeds == sorted(seeds)


def test_linear_runs_of_one_seed_share_their_rows_memory() -> None:
    shared = _plans([(0, 1000, None)] * 8)
    apart = _plans([(seed, 1000, None) for seed in range(8)])
    room = 16 * DIM * 1100 / 2**30  # for the rows of one run and the state of a few
    assert len(linear_banks(DIM, shared, 1, room + 8 * LBFGS_VECTORS * DIM * 8 / 2**30)) == 1
    assert len(linear_banks(DIM, apart, 1, room + 8 * LBFGS_VECTORS * DIM * 8 / 2**30)) == 8


@settings(max_examples=30, deadline=None)
@given(runs=RUNS, head=HEADS, batch_size=st.sampled_from([1, 16, 128]), memory_gb=MEMORY)
def test_stepped_banks_keep_their_limits(runs, head, batch_size: int, memory_gb: float) -> None:
    plans, one = _plans(runs), head.bank(1, DIM)
    banks = stepped_banks(one, plans, batch_size, memory_gb)
    _covers(banks, len(plans))
    parameters = sum(p.numel() for p in one.parameters())
    widths = 1 if isinstance(head, LinearHead) else 7 + 1
    for bank in banks:
        members = [plans[r] for r in bank.tolist()]
        assert len({batch_width(len(plan.train), batch_size) for plan in members}) == 1
        lengths = [len(plan.train) for plan in members]
        assert lengths == sorted(lengths)
        width = batch_width(lengths[-1], batch_size)
        rows = max(width, 0 if members[-1].held_out is None else len(members[-1].held_out))
        # parameters, gradients and two moments, and one more; rows and activations: all float32
        each = 4 * (5 * parameters + rows * (DIM + 3 * widths))
        assert len(bank) == 1 or len(bank) * each <= memory_gb * 2**30
        assert len(bank) <= max(FEWEST_HEADS, CACHE_BYTES / (16 * parameters))


def test_stepped_banks_fill_the_cache_and_keep_a_few_heads_at_least() -> None:
    plans = _plans([(seed, 500, None) for seed in range(40)])
    large = MLPHead(hidden=[4000]).bank(1, 500)  # 2 million parameters: one fills the cache
    assert [len(bank) for bank in stepped_banks(large, plans, 128, 4.0)] == [FEWEST_HEADS] * 5
    assert len(stepped_banks(LinearHead().bank(1, DIM), plans, 128, 4.0)) == 1


@settings(max_examples=30, deadline=None)
@given(runs=RUNS, head=HEADS, memory_gb=MEMORY)
def test_full_batch_banks_keep_their_limits(runs, head, memory_gb: float) -> None:
    plans, one = _plans(runs), head.bank(1, DIM)
    banks = full_batch_banks(one, plans, memory_gb)
    _covers(banks, len(plans))
    state = LBFGS_VECTORS * sum(p.numel() for p in one.parameters())
    widths = 1 if isinstance(head, LinearHead) else 7 + 1
    for bank in banks:
        lengths = [len(plans[r].train) for r in bank.tolist()]
        assert len(bank) == 1 or 2 * min(lengths) > max(lengths)  # padding never doubles the work
        each = 8 * (state + max(lengths) * (DIM + 3 * widths))  # float64
        assert len(bank) == 1 or len(bank) * each <= memory_gb * 2**30
        assert bank.tolist() == sorted(bank.tolist())


@pytest.mark.parametrize("make", [stepped_banks, full_batch_banks])
def test_ample_memory_and_like_runs_make_one_bank(make) -> None:
    plans, one = _plans([(seed, 200, None) for seed in range(30)]), LinearHead().bank(1, DIM)
    banks = make(one, plans, 128, 4.0) if make is stepped_banks else make(one, plans, 4.0)
    assert len(banks) == 1
