"""What a head trains on, and the index batches drawn from it: batches are indices, rows are gathered later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RunPlan:
    """The images one head learns from.

    Args:
        train: `(n,)` int64 rows of the embedding matrix, in the mixture's order.
        seed: seeds the head's initial weights and the order of its batches.
        folds: `(n,)` int64 fold of each training image, for choosing hyper-parameters; None where none are chosen.
        held_out: `(m,)` int64 rows whose loss steers early stopping. Never test rows.
        split: where `train` goes over from one ordering (of real images) to another (of pair images); prefixes of
            these are what runs share. None where it is one ordering.
        pairs: `(k, 2)` int64 rows (unsafe, safe) of the pairs of which the run has both halves, in the mixture's
            order; None where nothing is known of pairs.
    """

    train: np.ndarray
    seed: int
    folds: np.ndarray | None = None
    held_out: np.ndarray | None = None
    split: int | None = None
    pairs: np.ndarray | None = None

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """`train`, cut where the ordering changes."""
        return (self.train,) if self.split is None else (self.train[: self.split], self.train[self.split :])

    @property
    def fold_parts(self) -> tuple[np.ndarray | None, ...]:
        """`folds`, cut in the same places."""
        if self.folds is None:
            return (None,) * len(self.parts)
        return (self.folds,) if self.split is None else (self.folds[: self.split], self.folds[self.split :])

    def inside(self, mask: np.ndarray, *, held_out: bool = False) -> RunPlan:
        """The run with those of its images in `mask` `(n,)` bool alone, and the pairs they complete.

        Args:
            held_out: keep the other images as `held_out`.
        """
        train = self.train[mask]
        return RunPlan(
            train,
            self.seed,
            held_out=self.train[~mask] if held_out else None,
            split=None if self.split is None else int(mask[: self.split].sum()),
            pairs=None if self.pairs is None else self.pairs[np.isin(self.pairs, train).all(1)],
        )

    @property
    def pair_folds(self) -> np.ndarray | None:
        """`(k,)` int64 fold of each pair: its halves are of one group, and so in one fold."""
        if self.folds is None or self.pairs is None:
            return None
        order = np.argsort(self.train)
        return self.folds[order[np.searchsorted(self.train, self.pairs[:, 0], sorter=order)]]


def batch_width(images: int, batch_size: int) -> int:
    """How wide a batch is that a run of so many images is trained in.

    The batch size, or for fewer images the next multiple of an eighth of it. It is a function of the run alone: where
    only runs of one width share a bank, none is padded to another's, and its sums are rounded the same in any bank.
    """
    multiple = -(-batch_size // 8)
    return min(batch_size, -(-images // multiple) * multiple)


def pairs_a_step(batch_size: int) -> int:
    """How many whole pairs a head sees beside the images of a batch, where something is made of them: an eighth."""
    return max(1, batch_size // 8)


class IndexBatch(NamedTuple):
    """Rows for each head: `index` `(R, B)` int64 into the matrix, `weight` `(R, B)` float32, zero for padding."""

    step: int
    index: Tensor
    weight: Tensor


class IndexStream:
    """An endless, seekable stream of index batches for R runs.

    A run with at most `batch_size` images gets all of them in every batch; a larger one walks through its images in a
    new random order each epoch. All are padded with weight zero to the widest `batch_width` of the runs. What a batch
    holds at a step depends on the run's seed, its length and the step alone: neither on the other runs nor on what was
    drawn before, so a head trains the same in any bank and after any resume.

    Args:
        plans: the R runs.
        batch_size: images a head sees in a step.
    """

    def __init__(self, plans: Sequence[RunPlan], batch_size: int) -> None:
        self.plans, self.batch_size = plans, batch_size
        self.width = max(batch_width(len(plan.train), batch_size) for plan in plans)
        self._orders: dict[tuple[int, int, int], np.ndarray] = {}
        self.constant = all(len(plan.train) <= batch_size for plan in plans)  # all runs see all their images each step
        self._constant: IndexBatch | None = None

    def batch(self, step: int) -> IndexBatch:
        """The index batch of optimisation step `step` (from 0); the same tensors each time where all runs are small."""
        if self._constant is not None:
            return self._constant._replace(step=step)
        index = np.zeros((len(self.plans), self.width), dtype=np.int64)
        weight = np.zeros(index.shape, dtype=np.float32)
        positions: dict[tuple[int, int], np.ndarray] = {}
        for r, plan in enumerate(self.plans):
            n = len(plan.train)
            key = (plan.seed, n)
            if key not in positions:
                positions[key] = self.positions(plan, step, step + 1)[0]
            chosen = plan.train[positions[key]]
            index[r, : len(chosen)] = chosen
            weight[r, : len(chosen)] = 1
        batch = IndexBatch(step, torch.from_numpy(index), torch.from_numpy(weight))
        if self.constant:
            self._constant = batch
        return batch

    def positions(self, plan: RunPlan, start: int, stop: int) -> np.ndarray:
        """`(stop - start, b)` which of its images a run sees in each of these steps, as places in `plan.train`.

        All of them, or places `step·B … (step+1)·B` in the concatenation of the epochs' random orders.
        """
        n = len(plan.train)
        if n <= self.batch_size:
            return np.tile(np.arange(n), (stop - start, 1))
        first, last = start * self.batch_size, stop * self.batch_size
        parts = [
            self._order(plan.seed, n, epoch)[max(first - epoch * n, 0) : min(last - epoch * n, n)]
            for epoch in range(first // n, (last - 1) // n + 1)
        ]
        return np.concatenate(parts).reshape(stop - start, -1)

    def _order(self, seed: int, n: int, epoch: int) -> np.ndarray:
        key = (seed, n, epoch)
        if key not in self._orders:
            self._orders.pop((seed, n, epoch - 2), None)  # passed for good: keep the memory flat
            self._orders[key] = np.random.default_rng([seed, n, epoch]).permutation(n)
        return self._orders[key]


class RowNoise:
    """Gaussian noise on the rows of a step, new in each.

    What a row gets is a function of its run's seed, the step and its place in the batch alone: a head trains the same
    in any bank and after any resume. Both halves of a pair get the same, so that their difference stays what it is.

    Args:
        deviation: its standard deviation, where the spread of a run's images is 1.
        embeddings: `(N, D)` floating.
        plans: the R runs.
    """

    def __init__(self, deviation: float, embeddings: Tensor, plans: Sequence[RunPlan]) -> None:
        self.seeds = [plan.seed for plan in plans]
        own = [embeddings[torch.from_numpy(plan.train)] for plan in plans]
        spreads = [(rows - rows.mean(0)).square().mean().sqrt() for rows in own]
        self.deviations = deviation * torch.stack(spreads)[:, None, None]  # (R, 1, 1)

    def added(self, x: Tensor, images: int, step: int) -> Tensor:
        """`x` `(R, images + 2P, D)`, images and then the halves of pairs, with the noise of step `step`; a new tensor.

        >>> noise = RowNoise(0.5, torch.eye(4), [RunPlan(np.arange(4), seed=1)])
        >>> rows = noise.added(torch.zeros(1, 6, 4), images=2, step=0)
        >>> bool(rows[0, 2].equal(rows[0, 3])), bool(rows[0, 2].equal(rows[0, 4]))
        (True, False)
        """
        noise = self._drawn(self.seeds, x.shape[1], images, x.shape[2], step).to(x)
        return x + self.deviations.to(x) * noise

    def add(self, runs: slice, x: Tensor, images: int, step: int) -> None:
        """Add to the rows `x` of neighbouring runs, in place, what `added` gives them."""
        x.addcmul_(self.deviations[runs], self._drawn(self.seeds[runs], x.shape[1], images, x.shape[2], step))

    @staticmethod
    def _drawn(seeds: Sequence[int], rows: int, images: int, dim: int, step: int) -> Tensor:
        """`(R, rows, D)` standard normal numbers, the same for both halves of a pair and for runs of one seed."""
        drawn: dict[int, Tensor] = {}
        for seed in seeds:
            if seed not in drawn:
                of_images = torch.from_numpy(_normal((seed, step, 0), (images, dim)))
                of_pairs = torch.from_numpy(_normal((seed, step, 1), ((rows - images) // 2, dim)))
                drawn[seed] = torch.cat([of_images, of_pairs.repeat_interleave(2, 0)])
        return torch.stack([drawn[seed] for seed in seeds])


def _normal(key: tuple[int, ...], shape: tuple[int, int]) -> np.ndarray:
    """Standard normal numbers drawn from `key`; fewer rows are the beginning of more."""
    return np.random.Generator(np.random.SFC64(list(key))).standard_normal(shape, dtype=np.float32)
