"""`guardtrain export`: a finished run, or the best row of a curve → a guard."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from guardtrain.commands.data import embed_source, load_pools
from guardtrain.commands.recipe import build_recipe, recipe_settings
from guardtrain.commands.terminal import show
from guardtrain.config import (
    PRECOMPUTED,
    CurveConfig,
    ExportConfig,
    PickSettings,
    TrainConfig,
    build,
    plain,
    typed,
)
from guardtrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.engine import Run
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.guards.export import Exported, TrainedRun
    from guardtrain.guards.settings import GuardSettings
    from guardtrain.guards.validation import Validation
    from guardtrain.training.fit import TrainingRecipe
    from guardtrain.training.pools import Pools

log = logging.getLogger(__name__)

GUARD_FOLDER = "guard"
_CONFIG = Path(".hydra") / "config.yaml"
_SAME = 5e-3  # a run trained again alone may differ so much in a metric from the same run in a bank


def run(config: DictConfig) -> None:
    """Export what `config` (see `ExportConfig`) describes."""
    settings = typed(config, ExportConfig)
    started = time.perf_counter()
    settings.rules()  # refused before anything is embedded
    if settings.onnx or settings.whole:
        from guardtrain.guards.onnx_export import require_onnx

        require_onnx()
    folder = Path(settings.run)
    made = _training_config(folder, settings)
    pools = load_pools(made, log.info)
    recipe = build_recipe(made)
    if isinstance(made, TrainConfig):
        planned, trained = _of_training(folder, made, pools, recipe, settings)
    else:
        planned, trained = _of_curve(folder, made, pools, recipe, settings)
    validation = find_validation(settings, made, pools, planned, log.info)
    out = Path(settings.out) if settings.out else folder / GUARD_FOLDER
    exported = export(out, trained, validation, settings, made, log.info)
    show(summary_of(exported))
    log.info("%.1f s in all", time.perf_counter() - started)


def summary_of(exported: Exported) -> str:
    """The printed account of a guard."""
    from guardtrain.guards.summary import summary_text

    return summary_text(exported)


def export(
    out: Path,
    trained: TrainedRun,
    validation: Validation,
    settings: GuardSettings,
    made: CurveConfig | TrainConfig,
    say: Callable[[str], None],
) -> Exported:
    """Write the guard of a run; its encoder is loaded only where a program needs it."""
    from guardtrain.guards.export import export_guard

    def encoder() -> Encoder:
        from guardtrain.encoders.load import load_encoder

        return load_encoder(replace(made.encoder, device="cpu"))  # where programs are traced and compared

    precomputed = made.encoder.family == PRECOMPUTED
    return export_guard(out, trained, validation, settings, encoder=None if precomputed else encoder, say=say)


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
    """What a guard needs of a run."""
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


def find_validation(
    settings: GuardSettings,
    made: CurveConfig | TrainConfig,
    pools: Pools,
    planned: Run,
    say: Callable[[str], None],
) -> Validation:
    """The images that `settings.validation` names.

    Raises:
        ConfigError: neither `unused`, nor `val`, nor a test set.
        DataError: no images, or of one class only.
    """
    import numpy as np

    from guardtrain.guards.settings import UNUSED, VALIDATION_SPLIT
    from guardtrain.guards.validation import Validation, unused_rows

    name, limit, seed = settings.validation, settings.validation_limit, settings.seed
    if name in pools.tests:
        part = pools.tests[name]
        return Validation.of(part, np.arange(len(part)), f"the test set {name}", is_test=True, limit=limit, seed=seed)
    if name == UNUSED:
        origin = "images of the real pool that neither the run nor a test set used"
        return Validation.of(pools.real, unused_rows(pools, planned.mixture), origin, limit=limit, seed=seed)
    if name != VALIDATION_SPLIT:
        raise ConfigError(
            f"validation is '{name}'; allowed: {UNUSED}, {VALIDATION_SPLIT}, or a test set: {', '.join(pools.tests)}."
        )
    whole = embed_source(build(made.data.real, "data.real"), "data.real", made.encoder, made.cache_dir, say)
    rows = np.flatnonzero(whole.records.splits == VALIDATION_SPLIT)
    if not len(rows):
        raise DataError("No record of data.real has split 'val'. Mark some, or set validation=unused.")
    return Validation.of(whole, rows, "records of the real pool with split: val", limit=limit, seed=seed)


def _training_config(folder: Path, settings: ExportConfig) -> CurveConfig | TrainConfig:
    """The config of the run or curve in `folder`, as Hydra kept it; data_dir and cache_dir may be others by now."""
    file = folder / _CONFIG
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


def _of_training(
    folder: Path, made: TrainConfig, pools: Pools, recipe: TrainingRecipe, settings: ExportConfig
) -> tuple[Run, TrainedRun]:
    """The head that `guardtrain train` left in `folder`."""
    from guardtrain.curves.engine import plan_single
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.results import ResultsTable
    from guardtrain.heads.artifact import load_head, read_description

    if settings.pick.given:
        raise ConfigError(f"{folder} holds one run, there is nothing to pick; leave pick out.")
    description = read_description(folder)
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


def _of_curve(
    folder: Path, made: CurveConfig, pools: Pools, recipe: TrainingRecipe, settings: ExportConfig
) -> tuple[Run, TrainedRun]:
    """The run of a curve that is best by a metric, trained again: a curve keeps no heads."""
    from guardtrain.curves.engine import make_mixer, plan_runs, train_run
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.results import ResultsTable

    runs = {run.key: run for run in plan_runs(pools, made.grid, recipe_settings(made, recipe), make_mixer(pools))}
    results = ResultsTable(folder / RESULTS_FILE).read()
    mine = results[results["run"].isin(runs)]
    if mine.empty:
        raise DataError(f"{folder} has no results of its config's runs: its data or settings changed since.")
    row, tried = _picked(mine, settings.pick)
    planned = runs[str(row["run"])]
    metric, value = settings.pick.metric, float(row[str(settings.pick.metric)])
    log.info(
        "picked of %d runs by %s on %s: %.3f (budget %d, ratio %g %s %s, seed %d); it is trained again",
        tried,
        metric,
        settings.pick.test,
        value,
        planned.point.budget,
        planned.point.ratio,
        planned.point.arm,
        planned.point.control,
        planned.point.seed,
    )
    checkpoints = folder / "checkpoints" / f"guard-{planned.key}"
    fitted, rows = train_run(pools, recipe, planned, memory_gb=made.memory_gb, checkpoints=checkpoints)
    shutil.rmtree(checkpoints, ignore_errors=True)
    again = next(getattr(r, str(metric)) for r in rows if r.test == settings.pick.test and r.slice_kind == "all")
    notes: tuple[str, ...] = ()
    if tried > 1:
        notes += (
            f"The run was picked of {tried} by {metric} on the test set {settings.pick.test}: its metrics there are "
            "better than they will be elsewhere.",
        )
    if abs(again - value) > _SAME:
        notes += (
            f"Trained again it has {again:.4f} instead of the table's {value:.4f}, {metric} on {settings.pick.test}.",
        )
    chosen = {"l2": float(fitted.l2[0])}
    if not (recipe.full_batch or recipe.direct):
        chosen |= {"lr": float(fitted.lr[0]), "steps": int(fitted.steps[0])}
    near = settings.neighbours
    described = describe_run(made, pools, planned, fitted.bank, recipe, chosen, results, neighbours=near, notes=notes)
    return planned, described


def _picked(results: pd.DataFrame, pick: PickSettings) -> tuple[Mapping[str, Any], int]:
    """The best row by `pick`, and of how many.

    Raises:
        ConfigError: no metric or test set, or none of that name; nothing left.
    """
    from guardtrain.curves.results import METRICS

    tests = sorted(results["test"].unique())
    lower = [name for name, text in METRICS.items() if "lower is better" in text]
    for key, allowed in (("metric", list(METRICS)), ("test", tests)):
        value = getattr(pick, key)
        if value not in allowed:
            said = "is not given" if value is None else f"is '{value}'"
            raise ConfigError(f"This is a curve's folder, and pick.{key} {said}; give one of: {', '.join(allowed)}.")
    metric = str(pick.metric)
    left = results[(results["test"] == pick.test) & (results["slice_kind"] == "all") & results[metric].notna()]
    for name in ("run", "budget", "ratio", "arm", "control", "seed"):
        if (wanted := getattr(pick, name)) is None:
            continue
        known = sorted(left[name].unique())
        left = left[left[name] == wanted]
        if left.empty:
            raise ConfigError(
                f"No run is left with pick.{name}={wanted}; there are: {', '.join(map(str, known[:20]))}."
            )
    if left.empty:
        raise ConfigError(f"{metric} is not defined on {pick.test} for any run; pick by another metric.")
    values = left[metric].to_numpy()
    best = int(values.argmin() if metric in lower else values.argmax())
    return {str(name): value for name, value in left.iloc[best].items()}, len(left)
