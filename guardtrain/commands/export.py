"""`guardtrain export`: a finished run, or the best row of a curve → a guard."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from guardtrain.commands import elapsed
from guardtrain.commands.data import load_pools
from guardtrain.commands.recipe import build_recipe, each_head, recipe_settings
from guardtrain.commands.terminal import show
from guardtrain.commands.tracking import track_export
from guardtrain.config import PRECOMPUTED, CurveConfig, ExportConfig, TrainConfig
from guardtrain.config_checks import plain, typed
from guardtrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.engine import Run
    from guardtrain.curves.results import ResultRow
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.guards.export import Exported
    from guardtrain.guards.parts import TrainedRun
    from guardtrain.guards.settings import GuardSettings
    from guardtrain.training.pools import Pools
    from guardtrain.training.recipe import TrainingRecipe

log = logging.getLogger(__name__)

GUARD_FOLDER = "guard"
_CONFIG = Path(".hydra") / "config.yaml"
_SAME = 5e-3  # a run trained again alone may differ so much in a metric from the same run in a bank


def run(config: DictConfig) -> None:
    """Export what `config` (see `ExportConfig`) describes."""
    settings = typed(config, ExportConfig)
    settings.rules()  # refused before anything is embedded
    settings = settings.with_packages(log.info)
    folder = Path(settings.run)
    made = _training_config(folder, settings)
    pools = load_pools(made, log.info)
    if isinstance(made, TrainConfig):
        planned, trained = _of_training(folder, made, pools, settings)
    else:
        planned, trained = _of_curve(folder, made, pools, settings)
    out = Path(settings.out) if settings.out else folder / GUARD_FOLDER
    exported = export(out, trained, pools, planned, settings, made, log.info)
    show(summary_of(exported))
    track_export(folder, out, made, pools, planned)
    log.info("%.1f s in all", elapsed.seconds())


def summary_of(exported: Exported) -> str:
    """The printed account of a guard."""
    from guardtrain.guards.summary import summary_text

    return summary_text(exported.guard)


def export(
    out: Path,
    trained: TrainedRun,
    pools: Pools,
    planned: Run,
    settings: GuardSettings,
    made: CurveConfig | TrainConfig,
    say: Callable[[str], None],
) -> Exported:
    """Write the guard of a run; its encoder is loaded only where a program needs it."""
    from guardtrain.guards.export import export_guard
    from guardtrain.guards.validation import find_others, find_validation

    def encoder() -> Encoder:
        from guardtrain.encoders.load import load_encoder

        return load_encoder(replace(made.encoder, device="cpu"))  # where programs are traced and compared

    load = None if made.encoder.family == PRECOMPUTED else encoder
    validation = find_validation(settings, pools, planned.mixture)
    others = find_others(settings, pools, planned.mixture)
    return export_guard(out, trained, validation, settings, others=others, encoder=load, say=say)


def describe_run(
    made: CurveConfig | TrainConfig,
    pools: Pools,
    planned: Run,
    bank: Any,
    recipe: TrainingRecipe,
    chosen: Mapping[str, float],
    results: pd.DataFrame,
    *,
    neighbours: bool,
    notes: tuple[str, ...] = (),
) -> TrainedRun:
    """Return what a guard needs of a run."""
    from guardtrain.guards.from_run import trained_run

    return trained_run(
        pools,
        planned,
        bank,
        plain(made.head),
        label=recipe.label,
        chosen=chosen,
        recipe=recipe_settings(made, recipe),
        results=results,
        data={name: plain(origin) for name, origin in made.data.about.items()},
        neighbours=neighbours,
        notes=notes,
    )


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


def _of_training(folder: Path, made: TrainConfig, pools: Pools, settings: ExportConfig) -> tuple[Run, TrainedRun]:
    """The head that `guardtrain train` left in `folder`."""
    from guardtrain.curves.engine import plan_single
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.results import ResultsTable
    from guardtrain.heads.artifact import load_head, read_description

    if settings.pick.given:
        raise ConfigError(f"{folder} holds one run, there is nothing to pick; leave pick out.")
    recipe, description = build_recipe(made), read_description(folder)
    planned = plan_single(pools, plain(made.mixture), recipe_settings(made, recipe))
    if description.get("run") != planned.key:
        raise DataError(
            f"The head in {folder} was not trained by the config there, or its data changed since: validation images "
            "could be among those it was trained on. Run the same `guardtrain train` again."
        )
    head = load_head(folder, recipe.head)
    results = ResultsTable(folder / RESULTS_FILE).read()
    chosen = description.get("chosen", {})
    near = settings.neighbours
    return planned, describe_run(made, pools, planned, head.bank, recipe, chosen, results, neighbours=near)


def _of_curve(folder: Path, made: CurveConfig, pools: Pools, settings: ExportConfig) -> tuple[Run, TrainedRun]:
    """The run of a curve that is best by a metric, trained again: a curve keeps no heads."""
    from guardtrain.curves.engine import make_mixer, plan_runs, train_run
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.results import ResultsTable
    from guardtrain.guards.picking import pick_run

    trainings, mixer = [(own, build_recipe(own)) for own in each_head(made)], make_mixer(pools)
    made_by = {
        run.key: (run, own, recipe)
        for own, recipe in trainings
        for run in plan_runs(pools, own.grid, recipe_settings(own, recipe), mixer)
    }
    runs = {key: run for key, (run, _, _) in made_by.items()}
    results = ResultsTable(folder / RESULTS_FILE).read()
    mine = results[results["run"].isin(runs)]
    if mine.empty:
        raise DataError(f"{folder} has no results of its config's runs: its data or settings changed since.")
    picked = pick_run(mine, pools, runs, folder, settings.pick)
    planned, made, recipe = made_by[picked.run]
    if picked.text:
        log.info("%s", picked.text)
    point = planned.point
    log.info(
        "run %s (%s, budget %d, ratio %g %s %s, seed %d) is trained again",
        planned.key,
        recipe.label,
        point.budget,
        point.ratio,
        point.arm,
        point.control,
        point.seed,
    )
    checkpoints = folder / "checkpoints" / f"guard-{planned.key}"
    fitted, rows = train_run(pools, recipe, planned, memory_gb=made.memory_gb, checkpoints=checkpoints)
    shutil.rmtree(checkpoints, ignore_errors=True)
    notes = picked.notes + _differences(mine[mine["run"] == planned.key], rows, picked.metric or "auroc")
    chosen = {"l2": float(fitted.l2[0])}
    if not (recipe.full_batch or recipe.direct):
        chosen |= {"lr": float(fitted.lr[0]), "steps": int(fitted.steps[0])}
    near = settings.neighbours
    described = describe_run(made, pools, planned, fitted.bank, recipe, chosen, results, neighbours=near, notes=notes)
    if picked.about:
        described = replace(described, training={**described.training, "picked": picked.about})
    return planned, described


def _differences(kept: pd.DataFrame, again: Sequence[ResultRow], metric: str) -> tuple[str, ...]:
    """A note for each test set on which the run, trained again, differs in `metric` from what the table has of it."""
    whole = kept[kept["slice_kind"] == "all"].set_index("test")[metric]
    notes = []
    for row in again:
        if row.slice_kind == "all" and abs(getattr(row, metric) - whole[row.test]) > _SAME:
            now, then = f"{getattr(row, metric):.4f}", f"{whole[row.test]:.4f}"
            notes.append(f"Trained again it has {now} instead of the table's {then}, {metric} on {row.test}.")
    return tuple(notes)
