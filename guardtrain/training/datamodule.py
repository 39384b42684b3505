"""The datamodule: one embedding matrix in memory, batches that are indices into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor

from guardtrain.heads import HeadBank
from guardtrain.training.batches import IndexBatch, IndexStream, RunPlan, pairs_a_step
from guardtrain.training.losses import class_weights, contrastive_terms, pair_terms, weighted_bce
from guardtrain.training.settings import PairSettings


class BankBatch(NamedTuple):
    """Rows gathered for each head.

    `x` `(R, B + 2P, D)` floating: B images, then P pairs, each its unsafe half and its safe one; `labels` and `weights`
    `(R, B)`; `pair_weights` `(R, P)`, what the terms of each pair count; `step` from 0. The place of a half in `x`
    does not depend on P, which other heads decide, and so neither do the units that dropout takes from it.
    """

    step: int
    x: Tensor
    labels: Tensor
    weights: Tensor
    pair_weights: Tensor
    pairs: PairSettings

    def losses(self, bank: HeadBank, step_seed: int | None = None) -> Tensor:
        """`(R,)` losses of the heads on their rows."""
        images, pairs = self.labels.shape[1], self.pair_weights.shape[1]
        if not pairs:
            return weighted_bce(bank(self.x, step_seed), self.labels, self.weights)
        if self.pairs.contrastive:
            out, features = bank.with_features(self.x, step_seed, images)
        else:
            out, features = bank(self.x, step_seed), None
        terms = pair_terms(*_halves(out[:, images:]), self.pairs)
        if features is not None:
            drawn = contrastive_terms(*_halves(features), self.pair_weights > 0, self.pairs.temperature)
            terms = terms + self.pairs.contrastive * drawn
        if self.pairs.gradient:
            unsafe, safe = _halves(self.x[:, images:])
            cosines = bank.slope_cosines(self.x, unsafe - safe, step_seed, images)
            terms = terms + self.pairs.gradient * (1 - cosines.unflatten(1, (pairs, 2)).mean(2))
        losses = weighted_bce(out[:, :images], self.labels, self.weights)
        return losses + (terms * self.pair_weights).sum(1)


def _halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The unsafe and the safe halves `(R, P, ...)` of pairs `(R, 2P, ...)`."""
    return rows[:, 0::2], rows[:, 1::2]


class StepRange(NamedTuple):
    """Optimisation steps `step … stop - 1`: what Lightning sees as one batch, so that its own work is paid once."""

    step: int
    stop: int


