"""GuardModule: the LightningModule that trains a bank of heads; a single run is a bank of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from guardtrain.heads import HeadBank, MLPBank
from guardtrain.training.batches import RowNoise
from guardtrain.training.blocks import BlockwiseSteps
from guardtrain.training.datamodule import BankBatch, StepRange
from guardtrain.training.lbfgs import BankLBFGS
from guardtrain.training.losses import squared_norms
from guardtrain.training.optimizer import BankAdamW


class GuardModule(L.LightningModule):
    """Trains R heads at once; the summed loss keeps every head's gradient its own.

    Args:
        bank: the heads.
        penalty: `(R,)` factor of the squared norm of the weights in the loss, l2 / (2n).
        optimizer: makes the optimizer of this module: a `BankAdamW` or a `BankLBFGS`.
        patience: evaluations of the held-out loss without improvement after which a head stops (AdamW); None never
            stops.
        seed: seeds dropout.
        noise: what is added to the rows of a step; None adds nothing.
        in_blocks: whether `BlockwiseSteps` trains the bank, a few heads at a time.

    Attributes:
        head_losses: `(R,)` penalised training losses of the last evaluation.
        held_out_curve: one `(R,)` float32 CPU tensor of held-out log-losses for each evaluation.
    """

    penalty: Tensor

    def __init__(
        self,
        bank: HeadBank,
        *,
        penalty: Tensor,
        optimizer: Callable[[GuardModule], BankAdamW | BankLBFGS],
        patience: int | None = None,
        seed: int = 0,
        noise: RowNoise | None = None,
        in_blocks: bool = False,
    ) -> None:
        super().__init__()
        self.bank, self.make_optimizer = bank, optimizer
        self.register_buffer("penalty", penalty, persistent=False)
        self.patience, self.seed, self.noise, self.in_blocks = patience, seed, noise, in_blocks
        self.head_losses = torch.empty(0)
        self.held_out_curve: list[Tensor] = []
        self._blocks: BlockwiseSteps | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`(R, N)` probabilities for embeddings `(N, D)`."""
        return torch.sigmoid(self.bank(x))

    def on_train_start(self) -> None:
        """Let heads that are trained a few at a time be so."""
        if self.in_blocks:
            optimizer, data = self._optimizer(), self.trainer.datamodule  # type: ignore[attr-defined]
            assert isinstance(optimizer, BankAdamW) and isinstance(self.bank, MLPBank)
            self._blocks = BlockwiseSteps(self.bank, optimizer, data, self.noise)

    def training_step(self, batch: StepRange, batch_idx: int) -> Tensor | None:
        """The loss of the batch's last step; the steps before it are taken here, without Lightning in between.

        None where the last one is taken, too: Lightning's call of the optimizer then counts it and does nothing else.
        """
        optimizer, data = self._optimizer(), self.trainer.datamodule  # type: ignore[attr-defined]
        if self._blocks is not None:
            assert isinstance(optimizer, BankAdamW)
            self.head_losses = self._blocks.take(batch.step, batch.stop)
            optimizer.taken = batch.stop - 1
            return None
        for step in range(batch.step, batch.stop - 1):
            optimizer.zero_grad()
            self._loss(data.batch(step)).backward()
            optimizer.step()
        return self._loss(data.batch(batch.stop - 1))

    def _loss(self, batch: BankBatch) -> Tensor:
        """The summed losses of a batch."""
        if self.noise is not None:
            batch = batch._replace(x=self.noise.added(batch.x, batch.labels.shape[1], batch.step))
        losses = batch.losses(self.bank, batch.step)
        if isinstance(self._optimizer(), BankLBFGS):
            # it needs the whole objective; BankAdamW adds the penalty's gradient in its own pass over the weights
            losses = losses + self.penalty * squared_norms(self.bank.parameters())
        self.head_losses = losses.detach()
        return losses.sum()

    def on_train_batch_end(self, *_: Any) -> None:
        optimizer = self._optimizer()
        if self.trainer.loggers:
            self.log("train_loss", self.head_losses.mean())
            self.log("step", float(optimizer.taken))  # Lightning counts batches, of several steps each
        if isinstance(optimizer, BankLBFGS) and bool(optimizer.done.all()):
            self.trainer.should_stop = True

    @property
    def progress(self) -> float:
        """Share of the steps taken, in [0, 1]."""
        return self.trainer.global_step / self.trainer.max_steps

    def validation_step(self, batch: BankBatch, batch_idx: int) -> None:
        losses = batch.losses(self.bank)
        self.held_out_curve.append(losses.detach().float().cpu())
        if self.trainer.loggers:
            self.log("held_out_loss", losses.mean())

    def on_validation_epoch_end(self) -> None:
        """Stop the heads whose held-out loss has not improved for `patience` evaluations."""
        optimizer = self._optimizer()
        if self.patience is None or len(self.held_out_curve) <= self.patience or isinstance(optimizer, BankLBFGS):
            return
        curve = torch.stack(self.held_out_curve)  # (E, R)
        stale = len(curve) - 1 - curve.argmin(0) >= self.patience
        optimizer.steps = torch.where(stale, optimizer.steps.clamp_max(optimizer.taken), optimizer.steps)
        if bool(stale.all()):
            self.trainer.should_stop = True

    def configure_optimizers(self) -> BankAdamW | BankLBFGS:
        return self.make_optimizer(self)

    def on_fit_end(self) -> None:
        """Free what training alone needs: Lightning's objects refer to each other, and so outlive the fit."""
        optimizer = self._optimizer()
        if isinstance(optimizer, BankAdamW):
            optimizer.state.clear()
        for parameter in self.bank.parameters():
            parameter.grad = None
        self.bank.release()
        self._blocks = None

    def unfinished_heads(self) -> int:
        """How many heads L-BFGS left before their optimum; 0 with AdamW, which has no such end."""
        optimizer = self._optimizer()
        return int((~optimizer.done).sum()) if isinstance(optimizer, BankLBFGS) else 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["held_out_curve"] = self.held_out_curve

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.held_out_curve = list(checkpoint["held_out_curve"])

    def _optimizer(self) -> BankAdamW | BankLBFGS:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, BankAdamW | BankLBFGS)
        return optimizer
