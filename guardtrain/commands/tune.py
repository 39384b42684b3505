"""`guardtrain tune`: hyper-parameters searched with Optuna, many trials trained as one bank."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from guardtrain.api.fitting import require_mixture
from guardtrain.commands import elapsed
from guardtrain.commands.config_path import own_configs
from guardtrain.commands.data import load_pools
from guardtrain.commands.terminal import show
from guardtrain.commands.tune_configs import TrialConfigs
from guardtrain.config import TrainConfig, TuneConfig
from guardtrain.config_checks import plain, typed
from guardtrain.curves.tuning.settings import AUTO, FOLDS, LOG_LOSS, VALIDATION, lower_is_better
from guardtrain.curves.tuning.space import Parameter, Value
from guardtrain.errors import ConfigError, EngineError
from guardtrain.files import replace_file
from guardtrain.installing import install_line
from guardtrain.mixtures.settings import MixtureSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardtrain.curves.tuning.scoring import Judge
    from guardtrain.curves.tuning.study import Search, Trial
    from guardtrain.mixtures import Supply
    from guardtrain.training.pools import Pools

log = logging.getLogger(__name__)

BEST_FOLDER = "best"
_CONFIG = Path(".hydra") / "config.yaml"


def run(config: DictConfig) -> None:
    """Search what `config` (see `TuneConfig`) describes; a search that was cut off continues."""
    settings = typed(config, TuneConfig)
    started = time.perf_counter()
    if importlib.util.find_spec("optuna") is None:
        raise EngineError(f"guardtrain tune searches with Optuna, which is not installed: {install_line('tune')}.")
    configs = TrialConfigs(settings)
    space = configs.space
    score = _scored_on(settings, space)
    folder = Path(settings.out)
    base = configs.first()
    pools = load_pools(base, log.info, partial(_require_mixtures, configs))

    from guardtrain.curves.tuning.study import Search
    from guardtrain.curves.tuning.table import TRIALS_FILE, ranked_text, write_trials

    judge = _judge(settings, configs, pools, score, folder)
    both = len(judge.parts) > 1 if score == VALIDATION else settings.mixture.ratio > 0
    about = _about(settings, configs, pools, score, both)
    names = [parameter.name for parameter in space]
    with (
        _helpers(settings, folder),
        Search(
            folder,
            space,
            sampler=settings.sampler,
            seed=settings.sampler_seed,
            minimise=lower_is_better(settings.metric),
            about=about,
        ) as search,
    ):
        _search(settings, search, configs, judge, started)
        if settings.worker:
            return
        _wait()
        if search.under_way():
            log.info("other processes are still at work; the last to end writes the table and trains the best")
            return
        with search.locked("best"):
            trials = search.read()
            if not trials:
                raise ConfigError(
                    f"No trial has ended within timeout={settings.timeout:g} seconds, which count from this start, its "
                    "reading of the data with it. Give more; the same command goes on."
                )
            write_trials(folder, trials, names, settings.metric, score)
            log.info("")
            on = (
                f"{judge.folds} folds inside the budget"
                if score == FOLDS
                else "validation images that no trial trains on"
            )
            on += ", the mean of both pools" * (both and not settings.metric.startswith("pair_"))
            show(ranked_text(trials, names, settings.metric, on, settings.seeds, settings.show))
            log.info("")
            log.info("trials    %s", folder / TRIALS_FILE)
            if trials[0].score is None:
                raise ConfigError("No trial has a score, so there is no best one; the table above says why.")
            _train_best(settings, configs, trials[0])
    log.info("%.1f s in all", elapsed.seconds())


def _require_mixtures(configs: TrialConfigs, supply: Supply) -> None:
    """Raises MixtureError where a trial could draw more images than there are."""
    for point, rounding in configs.mixtures():
        ratio, arm, control = point.drawn
        require_mixture(MixtureSettings(point.budget, ratio, arm, control, point.seed, rounding), supply)


def _search(settings: TuneConfig, search: Search, configs: TrialConfigs, judge: Judge, started: float) -> None:
    """Ask, train, tell, until there are enough trials or no more time."""
    from guardtrain.curves.tuning.study import Trial

    wanted = search.most(settings.trials)
    done = len(search.read())
    if done:
        log.info("%d of %d trials are there already", min(done, wanted), wanted)
    while settings.timeout is None or time.perf_counter() - started < settings.timeout:
        asked = search.ask(settings.batch, settings.trials)
        if not asked:
            return
        begun = time.perf_counter()
        title = f"trials {asked[0].number} to {asked[-1].number}"
        judged = judge.judge([configs.candidate(trial.values) for trial in asked], title)
        told = []
        for trial, own in zip(asked, judged, strict=True):
            scores, by_seed = own.by_fold.tolist(), own.by_seed.tolist()
            told.append(Trial(trial.number, trial.values, own.score, scores, by_seed, own.seconds, own.reason))
        search.tell(told)
        seconds = time.perf_counter() - begun
        ranked = search.read()
        rate = f"{len(asked)} in {seconds:.1f} s, {60 * len(asked) / seconds:.0f} a minute"
        best = ranked[0]
        text = ", ".join(f"{name} {_short(value)}" for name, value in best.values.items())
        found = "none with a score yet" if best.score is None else f"best {settings.metric} {best.score:.4f}: {text}"
        log.info("%d of %d trials (%s); %s", len(ranked), wanted, rate, found)
    log.info("no time is left; the same command goes on")


def _wait() -> None:
    """For the helpers of `jobs`: until they are done with their last batches."""
    while any(helper.poll() is None for helper in _running):
        time.sleep(0.2)
    for helper in _running:
        if helper.returncode:
            log.warning(
                "a helper process ended with code %d; its trials are tried again by the next start", helper.returncode
            )


def _train_best(settings: TuneConfig, configs: TrialConfigs, trial: Trial) -> None:
    """The best trial's run, by the very path of `guardtrain train`, and the command that makes the same."""
    from guardtrain.commands import train

    out = Path(settings.out) / BEST_FOLDER
    best = configs.composed(trial.values)
    with open_dict(best):
        best.out = str(out)
    own = OmegaConf.create(plain(typed(best, TrainConfig)))
    log.info("best      trial %d, the same as:", trial.number)
    log.info("          %s", configs.command(trial.values, out))
    log.info("")
    replace_file(out / _CONFIG, lambda path: path.write_text(OmegaConf.to_yaml(own), encoding="utf-8"))
    train.train(typed(own, TrainConfig))