class EmbeddingDataModule(L.LightningDataModule):
    """Feeds a bank of R heads from one matrix.

    There is no DataLoader over rows: a batch is an index `(R, B)`, and the rows are gathered on the device the matrix
    lives on.

    Args:
        embeddings: `(N, D)` float32, all rows any of the runs uses.
        labels: `(N,)` int, 1 is unsafe.
        plans: the R runs.
        batch_size: images a head sees in a step.
        steps: optimisation steps in all.
        steps_per_epoch: steps between two evaluations of the held-out loss.
        steps_per_batch: optimisation steps that Lightning sees as one.
        class_weight: see `LossSettings`.
        pairs: what is made of pairs: pair images are weighted up, and each step sees some whole pairs beside its
            images, an eighth as many.
        all_pairs: each step sees all of a run's pairs, as L-BFGS must.
    """

    def __init__(
        self,
        embeddings: Tensor,
        labels: Tensor,
        plans: Sequence[RunPlan],
        *,
        batch_size: int,
        steps: int,
        steps_per_epoch: int,
        steps_per_batch: int = 1,
        class_weight: str = "none",
        pairs: PairSettings | None = None,
        all_pairs: bool = False,
    ) -> None:
        super().__init__()
        self.embeddings, self.labels = embeddings, labels
        self.plans, self.steps, self.steps_per_epoch = plans, steps, steps_per_epoch
        self.steps_per_batch = steps_per_batch
        self.stream = IndexStream(plans, batch_size)
        self._rows: Tensor | None = None
        self.pairs = pairs or PairSettings()
        self.class_weights = torch.stack([class_weights(labels[plan.train], class_weight) for plan in plans])  # (R, 2)
        self.is_pair = torch.zeros(len(embeddings), dtype=torch.bool)
        for plan in plans:
            self.is_pair[torch.from_numpy(np.concatenate([plan.train[:0], *plan.parts[1:]]))] = True
        self.lift, self.share = self._pair_masses()
        self._pair_stream, self._pair_rows = self._whole_pairs(batch_size if all_pairs else pairs_a_step(batch_size))
        self._same: BankBatch | None = None  # where every step sees the same rows

    def setup(self, stage: str) -> None:
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            self.embeddings, self.labels = self.embeddings.to(device), self.labels.to(device)
            self.class_weights = self.class_weights.to(device)
            self.is_pair, self.lift = self.is_pair.to(device), self.lift.to(device)
            self.share, self._pair_rows = self.share.to(device), self._pair_rows.to(device)
            self._same = None

    def teardown(self, stage: str) -> None:
        self._rows = self._same = None

    @property
    def lightning_steps(self) -> int:
        """How many batches Lightning sees in all."""
        whole, rest = divmod(self.steps, self.steps_per_epoch)
        return whole * -(-self.steps_per_epoch // self.steps_per_batch) + -(-rest // self.steps_per_batch)

    def train_dataloader(self) -> Any:
        return _EpochBatches(self)

    def val_dataloader(self) -> Any:
        if all(plan.held_out is None for plan in self.plans):
            return []
        return _HeldOutBatch(self.plans)

    def batch(self, step: int) -> BankBatch:
        """The rows of optimisation step `step` (from 0); the same tensors where all steps see the same rows."""
        if self._same is None:
            batch = self._bank_batch(self.stream.batch(step))
            if not self.stream.constant or self._pair_stream is not None:
                return batch
            self._same, self._rows = batch, None  # its rows are its own now
        return self._same._replace(step=step)

    def on_after_batch_transfer(self, batch: IndexBatch | StepRange, dataloader_idx: int) -> BankBatch | StepRange:
        return self._bank_batch(batch, steps=False) if isinstance(batch, IndexBatch) else batch

    def _bank_batch(self, batch: IndexBatch, *, steps: bool = True) -> BankBatch:
        """The rows of a batch; only those that steps are taken on hold whole pairs."""
        index = batch.index.to(self.labels.device)
        labels = self.labels[index]
        weights = batch.weight.to(self.labels.device) * self.class_weights.gather(1, labels.long())
        weights = torch.where(self.is_pair[index], weights * self.lift[:, None], weights)
        pair_weights = weights.new_zeros(len(index), 0)
        if self._pair_stream is not None and steps:
            chosen = self._pair_stream.batch(batch.step)
            halves = self._pair_rows.gather(1, chosen.index.to(index.device)[:, :, None].expand(-1, -1, 2))  # (R, P, 2)
            index = torch.cat([index, halves.flatten(1)], dim=1)
            pair_weights = chosen.weight.to(index.device)
            pair_weights = pair_weights / pair_weights.sum(1, keepdim=True).clamp_min(1) * self.share[:, None]
        return BankBatch(batch.step, self._gather(index), labels, weights, pair_weights, self.pairs)

    def _pair_masses(self) -> tuple[Tensor, Tensor]:
        """`(R,)` g, how much pair images are weighted up, and `(R,)` g·k / A, what the mean over k pairs counts.

        The same as in `PrefixLoss`.
        """
        lifts, shares = [], []
        for plan, of_class in zip(self.plans, self.class_weights.double(), strict=True):
            mass = of_class[self.labels[torch.from_numpy(plan.train)].long().cpu()]
            split = len(mass) if plan.split is None else plan.split
            real, pair = float(mass[:split].sum()), float(mass[split:].sum())
            lift = max(1.0, self.pairs.mass / (1 - self.pairs.mass) * real / pair) if pair else 1.0
            lifts.append(lift)
            shares.append(lift * (0 if plan.pairs is None else len(plan.pairs)) / (real + lift * pair))
        return torch.tensor(lifts, dtype=torch.float32), torch.tensor(shares, dtype=torch.float32)

    def _whole_pairs(self, a_step: int) -> tuple[IndexStream | None, Tensor]:
        """The order in which each head sees its pairs, and their rows `(R, K, 2)`; None where nothing is made of it."""
        pairs = [np.empty((0, 2), np.int64) if plan.pairs is None else plan.pairs for plan in self.plans]
        longest = max(map(len, pairs))
        if not longest or not self.pairs.needs_halves:
            return None, torch.empty(0)
        rows = np.zeros((len(pairs), longest, 2), dtype=np.int64)
        for r, own in enumerate(pairs):
            rows[r, : len(own)] = own
        order = [RunPlan(np.arange(len(own)), plan.seed) for own, plan in zip(pairs, self.plans, strict=True)]
        return IndexStream(order, a_step), torch.from_numpy(rows)

    def _gather(self, index: Tensor) -> Tensor:
        """Rows `(R, B, D)` in a buffer that the next batch of the same shape overwrites.

        Allocating it anew each step cost ten times the copy itself (page faults). By then the last batch's
        backward pass, the only other reader, is over.
        """
        heads, width = index.shape
        rows = heads * width
        if self._rows is None or len(self._rows) != rows or self._rows.device != index.device:
            self._rows = self.embeddings.new_empty(rows, self.embeddings.shape[1])
        torch.index_select(self.embeddings, 0, index.reshape(-1), out=self._rows)
        return self._rows.view(heads, width, -1)


class _EpochBatches:
    """The steps of an epoch, from those taken on; a resumed trainer thus continues where it stopped."""

    def __init__(self, data: EmbeddingDataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        return -(-min(self.data.steps_per_epoch, self.data.steps) // self.data.steps_per_batch)

    def __iter__(self) -> Iterator[StepRange]:
        trainer, stride = self.data.trainer, self.data.steps_per_batch
        start = 0 if trainer is None else trainer.optimizers[0].taken  # type: ignore[attr-defined]
        stop = min(start + self.data.steps_per_epoch, self.data.steps)
        return (StepRange(step, min(step + stride, stop)) for step in range(start, stop, stride))


class _HeldOutBatch:
    """Every head's held-out rows in one batch, padded with weight zero to the longest."""

    def __init__(self, plans: Sequence[RunPlan]) -> None:
        held_out = [plan.held_out if plan.held_out is not None else np.empty(0, np.int64) for plan in plans]
        index = np.zeros((len(held_out), max(map(len, held_out))), dtype=np.int64)
        weight = np.zeros(index.shape, dtype=np.float32)
        for r, rows in enumerate(held_out):
            index[r, : len(rows)] = rows
            weight[r, : len(rows)] = 1
        self.batch = IndexBatch(0, torch.from_numpy(index), torch.from_numpy(weight))

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[IndexBatch]:
        yield self.batch
