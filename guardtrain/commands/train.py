"""`guardtrain train`: one head on one mixture."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from guardtrain.api.fitting import require_mixture
from guardtrain.api.recipe import build_recipe, recipe_settings
from guardtrain.commands import elapsed
from guardtrain.commands.data import load_pools
from guardtrain.commands.tracking import stores_of, tracked
from guardtrain.config import TrainConfig
from guardtrain.config_checks import plain, typed
from guardtrain.curves.results import METRICS
from guardtrain.errors import DataError, GuardError
from guardtrain.imports import import_quickly
from guardtrain.mixtures import counts
from guardtrain.tracking.registry import require_tracker

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch.loggers import Logger

    from guardtrain.curves.engine import Run
    from guardtrain.curves.results import ResultRow, ResultsTable
    from guardtrain.training.pools import Pools
    from guardtrain.training.recipe import TrainingRecipe

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Train what `config` (see `TrainConfig`) describes; a training that was cut off continues."""
    train(typed(config, TrainConfig))
    log.info("%.1f s in all", elapsed.seconds())


def train(settings: TrainConfig) -> None:
    """Train what is described, make its guard, and tell a tracker of both; without a word of how long it took."""
    mix = settings.mixture
    require_tracker(settings.logger)
    counts(mix.budget, mix.ratio, mix.arm, mix.rounding, mix.control)  # refused before anything is embedded
    _import_packages(settings)
    recipe = build_recipe(settings)
    folder = Path(settings.out)
    pools = load_pools(settings, log.info, partial(require_mixture, mix))

    from guardtrain.commands.export import GUARD_FOLDER
    from guardtrain.curves.engine import plan_single
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.results import ResultsTable
    from guardtrain.guards.directory import guarded_run
    from guardtrain.heads.artifact import kept_run
    from guardtrain.tracking.artefacts import guard_artefact, head_artefact
    from guardtrain.tracking.tables import last_points
    from guardtrain.tracking.tracker import Outcome

    table = ResultsTable(folder / RESULTS_FILE)
    planned = plan_single(pools, plain(mix), recipe_settings(settings, recipe))
    mixture = planned.mixture
    log.info("mixture: %d real + %d pair images, seed %d", mixture.n_real, mixture.n_pair_images, mixture.seed)
    there = planned.key in table.done(pools.tests) and kept_run(folder) == planned.key
    guard = folder / GUARD_FOLDER
    guarded = not settings.guard or (there and guarded_run(guard) == planned.key)
    with tracked(settings, "train", planned.key, done=there and guarded) as tracker:
        if there:
            log.info("this run is there already")
        else:
            _train(settings, pools, recipe, planned, table, tracker.loggers)
        frame = _show(folder, table, planned)
        made = settings.guard and _make_guard(settings, pools, planned, recipe)
        tracker.log(
            lambda: Outcome(
                stores_of(settings, pools),
                [head_artefact(folder, pools), *([guard_artefact(guard, pools)] if made else [])],
                summary=dict(last_points(frame[frame["run"] == planned.key])),
            )
        )


def _import_packages(settings: TrainConfig) -> None:
    """Import what training needs, and what its guard needs where one is to be made: most of a small run's time."""
    from guardtrain.commands.export import GUARD_FOLDER

    guarded = settings.guard and not (Path(settings.out) / GUARD_FOLDER).exists()
    onnx = [name for name in ("onnx", "onnxruntime") if find_spec(name) is not None]
    import_quickly("lightning", "pandas", *(["sklearn.linear_model", *onnx] if guarded else []))


def _train(
    settings: TrainConfig,
    pools: Pools,
    recipe: TrainingRecipe,
    planned: Run,
    table: ResultsTable,
    loggers: Sequence[Logger],
) -> None:
    """Train the run; its head, and its rows of the table."""
    from guardtrain.api.training import used
    from guardtrain.curves.engine import train_run
    from guardtrain.heads.artifact import save_head

    folder = Path(settings.out)
    checkpoints = folder / "checkpoints" / planned.key
    fitted, rows = train_run(
        pools, recipe, planned, memory_gb=settings.memory_gb, checkpoints=checkpoints, loggers=loggers
    )
    chosen = used(fitted, (settings, recipe))
    log.info("trained in %.1f s: %s", fitted.seconds, ", ".join(f"{k} {v:g}" for k, v in chosen.items()))
    # the head first: a row in the table promises that it is there
    about = {"run": planned.key, "data": pools.name, "mixture": plain(settings.mixture), "chosen": chosen}
    save_head(folder, fitted.bank, 0, pools.spec, plain(settings.head), **about)
    table.append(rows)
    _log_tests(loggers, rows)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _show(folder: Path, table: ResultsTable, planned: Run) -> pd.DataFrame:
    """Print how good the run is, and where it lies; the whole table."""
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.summary import run_text, slices_text

    frame = table.read()
    log.info("")
    mine = frame[frame["run"] == planned.key]
    log.info(run_text(mine))
    if slices := slices_text(mine):
        log.info("\n%s\n", slices)
    log.info("head      %s", folder / "head.safetensors")
    log.info("results   %s", folder / RESULTS_FILE)
    return frame


def _make_guard(settings: TrainConfig, pools: Pools, planned: Run, recipe: TrainingRecipe) -> bool:
    """End with a guard of the head in `out/guard`, or say in a line why there is none: the head is there either way.

    Returns:
        Whether there is one.
    """
    from guardtrain.api.guards import write_guard
    from guardtrain.commands.export import GUARD_FOLDER, kept_head, summary_of
    from guardtrain.guards.directory import guarded_run
    from guardtrain.guards.settings import GuardSettings

    folder = Path(settings.out)
    out = folder / GUARD_FOLDER
    if guarded_run(out) == planned.key:
        log.info("guard     %s (there already)", out)
        return True
    wanted = GuardSettings().with_packages(log.info)
    head = kept_head(folder, settings, recipe, pools, planned)
    assert head is not None, "it was trained just now, or found there"
    log.info("making a guard of it")
    try:
        exported = write_guard(head, out, wanted)
    except (DataError, GuardError) as error:
        log.info("no guard is made: %s", error)
        return False
    log.info("guard     %s", out)
    log.info("\n%s\n", summary_of(exported))
    return True


def _log_tests(loggers: Sequence[Logger], rows: Sequence[ResultRow]) -> None:
    """Every test set's metrics over all its images, to the loggers."""
    for logger in loggers:
        for row in rows:
            if row.slice_kind == "all":
                values = {f"{row.test}/{name}": getattr(row, name) for name in METRICS}
                logger.log_metrics({name: value for name, value in values.items() if value == value})
        logger.save()
        logger.finalize("success")
