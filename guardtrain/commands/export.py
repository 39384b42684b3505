"""`guardtrain export`: a finished run, or the best row of a curve → a guard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from guardtrain.api.recipe import build_recipe, each_head, recipe_settings
from guardtrain.commands import elapsed
from guardtrain.commands.data import load_pools
from guardtrain.commands.terminal import show
from guardtrain.commands.tracking import track_export
from guardtrain.config import CurveConfig, ExportConfig, TrainConfig
from guardtrain.config_checks import plain, typed
from guardtrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    from guardtrain.api.training import TrainedHead
    from guardtrain.curves.engine import Run
    from guardtrain.guards.export import Exported
    from guardtrain.training.pools import Pools
    from guardtrain.training.recipe import TrainingRecipe

log = logging.getLogger(__name__)

GUARD_FOLDER = "guard"
_CONFIG = Path(".hydra") / "config.yaml"


def run(config: DictConfig) -> None:
    """Export what `config` (see `ExportConfig`) describes."""
    from guardtrain.api.guards import write_guard

    settings = typed(config, ExportConfig)
    settings.rules()  # refused before anything is embedded
    settings = settings.with_packages(log.info)
    folder = Path(settings.run)
    made = _training_config(folder, settings)
    pools = load_pools(made, log.info)
    if isinstance(made, TrainConfig):
        trained = _of_training(folder, made, pools, settings)
    else:
        trained = _of_curve(folder, made, pools, settings)
    out = Path(settings.out) if settings.out else folder / GUARD_FOLDER
    exported = write_guard(trained, out, settings, say=log.info)
    show(summary_of(exported))
    track_export(folder, out, made, pools, trained.run)
    log.info("%.1f s in all", elapsed.seconds())


def summary_of(exported: Exported) -> str:
    """The printed account of a guard."""
    from guardtrain.guards.summary import summary_text

    return summary_text(exported.guard)


def _training_config(folder: Path, settings: ExportConfig) -> CurveConfig | TrainConfig:
    """The config of the run or curve in `folder`, as Hydra kept it; data_dir and cache_dir may be others by now."""
    from guardtrain.guards.directory import is_guard

    file = folder / _CONFIG
    if not file.is_file() and is_guard(folder):
        raise DataError(f"{folder} is a guard already; run is the folder of the training or curve that it was made of.")
    if not file.is_file():
        raise DataError(
            f"{folder} holds no {_CONFIG}: it is no folder of `guardtrain train` or `guardtrain curve`. Give the one "
            "that the command printed (out=)."
        )
    config = OmegaConf.load(file)
    assert isinstance(config, DictConfig)
    for name in ("data_dir", "cache_dir"):
        if (value := getattr(settings, name)) is not None:
            config[name] = value
    if "grid" in config:
        return typed(config, CurveConfig)
    if "mixture" not in config:
        raise DataError(f"{file} is the config of another command than train or curve; a guard is made of their runs.")
    return typed(config, TrainConfig)


def _of_training(folder: Path, made: TrainConfig, pools: Pools, settings: ExportConfig) -> TrainedHead:
    """The head that `guardtrain train` left in `folder`."""
    from guardtrain.curves.engine import plan_single

    if settings.pick.given:
        raise ConfigError(f"{folder} holds one run, there is nothing to pick; leave pick out.")
    recipe = build_recipe(made)
    planned = plan_single(pools, plain(made.mixture), recipe_settings(made, recipe))
    head = kept_head(folder, made, recipe, pools, planned)
    if head is None:
        raise DataError(
            f"The head in {folder} was not trained by the config there, or its data changed since: validation images "
            "could be among those it was trained on. Run the same `guardtrain train` again."
        )
    return head


def kept_head(
    folder: Path, made: TrainConfig, recipe: TrainingRecipe, pools: Pools, planned: Run
) -> TrainedHead | None:
    """The head that lies in a training's folder; None where it is another run's."""
    from guardtrain.api.training import TrainedHead
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.results import ResultsTable
    from guardtrain.heads.artifact import load_head, read_description

    description = read_description(folder)
    if description.get("run") != planned.key:
        return None
    results = ResultsTable(folder / RESULTS_FILE).read()
    bank = load_head(folder, recipe.head).bank
    mine = results[results["run"] == planned.key]
    return TrainedHead(pools, planned, bank, mine, (made, recipe), description.get("chosen", {}))


def _of_curve(folder: Path, made: CurveConfig, pools: Pools, settings: ExportConfig) -> TrainedHead:
    """The run of a curve that is best by a metric, trained again."""
    from guardtrain.api.curves import Curve
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.results import ResultsTable

    heads = [(own, build_recipe(own)) for own in each_head(made)]
    keys = frozenset(ResultsTable(folder / RESULTS_FILE).read()["run"])
    return Curve(folder, keys, pools, heads).picked(settings.pick, log.info)
