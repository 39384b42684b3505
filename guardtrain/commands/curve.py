"""`guardtrain curve`: images in, data-efficiency curve out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from guardtrain.api.fitting import grid_check
from guardtrain.api.recipe import build_recipe, each_head, recipe_settings
from guardtrain.commands import elapsed
from guardtrain.commands.data import load_pools
from guardtrain.commands.figure import draw, written
from guardtrain.commands.tracking import job_folder, stores_of, tracked
from guardtrain.config import CurveConfig
from guardtrain.config_checks import typed
from guardtrain.curves.grid import check_counts
from guardtrain.tracking.registry import require_tracker

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.tracking.tracker import Outcome
    from guardtrain.training.pools import Pools

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Run the curve that `config` (see `CurveConfig`) describes; finished runs are not run again."""
    settings = typed(config, CurveConfig)
    require_tracker(settings.logger)
    check_counts(settings.grid)
    trainings = [(own, build_recipe(own)) for own in each_head(settings)]
    folder = Path(settings.out)
    figures = job_folder(folder)  # in a sweep the jobs share results, and each has a folder of its own for its figure
    pools = load_pools(settings, log.info, grid_check(settings.grid, _overrides(), log.info))

    from guardtrain.api.curves import train_curve
    from guardtrain.curves.folder import RESULTS_FILE, keep_keys
    from guardtrain.curves.results import run_key
    from guardtrain.training.pools import describe

    for line in describe(pools):
        log.info("  %s", line)
    used = [recipe_settings(own, recipe) for own, recipe in trainings]
    # one run at a tracker for the whole curve, however often it is started and however its grid grows
    with tracked(settings, "curve", run_key({"data": pools.digest, "heads": used}), losses=False) as tracker:
        curve = train_curve(pools, trainings, folder, _overrides(), loggers=tracker.loggers, say=log.info)
        if figures != folder:  # in the table that a sweep's jobs share, nothing else tells whose settings a run has
            keep_keys(figures, curve.keys)
        log.info("")
        files = draw(curve.frame, settings.plot, folder, figures)
        tracker.log(lambda: _outcome(settings, pools, folder, curve.frame, files))
    log.info("results   %s", folder / RESULTS_FILE)
    for line in written(files):
        log.info("%s", line)
    log.info("%d runs, %.0f s in all", len(curve.keys), elapsed.seconds())


def _overrides() -> list[str]:
    """The command line's settings; none where the command is called as a function."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _outcome(settings: CurveConfig, pools: Pools, folder: Path, frame: pd.DataFrame, files: list[Path]) -> Outcome:
    """Return what a tracker is told of a curve: its tables, figures, last points and lineage."""
    from guardtrain.tracking.artefacts import results_artefact
    from guardtrain.tracking.tables import curve_tables, last_points
    from guardtrain.tracking.tracker import Outcome

    pictures = [file for file in files if file.suffix == ".png"]
    if not pictures:
        log.info("the figures are not tracked: png is not among plot.formats (or no figure is)")
    summary = {"runs": int(frame["run"].nunique()), **last_points(frame)}
    stores, made = stores_of(settings, pools), [results_artefact(folder, pools)]
    return Outcome(stores, made, curve_tables(frame), pictures, summary)
