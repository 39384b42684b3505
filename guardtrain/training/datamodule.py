"""The datamodule: one embedding matrix in memory, batches that are indices into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor

from guardtrain.heads import HeadBank, LinearBank
from guardtrain.training.batches import IndexBatch, IndexStream, RunPlan
from guardtrain.training.losses import class_weights, weighted_bce
from guardtrain.training.prefixes import PrefixLoss


class BankBatch(NamedTuple):
    """Rows gathered for each head: `x` `(R, B, D)` floating, `labels` and `weights` `(R, B)`; `step` from 0."""

    step: int
    x: Tensor
    labels: Tensor
    weights: Tensor

    def losses(self, bank: HeadBank, step_seed: int | None = None) -> Tensor:
        """`(R,)` losses of the heads on their rows."""
        return weighted_bce(bank(self.x, step_seed), self.labels, self.weights)


class WholeBatch(NamedTuple):
    """All images of every head, as an objective that needs no gathered rows."""

    step: int
    objective: PrefixLoss

    def losses(self, bank: LinearBank, step_seed: int | None = None) -> Tensor:
        """`(R,)` losses of the heads on all their images."""
        return self.objective(*bank.on_raw_input())


class EmbeddingDataModule(L.LightningDataModule):
    """Feeds a bank of R heads from one matrix.

    There is no DataLoader over rows: a batch is an index `(R, B)`, and `on_after_batch_transfer` gathers the rows
    on the device the matrix lives on.

    Args:
        embeddings: `(N, D)` float32, all rows any of the runs uses.
        labels: `(N,)` int, 1 is unsafe.
        plans: the R runs.
        batch_size: images a head sees in a step.
        steps: optimisation steps in all.
        steps_per_epoch: steps between two evaluations of the held-out loss.
        class_weight: see `LossSettings`.
        whole: every step sees all images of every run, through `PrefixLoss` (linear heads); `batch_size` is not used.
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
        class_weight: str = "none",
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.embeddings, self.labels = embeddings, labels
        self.plans, self.steps, self.steps_per_epoch = plans, steps, steps_per_epoch
        self.whole = whole
        self.stream = IndexStream(plans, batch_size)
        self.objective: PrefixLoss | None = None
        self._rows: Tensor | None = None
        self.class_weights = torch.stack([class_weights(labels[plan.train], class_weight) for plan in plans])  # (R, 2)

    def setup(self, stage: str) -> None:
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            self.embeddings, self.labels = self.embeddings.to(device), self.labels.to(device)
            self.class_weights = self.class_weights.to(device)
        if self.whole:
            self.objective = PrefixLoss(self.embeddings, self.labels, self.plans, self.class_weights)

    def train_dataloader(self) -> Any:
        return _EpochBatches(self)

    def val_dataloader(self) -> Any:
        if all(plan.held_out is None for plan in self.plans):
            return []
        return _HeldOutBatch(self.plans)

    def on_after_batch_transfer(self, batch: IndexBatch | WholeBatch, dataloader_idx: int) -> BankBatch | WholeBatch:
        if isinstance(batch, WholeBatch):
            return batch
        labels = self.labels[batch.index]
        weights = batch.weight * self.class_weights.gather(1, labels.long())
        return BankBatch(batch.step, self._gather(batch.index), labels, weights)

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
    """The index batches of an epoch, from the trainer's step on; a resumed trainer thus continues where it stopped."""

    def __init__(self, data: EmbeddingDataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        return min(self.data.steps_per_epoch, self.data.steps)

    def __iter__(self) -> Iterator[IndexBatch | WholeBatch]:
        trainer, objective = self.data.trainer, self.data.objective
        start = 0 if trainer is None else trainer.global_step
        stop = min(start + self.data.steps_per_epoch, self.data.steps)
        if objective is not None:
            return (WholeBatch(step, objective) for step in range(start, stop))
        return self.data.stream.iterate(start, stop)


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
