"""One progress bar for the training of a bank, and quiet Lightning."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn


class BankProgress(ProgressBar):
    """Shows `label`, what is done of the module's `progress`, and the time left; nothing but in a terminal."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def disable(self) -> None:
        """Lightning calls this on all processes but the first."""
        self._progress = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        console = Console(stderr=True)
        if console.is_terminal:
            columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
            self._progress = Progress(*columns, console=console, transient=True)
            self._task = self._progress.add_task(self.label, total=1.0)
            self._progress.start()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=pl_module.progress)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def quiet_lightning() -> None:
    """Lightning's device report, tips and DataLoader advice say nothing about a bank on an embedding matrix."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")  # Lightning's own, of torch
    warnings.filterwarnings("ignore", message=r"`training_step` returned `None`")  # the steps are taken in it
    warnings.filterwarnings("ignore", message=r"The `srun` command is available")  # one process needs none
    warnings.filterwarnings(
        "ignore", module=r"lightning\.pytorch", message=r".*(num_workers|log_every_n_steps|exists and is not empty).*"
    )
