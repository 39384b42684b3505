"""GuardModule: the LightningModule that trains a bank of heads; a single run is a bank of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from guardtrain.heads import HeadBank
from guardtrain.training.datamodule import BankBatch, WholeBatch
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
    ) -> None:
        super().__init__()
        self.bank, self.make_optimizer = bank, optimizer
        self.register_buffer("penalty", penalty, persistent=False)
        self.patience, self.seed = patience, seed
        self.head_losses = torch.empty(0)
        self.held_out_curve: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """`(R, N)` probabilities for embeddings `(N, D)`."""
        return torch.sigmoid(self.bank(x))

    def training_step(self, batch: BankBatch | WholeBatch, batch_idx: int) -> Tensor:
        step_seed = (self.seed * 1_000_003 + batch.step) % 2**31
        losses = batch.losses(self.bank, step_seed)  # type: ignore[arg-type]
        if self.trainer.loggers:
            self.log("train_loss", losses.detach().mean())
        losses = losses + self.penalty * squared_norms(self.bank.parameters())
        self.head_losses = losses.detach()
        return losses.sum()

    def on_train_batch_end(self, *_: Any) -> None:
        optimizer = self._optimizer()
        if isinstance(optimizer, BankLBFGS) and optimizer.done is not None and bool(optimizer.done.all()):
            self.trainer.should_stop = True

    def focus(self, active: Tensor) -> None:
        """Evaluate only the heads in the mask `active` `(R,)`, where the objective can leave the others out."""
        objective = getattr(self.trainer.datamodule, "objective", None)  # type: ignore[attr-defined]
        if objective is not None:
            objective.focus(active)

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

    def unfinished_heads(self) -> int:
        """How many heads L-BFGS left before their optimum; 0 with AdamW, which has no such end."""
        optimizer = self._optimizer()
        if not isinstance(optimizer, BankLBFGS) or optimizer.done is None:
            return 0
        return int((~optimizer.done).sum())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["held_out_curve"] = self.held_out_curve

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.held_out_curve = list(checkpoint["held_out_curve"])

    def _optimizer(self) -> BankAdamW | BankLBFGS:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, BankAdamW | BankLBFGS)
        return optimizer
