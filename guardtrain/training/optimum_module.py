"""The optimum of linear heads, found inside Lightning's Trainer: devices, checkpoints, loggers and Ctrl-C are its."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from guardtrain.heads import LinearBank
from guardtrain.training.optimum import LinearOptimum

EVALUATIONS_A_STEP = 10  # what Lightning sees as one step, so that its own work does not show


class _SolverSteps(torch.optim.Optimizer):
    """A stand-in for the optimizer that Lightning takes: it counts its steps, and saves checkpoints by them."""

    def __init__(self, module: OptimumModule) -> None:
        super().__init__([torch.nn.Parameter(torch.zeros(1))], {})
        self.module = module

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Some evaluations of all heads."""
        self.module.solver.advance(EVALUATIONS_A_STEP)


class OptimumModule(L.LightningModule):
    """Trains R linear heads to their optimum, strength by strength (see `LinearOptimum`).

    Args:
        bank: gets the heads; None where only the held-out losses are wanted.
        make_solver: makes the solver on a device.

    Attributes:
        solver: there once training has begun.
    """

    solver: LinearOptimum

    def __init__(self, bank: LinearBank | None, make_solver: Callable[[torch.device], LinearOptimum]) -> None:
        super().__init__()
        self.bank, self.make_solver = bank, make_solver
        self.automatic_optimization = False
        self._kept: dict[str, Any] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`(R, N)` probabilities for embeddings `(N, D)`."""
        assert self.bank is not None
        return torch.sigmoid(self.bank(x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return _SolverSteps(self)

    def on_fit_start(self) -> None:
        self.solver = self.make_solver(self.trainer.strategy.root_device)
        if self._kept is not None:
            self.solver.load_state_dict(self._kept)

    def training_step(self, batch: int, batch_idx: int) -> None:
        self.optimizers().step()  # type: ignore[union-attr]
        if self.trainer.loggers:
            self.log("train_loss", self.solver.mean_loss)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.solver.finished:
            self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        if self.bank is not None:
            self.solver.write(self.bank)

    @property
    def progress(self) -> float:
        """About what share of the work is done, in [0, 1]."""
        return self.solver.progress

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["solver"] = self.solver.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._kept = checkpoint["solver"]
