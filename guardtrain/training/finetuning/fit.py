"""Tune an encoder: adapters put in, trained by Lightning, merged; what comes out is an encoder like any other."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor

from guardtrain.errors import DataError
from guardtrain.heads import LinearBank, LinearHead
from guardtrain.training.batches import RunPlan
from guardtrain.training.checkpoints import WholeCheckpoints
from guardtrain.training.finetuning.adapters import Adapters, require_merged
from guardtrain.training.finetuning.images import augmentation
from guardtrain.training.finetuning.module import LoraModule
from guardtrain.training.finetuning.settings import LoraSettings
from guardtrain.training.fit import fit_bank
from guardtrain.training.progress import BankProgress, quiet_lightning
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder

log = logging.getLogger(__name__)

_COMPARED = 16  # images on which the merged encoder is compared with the adapted one


@dataclass(frozen=True)
class Tuned:
    """The result of tuning.

    Args:
        layers: names of the adapted layers.
        parameters: numbers that were trained, and the encoder's in all.
        step: the step that was kept.
        held_out: losses of the held-out fold before training and at that step; None where nothing was held out.
        seconds: it took.
    """

    layers: tuple[str, ...]
    parameters: tuple[int, int]
    step: int
    held_out: tuple[float, float] | None
    seconds: float


def probe_recipe(loss: LossSettings, selection: SelectionSettings, trainer: TrainerSettings) -> TrainingRecipe:
    """The linear probe on the frozen encoder: where the head of the tuning starts, and what it is compared with."""
    pairs = replace(loss.pairs, gradient=0.0, contrastive=0.0)
    return TrainingRecipe(LinearHead(), replace(loss, pairs=pairs), OptimizerSettings(), selection, trainer)


def tune(
    encoder: Encoder,
    *,
    pixels: np.ndarray,
    embeddings: Tensor,
    labels: Tensor,
    plan: RunPlan,
    loss: LossSettings,
    settings: LoraSettings,
    trainer: TrainerSettings,
    folder: Path,
    loggers: Sequence[Logger] = (),
) -> Tuned:
    """Train adapters in the image tower of `encoder` and merge them: its model is then the tuned one.

    Killed, and called again with the same arguments, it goes on at the last evaluation.

    Args:
        encoder: loaded; its model is changed in place.
        pixels: `(N, H, W, 3)` uint8, the run's images at the model's size.
        embeddings: `(N, D)` float32, the same images under the frozen encoder.
        labels: `(N,)` int64.
        plan: rows of these; its `folds` say what is held out.
        loss: as for a head.
        settings: of the adapters and their training.
        trainer: accelerator, threads and progress.
        folder: of checkpoints; removed at the end.
        loggers: Lightning loggers.

    Raises:
        ConfigError: see `Adapters`.
        DataError: training came to numbers that are not finite.
        EncoderError: the merged encoder is not the adapted one.
    """
    started = time.perf_counter()
    inside = replace(plan, folds=None) if plan.folds is None else plan.inside(plan.folds != 0, held_out=True)
    model: Any = encoder.model
    tower = model.visual if encoder.spec.family == "open_clip" else model
    features: Callable[[Tensor], Tensor] = model.encode_image if encoder.spec.family == "open_clip" else model
    height, width = encoder.spec.image_size or (0, 0)
    probe = torch.zeros(1, 3, height, width, device=encoder.device)
    total = sum(p.numel() for p in tower.parameters())
    adapters = Adapters(tower, features, probe, settings, seed=plan.seed)
    module = LoraModule(
        model,
        features,
        encoder.spec,
        _starting_head(embeddings, labels, inside, loss, trainer),
        pixels=pixels,
        labels=labels,
        plan=inside,
        loss=loss,
        settings=settings,
        augment=augmentation(settings.augment, height, width),
    )
    count = sum(p.numel() for p in adapters.parameters.values())
    log.info(
        "adapters of rank %d on %d layers: %s numbers beside the %s that stay frozen; %d images train%s",
        settings.rank,
        len(adapters.names),
        f"{count:,}",
        f"{total:,}",
        len(inside.train),
        f", {len(inside.held_out)} are held out" if inside.held_out is not None else "",
    )
    _train(module, settings, trainer, folder, loggers)
    curve = module.held_out_curve
    module.take_best()
    module.to(encoder.device).eval()  # without dropout
    if not all(bool(p.isfinite().all()) for p in module.trained.values()):
        raise DataError("The adapters are not finite. Lower lora.lr, or raise lora.warmup.")
    rows = torch.arange(min(_COMPARED, len(pixels)))
    with torch.inference_mode():
        before = module.embeddings(rows)
    adapters.merge()
    with torch.inference_mode():
        require_merged(before, module.embeddings(rows))
    model.requires_grad_(False)
    kept = min(module.best * settings.evaluate_every, settings.steps) if curve else settings.steps
    held_out = (curve[0], min(curve)) if curve else None
    shutil.rmtree(folder, ignore_errors=True)
    return Tuned(tuple(adapters.names), (count, total), kept, held_out, time.perf_counter() - started)


def _starting_head(
    embeddings: Tensor, labels: Tensor, plan: RunPlan, loss: LossSettings, trainer: TrainerSettings
) -> LinearBank:
    """The linear probe of the images that are trained on."""
    recipe = probe_recipe(loss, SelectionSettings(method="fixed"), trainer)
    bank = fit_bank(recipe, embeddings, labels, [replace(plan, held_out=None)]).bank
    assert isinstance(bank, LinearBank)
    return bank


def _train(
    module: LoraModule,
    settings: LoraSettings,
    trainer_settings: TrainerSettings,
    folder: Path,
    loggers: Sequence[Logger],
) -> None:
    last = folder / "last.ckpt"
    if last.exists():
        log.info("continuing from %s", last)
        module.on_load_checkpoint(torch.load(last, weights_only=True, map_location="cpu"))
        if module.exhausted:
            return  # it was stopped after its last evaluation
    held_out = module.plan.held_out is not None
    quiet_lightning()
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # the frozen ones: that is meant
    callbacks: list[L.Callback] = [BankProgress("tuning the encoder")] if trainer_settings.progress else []
    callbacks.append(
        ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    )
    trainer = L.Trainer(
        accelerator=trainer_settings.accelerator,
        devices=1,
        plugins=WholeCheckpoints(),
        precision=settings.precision,  # type: ignore[arg-type]
        max_steps=settings.steps,
        logger=list(loggers) or False,
        log_every_n_steps=1,
        callbacks=callbacks,
        enable_progress_bar=trainer_settings.progress,
        enable_model_summary=False,
        num_sanity_val_steps=-1 if held_out else 0,  # the held-out loss of the frozen encoder
        limit_val_batches=1.0 if held_out else 0,
        reload_dataloaders_every_n_epochs=1,
    )
    try:
        trainer.fit(module, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    except SystemExit:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit of its own
            raise KeyboardInterrupt from None
        raise
