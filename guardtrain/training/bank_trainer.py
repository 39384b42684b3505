"""Lightning's Trainer as every bank uses it: progress, checkpoints, where it goes on, and Ctrl-C."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor

from guardtrain.training.checkpoints import WholeCheckpoints
from guardtrain.training.progress import BankProgress, quiet_lightning
from guardtrain.training.recipe import TrainingRecipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Settings and data that every step of a fit needs."""

    recipe: TrainingRecipe
    embeddings: Tensor
    labels: Tensor
    memory_gb: float
    label: str
    folder: Path | None = None
    loggers: Sequence[Logger] = ()


def bank_trainer(
    work: Work,
    title: str,
    *,
    checkpoints: bool,
    max_steps: int = -1,
    max_epochs: int = -1,
    limit_val_batches: float = 0,
) -> L.Trainer:
    """Lightning's Trainer as every bank uses it."""
    settings = work.recipe.trainer
    callbacks: list[L.Callback] = [BankProgress(title)] if settings.progress else []
    if checkpoints:
        # one file, replaced at the end of each epoch
        callbacks.append(
            ModelCheckpoint(work.folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        )
    quiet_lightning()
    return L.Trainer(
        accelerator="cpu" if on_cpu(work.recipe) else settings.accelerator,
        devices=1,
        plugins=WholeCheckpoints(),
        max_steps=max_steps,
        max_epochs=max_epochs,
        logger=list(work.loggers) or False,
        log_every_n_steps=1,
        callbacks=callbacks,
        enable_checkpointing=checkpoints,
        enable_progress_bar=settings.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=limit_val_batches,
    )


def on_cpu(recipe: TrainingRecipe) -> bool:
    """Whether the heads are trained on the CPU; Apple's GPU has no float64, which whole batches take."""
    settled = recipe.trainer.accelerator
    if settled != "auto":
        return settled == "cpu"
    return not torch.cuda.is_available() and (recipe.full_batch or not torch.backends.mps.is_available())


def last_checkpoint(folder: Path | None) -> str | None:
    """The checkpoint to continue from, where there is one."""
    last = None if folder is None else folder / "last.ckpt"
    if last is None or not last.exists():
        return None
    log.info("continuing from %s", last)
    return str(last)


def run(trainer: L.Trainer, module: L.LightningModule, *, ckpt_path: str | None, **data: object) -> None:
    """Let Lightning train; Ctrl-C is an interruption here, too."""
    try:
        trainer.fit(module, ckpt_path=ckpt_path, weights_only=True, **data)
    except SystemExit:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit of its own
            raise KeyboardInterrupt from None
        raise


def tell_unfinished(unfinished: int, heads: int, evaluations: int) -> None:
    """Warn of heads that are not at their optimum, with what to do."""
    if unfinished:
        log.warning(
            "%d of %d heads are not at their optimum after %d evaluations; raise optimizer.iterations or loss.l2",
            unfinished,
            heads,
            evaluations,
        )


def bank_title(label: str, number: int, banks: Sequence[Tensor]) -> str:
    """Return what the progress bar says of one bank of several."""
    return label if len(banks) == 1 else f"{label} (bank {number + 1} of {len(banks)})"
