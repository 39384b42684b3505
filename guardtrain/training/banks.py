"""Which runs are trained together, within the memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from guardtrain.heads import HeadBank
from guardtrain.training.batches import RunPlan, batch_width, pairs_a_step

CACHE_BYTES = 48 * 2**20  # of a bank's parameters, gradients and moments, where training takes steps on batches
FEWEST_HEADS = 8  # but so many heads at least: the work around the products of a step costs as much as a few heads
MOST_LINEAR_HEADS = 1024  # of a bank on shared rows: more gain nothing in the products, and outgrow the cache
LBFGS_VECTORS = 70  # a head's: thirty curvature pairs, points, gradients and what is between


def linear_banks(dim: int, plans: Sequence[RunPlan], heads_each: int, memory_gb: float) -> list[Tensor]:
    """Banks of linear heads that share rows: int64 indices of plans, those of one seed together.

    Args:
        dim: D.
        plans: the runs.
        heads_each: heads a plan has (its folds).
        memory_gb: most memory of one bank.
    """
    banks: list[list[int]] = []
    rows: set[int] = set()
    by_seed = sorted(range(len(plans)), key=lambda r: plans[r].seed)
    for _, same in itertools.groupby(by_seed, key=lambda r: plans[r].seed):
        seed = list(same)
        own = set(np.concatenate([plans[r].train for r in seed]).tolist())
        # whole seeds where they fit: orderings of several seeds go through one product, but for the odd one out
        parts = [seed] if _fits(dim, len(seed) * heads_each, len(own), memory_gb) else [[r] for r in seed]
        for part in parts:
            more = own if len(parts) == 1 else set(plans[part[0]].train.tolist())
            heads = ((len(banks[-1]) if banks else 0) + len(part)) * heads_each
            if not banks or not _fits(dim, heads, len(rows | more), memory_gb):
                banks.append([])
                rows = set()
            banks[-1] += part
            rows |= more
    return [torch.tensor(bank) for bank in banks]


def _fits(dim: int, heads: int, rows: int, memory_gb: float) -> bool:
    """Whether a bank of linear heads stays within memory and cache."""
    # rows in float32 and float64, once as they are and once in each seed's order
    need = dim * (16 * rows + 8 * LBFGS_VECTORS * heads)
    return heads <= MOST_LINEAR_HEADS and need <= memory_gb * 2**30


def stepped_banks(
    one: HeadBank, plans: Sequence[RunPlan], batch_size: int, memory_gb: float, *, in_blocks: bool = False
) -> list[Tensor]:
    """Banks of heads that take steps on batches (AdamW): int64 indices of plans.

    A bank holds runs of one batch width, of images and of pairs, so that a head's sums are those it has alone.
    Runs of one length are neighbours (their penalty is the same: one call of the optimizer's kernel), and among them
    those of one seed (they share dropout masks). A bank is as large as its parameters, gradients and moments fit into
    a processor's cache (`CACHE_BYTES`): larger banks wait for the memory, smaller ones for Python.

    Args:
        one: an untrained bank of one head.
        plans: the runs.
        batch_size: images a head sees in a step.
        memory_gb: most memory of one bank.
        in_blocks: the bank is trained by `BlockwiseSteps`, which looks after widths and the cache itself: memory alone
            ends a bank.
    """
    widths = sum(p.shape[-1] for p in one.parameters() if p.ndim == 3)
    fixed = sum(p.numel() for p in one.parameters())
    banks: list[list[int]] = []
    shapes = [
        (
            batch_width(len(plan.train), batch_size),
            0 if plan.pairs is None else batch_width(len(plan.pairs), pairs_a_step(batch_size)),
        )
        for plan in plans
    ]
    pairs = [0 if plan.pairs is None else min(len(plan.pairs), pairs_a_step(batch_size)) for plan in plans]
    for r in sorted(range(len(plans)), key=lambda r: (shapes[r], pairs[r], len(plans[r].train), plans[r].seed)):
        plan = plans[r]
        width = shapes[r][0]
        state = fixed + 2 * one.parameters_per_image * len(plan.train)
        rows = max(width, 0 if plan.held_out is None else len(plan.held_out))
        memory = int(memory_gb * 2**28 / (5 * state + rows * (one.dim + 3 * widths)))
        limit = max(1, memory if in_blocks else min(memory, max(FEWEST_HEADS, CACHE_BYTES // (16 * state))))
        if not banks or len(banks[-1]) >= limit or (shapes[banks[-1][0]] != shapes[r] and not in_blocks):
            banks.append([])
        banks[-1].append(r)
    return [torch.tensor(bank) for bank in banks]


def full_batch_banks(one: HeadBank, plans: Sequence[RunPlan], memory_gb: float) -> list[Tensor]:
    """Banks whose heads all see all of their images in every step (L-BFGS): int64 indices, runs of like size together.

    Args:
        one: an untrained bank of one head.
        plans: the runs.
        memory_gb: most memory of one bank.
    """
    widths = sum(p.shape[-1] for p in one.parameters() if p.ndim >= 3)
    state = LBFGS_VECTORS * sum(p.numel() for p in one.parameters())
    banks: list[list[int]] = []
    largest = 0
    for r in sorted(range(len(plans)), key=lambda r: -len(plans[r].train)):
        rows, held_out = len(plans[r].train), plans[r].held_out
        need = state + max(largest, rows, 0 if held_out is None else len(held_out)) * (one.dim + 3 * widths)
        if not banks or len(banks[-1]) >= max(1, int(memory_gb * 2**27 / need)) or 2 * rows <= largest:
            banks.append([])
            largest = rows
        banks[-1].append(r)
    return [torch.tensor(sorted(bank)) for bank in banks]
