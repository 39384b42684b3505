"""`guardtrain train`: one head on one mixture."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from guardtrain.commands.data import load_pools
from guardtrain.commands.recipe import build_recipe, recipe_settings
from guardtrain.config import TrainConfig, plain, typed
from guardtrain.mixtures import counts

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Train what `config` (see `TrainConfig`) describes; a training that was cut off continues."""
    settings = typed(config, TrainConfig)
    started = time.perf_counter()
    mix = settings.mixture
    counts(mix.budget, mix.ratio, mix.arm, mix.rounding, mix.control)  # refused before anything is embedded
    recipe = build_recipe(settings)
    folder = Path(settings.out)
    pools = load_pools(settings, log.info)

    from guardtrain.curves.engine import RESULTS_FILE, plan_single, train_run
    from guardtrain.curves.results import ResultsTable
    from guardtrain.curves.summary import run_text
    from guardtrain.heads.artifact import save_head

    table = ResultsTable(folder / RESULTS_FILE)
    planned = plan_single(pools, plain(mix), recipe_settings(settings))
    mixture = planned.mixture
    log.info("mixture: %d real + %d pair images, seed %d", mixture.n_real, mixture.n_pair_images, mixture.seed)
    if planned.key in table.done(pools.tests):
        log.info("this run is there already")
    else:
        checkpoints = folder / "checkpoints" / planned.key
        fitted = train_run(
            pools,
            recipe,
            planned,
            table,
            memory_gb=settings.memory_gb,
            checkpoints=checkpoints,
            loggers=_loggers(settings, folder),
        )
        chosen = {"l2": float(fitted.l2[0])}
        if not recipe.full_batch:
            chosen |= {"lr": float(fitted.lr[0]), "steps": int(fitted.steps[0])}
        log.info("trained in %.1f s: %s", fitted.seconds, ", ".join(f"{k} {v:g}" for k, v in chosen.items()))
        save_head(
            folder,
            fitted.bank,
            0,
            pools.spec,
            plain(settings.head),
            run=planned.key,
            data=pools.name,
            mixture=plain(mix),
            chosen=chosen,
        )
    frame = table.read()
    log.info("")
    log.info(run_text(frame[frame["run"] == planned.key]))
    log.info("head      %s", folder / "head.safetensors")
    log.info("results   %s", folder / RESULTS_FILE)
    log.info("%.1f s in all", time.perf_counter() - started)


def _loggers(settings: TrainConfig, folder: Path) -> list[Logger]:
    """The Lightning loggers of the config."""
    if settings.logger.kind == "none":
        return []
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    loggers: list[Logger] = [CSVLogger(str(folder), name="logs")]
    if settings.logger.kind == "wandb":
        tracked = WandbLogger(
            project=settings.logger.project,
            save_dir=str(folder),
            mode=settings.logger.mode,
            group=settings.logger.group,
            job_type="train",
        )
        tracked.log_hyperparams(plain(settings))
        loggers.append(tracked)
    return loggers
