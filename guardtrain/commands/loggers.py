"""The Lightning loggers of a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardtrain.config import LoggerSettings

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


def csv_loggers(settings: LoggerSettings, folder: Path) -> list[Logger]:
    """Training losses as CSV under `folder/logs`, unless the config wants no logs."""
    if settings.kind == "none":
        return []
    from lightning.pytorch.loggers import CSVLogger

    return [CSVLogger(str(folder), name="logs")]


def training_loggers(settings: LoggerSettings, folder: Path, config: Any) -> list[Logger]:
    """CSV and, where the config asks for it, W&B with the whole `config`."""
    loggers = csv_loggers(settings, folder)
    if settings.kind == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        tracked = WandbLogger(
            project=settings.project, save_dir=str(folder), mode=settings.mode, group=settings.group, job_type="train"
        )
        tracked.log_hyperparams(config)
        loggers.append(tracked)
    return loggers