def _scored_on(settings: TuneConfig, space: Sequence[Parameter]) -> str:
    mixed = [parameter.name for parameter in space if parameter.name.startswith("mixture.")]
    score = settings.score if settings.score != AUTO else (VALIDATION if mixed else FOLDS)
    if mixed and score == FOLDS:
        raise ConfigError(
            f"score=folds judges a trial on images of its own mixture, and {mixed[0]} changes which these are: such "
            "scores cannot be compared. Take score=validation."
        )
    if settings.metric == LOG_LOSS and any(p.name in ("loss", "loss.class_weight") for p in space):
        raise ConfigError(
            "metric=log_loss weighs classes by loss.class_weight, which is searched: such scores cannot be compared. "
            "Take metric=auroc or metric=brier."
        )
    return score


def _judge(settings: TuneConfig, configs: TrialConfigs, pools: Pools, score: str, folder: Path) -> Judge:
    from guardtrain.curves.engine import make_mixer
    from guardtrain.curves.tuning.scoring import Judge

    mixer = make_mixer(pools)
    used = [point.mixture(mixer, rounding) for point, rounding in configs.mixtures()]
    return Judge(
        pools,
        mixer,
        score=score,
        metric=settings.metric,
        folds=settings.selection.folds,
        used=used if score == VALIDATION else (),
        folder=folder / "validation",
        memory_gb=settings.memory_gb,
    )


def _about(settings: TuneConfig, configs: TrialConfigs, pools: Pools, score: str, both: bool) -> dict[str, Any]:
    """All that decides a trial's score and what is asked for, by the name a user knows."""
    return {
        "data": pools.digest,
        "settings": configs.common(),
        "space": {parameter.name: asdict(parameter) for parameter in configs.space},
        "sampler": settings.sampler,
        "sampler_seed": settings.sampler_seed,
        "metric": settings.metric,
        "score": score,
        "seeds": settings.seeds,
        # once the images of both pools in a fold were judged as one
        **({"pools": "each by itself"} if both and score == FOLDS else {}),
        # images marked with split: val are of no pool; what else judges is in `data`
        **({"validation": pools.validation_digest} if score == VALIDATION and pools.validation else {}),
    }


_running: list[subprocess.Popen[bytes]] = []


@contextmanager
def _helpers(settings: TuneConfig, folder: Path) -> Iterator[None]:
    """`jobs - 1` more processes of this command on the same study, each with its share of the threads."""
    if settings.jobs == 1:
        yield
        return
    import torch

    threads = max(1, (os.cpu_count() or 1) // settings.jobs)
    if not settings.trainer.threads:
        torch.set_num_threads(threads)
    given = [text for text in HydraConfig.get().overrides.task if not text.startswith(("jobs=", "worker=", "out="))]
    command = [sys.executable, "-m", "guardtrain.cli", "tune", *given, f"out={folder}", "jobs=1", "worker=true"]
    if (configs := own_configs()) is not None:
        command += ["--config-dir", str(configs)]
    command += ["hydra.output_subdir=null", "hydra/job_logging=terminal", "trainer.progress=false"]
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        for number in range(1, settings.jobs):
            with (folder / f"worker{number}.log").open("ab") as output:
                _running.append(subprocess.Popen(command, stdout=output, stderr=output, env=environment))
        yield
    finally:
        for helper in _running:
            if helper.poll() is None:  # this process is interrupted, or failed
                helper.terminate()
        _running.clear()


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
