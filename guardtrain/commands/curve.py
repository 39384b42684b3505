"""`guardtrain curve`: images in, data-efficiency curve out."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from guardtrain.commands.data import load_pools
from guardtrain.commands.figure import draw, written
from guardtrain.commands.loggers import csv_loggers
from guardtrain.commands.recipe import build_recipe, recipe_settings
from guardtrain.config import CurveConfig, typed
from guardtrain.curves.grid import check_counts

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Run the curve that `config` (see `CurveConfig`) describes; finished runs are not run again."""
    settings = typed(config, CurveConfig)
    started = time.perf_counter()
    check_counts(settings.grid)
    recipe = build_recipe(settings)
    folder = Path(settings.out)
    # in a sweep the jobs share results, and each has a folder of its own for its figure
    job = HydraConfig.get()
    figures = Path(job.runtime.output_dir) if job.mode == RunMode.MULTIRUN else folder
    pools = load_pools(settings, log.info)

    from guardtrain.curves.engine import run_curve
    from guardtrain.curves.folder import RESULTS_FILE, keep_keys
    from guardtrain.curves.results import ResultsTable
    from guardtrain.training.pools import describe

    for line in describe(pools):
        log.info("  %s", line)
    keys = run_curve(
        pools,
        recipe,
        recipe_settings(settings, recipe),
        settings.grid,
        folder,
        memory_gb=settings.memory_gb,
        loggers=csv_loggers(settings.logger, folder),
        say=log.info,
    )
    keep_keys(folder, keys)
    frame = ResultsTable(folder / RESULTS_FILE).read()
    frame = frame[frame["run"].isin(keys)]
    log.info("")
    files = draw(frame, settings.plot, folder, figures)
    _track(settings, folder, files)
    log.info("results   %s", folder / RESULTS_FILE)
    for line in written(files):
        log.info("%s", line)
    log.info("%d runs, %.0f s in all", len(keys), time.perf_counter() - started)


def _track(settings: CurveConfig, folder: Path, files: list[Path]) -> None:
    """One W&B run for the whole curve: its config and figure."""
    if settings.logger.kind != "wandb":
        return
    import wandb

    from guardtrain.config import plain

    config: dict[str, Any] = plain(settings)
    with wandb.init(
        project=settings.logger.project,
        group=settings.logger.group,
        mode=settings.logger.mode,  # type: ignore[arg-type]
        dir=str(folder),
        job_type="curve",
        config=config,
    ) as tracked:
        if (image := next((file for file in files if file.suffix == ".png"), None)) is not None:
            tracked.log({"curve": wandb.Image(str(image))})
