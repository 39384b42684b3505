"""`guardtrain COMMAND -m …`: what is done is skipped, encoders embed first, and what fails is listed at the end."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from guardtrain import __version__
from guardtrain.commands.job import DONE, RUNNING, Job, Outcome, describe, is_done
from guardtrain.config import SCHEMAS, CurveConfig, TrainConfig, conf_dir
from guardtrain.config_checks import plain, typed
from guardtrain.curves.folder import ENGINE_VERSION
from guardtrain.errors import ConfigError, EngineError, GuardtrainError
from guardtrain.files import only_process

RESUMED = ("train", "curve")  # commands whose jobs are skipped where they are done, and embed before all
ONE_RUN = ("train", "finetune")  # commands that keep one head a folder: each job gets its own
_NO_RESULT = ("out", "cache_dir", "data_dir", "memory_gb", "logger")  # settings that change no result
_GROUP = "hydra/launcher"
_PLUGINS = {  # by what is in a launcher's name: the extra that installs its plugin, and the plugin's module
    "processes": ("joblib", "hydra_joblib_launcher"),
    "joblib": ("joblib", "hydra_joblib_launcher"),
    "slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit": ("slurm", "hydra_submitit_launcher"),
    "ray": ("ray", "hydra_ray_launcher"),
}
_MULTIRUN = "hydra.mode=MULTIRUN"
_LONGEST = 180  # characters of a folder's name; file systems allow 255 bytes
_ATTEMPTS = 2  # of a job whose process died: another's death may have taken it along
_BLOCK_ROWS = 8192
_JOBLIB, _RAY, _LOCAL, _SLURM = "JoblibLauncher", "RayLauncher", "LocalLauncher", "SlurmLauncher"


@dataclass(frozen=True)
class _Planned:
    """A job: overrides, folder, what it is called, config without its `hydra` part, and the key of what it makes."""

    overrides: list[str]
    folder: Path
    label: str
    log: Path
    config: DictConfig
    key: str = ""


def run_sweep(command: str, parsed: argparse.Namespace) -> int | None:
    """Run the jobs of a sweep with the launcher of its config.

    Returns:
        The exit code: 0, or where jobs failed 2 (all of them by what their user can mend) or 1. None where the sweep
        has a sweeper of its own (`hydra/sweeper=…`), which chooses jobs by what others gave; nothing is done then.
    """
    _require_launcher(parsed.overrides)
    search = create_config_search_path(str(conf_dir()))
    if parsed.config_dir:
        folder = Path(parsed.config_dir).absolute()
        search.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    hydra = Hydra.create_main_hydra2(command, search)
    try:
        mode = [] if _MULTIRUN in parsed.overrides else [_MULTIRUN]
        config = hydra.compose_config(parsed.config_name or command, [*parsed.overrides, *mode], RunMode.MULTIRUN)
        if str(config.hydra.sweeper._target_).rpartition(".")[2] != BasicSweeper.__name__:
            return None
        return _run(command, hydra, config)
    finally:
        GlobalHydra.instance().clear()


def _require_launcher(overrides: Sequence[str]) -> None:
    """Refuse a launcher whose plugin is not installed, with what installs it."""
    name = next((one.partition("=")[2] for one in reversed(overrides) if one.startswith(f"{_GROUP}=")), "basic")
    extra, module = next((need for part, need in _PLUGINS.items() if part in name), ("", ""))
    if module and find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{module}") is not None:
        return
    if module:
        package = module.replace("_", "-")
        raise ConfigError(f"{_GROUP}={name} needs {package}, which is not installed: pip install 'guardtrain[{extra}]'")


def _run(command: str, hydra: Hydra, config: DictConfig) -> int:
    started = time.perf_counter()
    with open_dict(config):  # launchers tell of each job in their own way; ours is a line where it ends
        config.hydra.hydra_logging = {"version": 1, "root": {"level": "WARNING"}, "disable_existing_loggers": False}
    # the sweep's folder is settled here: `out` becomes each job's own where it keeps one run
    base = Path(str(config.hydra.sweep.dir))
    refusal = ConfigError(f"Another process is running a sweep in {base}. Wait for it, or give another out=.")
    with only_process(base / ".sweep.lock", refusal):
        OmegaConf.save(config, base / "multirun.yaml")
        jobs = _plan(command, hydra, config, base)
        print(f"{len(jobs)} jobs in {base}", flush=True)
        jobs = _keyed(command, jobs) if command in RESUMED else [_with_key(job, uuid.uuid4().hex) for job in jobs]
        missing = [job for job in jobs if not is_done(job.folder, job.key)]
        if len(missing) < len(jobs):
            print(f"{len(jobs) - len(missing)} of them are done already", flush=True)
        failed = _launch(command, hydra, config, base, missing) if missing else []
    counts = f"{len(missing) - len(failed)} done, {len(jobs) - len(missing)} skipped, {len(failed)} failed"
    print(f"{counts}{':' if failed else ''}   ({time.perf_counter() - started:.1f} s in all)")
    for job, _ in failed:
        print(f"  {job.log}: {describe(Outcome.read(job.folder))}")
    if not failed:
        return 0
    return 2 if all(outcome is not None and outcome.mendable for _, outcome in failed) else 1


def _plan(command: str, hydra: Hydra, config: DictConfig, base: Path) -> list[_Planned]:
    """Every job of the grid, composed: a value that is wrong is refused before anything is run."""
    given = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    given += [str(override) for override in config.hydra.overrides.task]
    parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(given)
    planned: dict[Path, _Planned] = {}
    swept = {one.get_key_element() for one in parsed if one.is_sweep_override()}
    for number, overrides in enumerate(BasicSweeper.split_arguments(parsed, None)[0]):
        own = hydra.config_loader.load_sweep_config(config, overrides)
        with open_dict(own):  # a folder may be named for it
            own.hydra.job.num = number
        name = _folder_name(str(own.hydra.sweep.subdir))
        folder = base / name
        overrides = [*overrides, f"hydra.sweep.dir={_quoted(base)}", f"hydra.sweep.subdir={_quoted(name)}"]
        if command in ONE_RUN:
            overrides.append(f"out={_quoted(folder)}")
            own.out = str(folder)
        log = folder / f"{own.hydra.job.name}.log"
        label = " ".join(one for one in overrides if one.partition("=")[0] in swept) or name
        with open_dict(own):
            del own["hydra"]
        planned[folder] = _Planned(overrides, folder, label, log, own)
    return list(planned.values())


def _folder_name(name: str) -> str:
    """One folder's name for a job's overrides; long ones, and those with slashes, end in their hash."""
    short = name.replace("/", "-")[:_LONGEST]
    return (name if short == name else f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:8]}") or "job"


def _quoted(value: object) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _with_key(job: _Planned, key: str) -> _Planned:
    return dataclasses.replace(job, key=key)


def _keyed(command: str, jobs: Sequence[_Planned]) -> list[_Planned]:
    """The jobs with their resume keys; on the way each source is embedded once for each encoder it is needed with.

    A key covers all settings that change a result, the embeddings and the columns of the records, and the engine's
    version. torch is loaded only where something is left to embed.
    """
    states: dict[str, str] = {}
    keyed = []
    for job in jobs:
        settings: CurveConfig | TrainConfig = typed(job.config, SCHEMAS[command])
        about = plain(settings)
        needs = json.dumps([about["data"], about["encoder"], about["cache_dir"]], sort_keys=True, default=str)
        if needs not in states:
            try:
                states[needs] = _data_state(settings)
            except (GuardtrainError, OSError):
                states[needs] = uuid.uuid4().hex  # its jobs will say so themselves, each in its log
        deciding = {name: value for name, value in about.items() if name not in (*_NO_RESULT, "encoder")}
        whole = [__version__, ENGINE_VERSION, command, states[needs], deciding, _files_in(about["head"])]
        key = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]
        keyed.append(_with_key(job, key))
    return keyed


def _data_state(settings: CurveConfig | TrainConfig) -> str:
    """Hex sha256 over embeddings, their encoder and the records, embedded now where they are not in the cache."""
    from guardtrain.commands.data import embed_source, sources_of

    sources, tests = sources_of(settings.data)
    own = {f"data.test.{name}": source for name, source in tests.items() if hasattr(source, "records")}
    digest = hashlib.sha256()
    for place, source in {**{f"data.{name}": source for name, source in sources.items()}, **own}.items():
        part = embed_source(source, place, settings.encoder, settings.cache_dir, print)
        digest.update(f"{place} {part.spec.fingerprint} {part.matrix.shape}".encode())
        for column in part.records.table.columns:
            digest.update(json.dumps(column.to_pylist(), default=str).encode())
        for start in range(0, len(part), _BLOCK_ROWS):
            digest.update(np.ascontiguousarray(part.matrix[start : start + _BLOCK_ROWS]).data)
    return digest.hexdigest()


def _files_in(node: Any) -> list[str]:
    """Digests of the files that a head names: another file is another head."""
    if isinstance(node, Mapping):
        return [digest for name in sorted(node) for digest in _files_in(node[name])]
    if isinstance(node, str) and os.sep in node and Path(node).is_file():
        return [hashlib.sha256(Path(node).read_bytes()).hexdigest()]
    return []


def _launch(
    command: str, hydra: Hydra, config: DictConfig, base: Path, jobs: Sequence[_Planned]
) -> list[tuple[_Planned, Outcome | None]]:
    """Run the jobs; those that failed with their outcomes (None or `running`: its process died)."""
    kind, at_once, threads, gpus = _fit_to_machine(config, len(jobs))
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # Ray would take the lines of two jobs for one
    if kind == _SLURM:
        print(f"{len(jobs)} jobs go to SLURM; what it has to say of them: {base / '.submitit'}", flush=True)
    sweep = uuid.uuid4().hex
    known = {job.folder.name: (job.key, job.label) for job in jobs}
    task = Job(command, sweep, known, threads, gpus, str(base), os.getpid() if kind == _JOBLIB else None)
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=config.hydra.job.config_name)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    try:
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    except ImportError as error:
        raise EngineError(f"The launcher cannot be loaded: {str(error).splitlines()[0]}. Install it.") from error

    def outcome_of(job: _Planned) -> Outcome | None:
        outcome = Outcome.read(job.folder)
        return outcome if outcome is not None and outcome.sweep == sweep else None

    starts: Counter[Path] = Counter()
    pending, launched = list(jobs), 0
    while pending:
        batch, pending = pending[:at_once], pending[at_once:]
        broken: Exception | None = None
        try:
            launcher.launch([job.overrides for job in batch], initial_job_idx=launched)
        except Exception as error:  # a job tells of its own failure, so this is a process that died, or the launcher
            broken = error
        launched += len(batch)
        if broken is None:
            continue
        left = [(job, found) for job in batch if (found := outcome_of(job)) is None or found.status == RUNNING]
        started = [job for job, found in left if found is not None]
        if len(left) == len(batch) and not started:
            raise EngineError(f"The launcher {kind} started no job: {_first_line(broken)}") from broken
        starts.update(job.folder for job in started)
        if kind == _SLURM:  # the others are in the queue still
            print(f"lost sight of {len(left)} jobs ({_first_line(broken)}); they may still run", flush=True)
        elif started:
            again = [job for job, _ in left if starts[job.folder] < _ATTEMPTS]
            print(f"a process died ({_first_line(broken)}); {len(again)} jobs are started again", flush=True)
            pending = again + pending
    callbacks.on_multirun_end(config=config, config_name=config.hydra.job.config_name)
    outcomes = [(job, outcome_of(job)) for job in jobs]
    return [(job, outcome) for job, outcome in outcomes if outcome is None or outcome.status != DONE]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fit_to_machine(config: DictConfig, jobs: int) -> tuple[str, int, int | None, tuple[str, ...]]:
    """Fill in what a launcher leaves to the machine: as many jobs at once as GPUs, else as cores; the cores shared out.

    Returns:
        The launcher's class, jobs to hand it at once, threads of each job (None: torch's own choice), and the GPUs
        that jobs take for themselves.
    """
    launcher = config.hydra.launcher
    kind = str(launcher._target_).rpartition(".")[2]
    at_once = config.hydra.sweeper.get("max_batch_size") or jobs
    cores, gpus = _cores(), _gpus()
    room = len(gpus) or cores
    with open_dict(launcher):
        if kind == _JOBLIB:
            launcher.n_jobs = min(jobs, room if launcher.n_jobs == -1 else launcher.n_jobs)
            return kind, at_once, max(1, cores // launcher.n_jobs), gpus
        if kind == _LOCAL:  # it starts all it is given at once
            at_once = min(at_once, room)
            return kind, at_once, launcher.cpus_per_task or max(1, cores // min(jobs, at_once)), gpus
        if kind == _SLURM:
            return kind, at_once, launcher.cpus_per_task, ()
        if kind == _RAY:
            remote = launcher.ray.remote
            if "num_gpus" in remote and remote.num_gpus is None:
                remote.num_gpus = 1 if gpus else 0
            return kind, at_once, max(1, int(remote.get("num_cpus") or 1)), ()
    return kind, at_once, None, ()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, without asking torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(one.strip() for one in visible.split(",") if one.strip() not in ("", "-1"))
    found = sorted(Path("/dev").glob("nvidia[0-9]*"))
    return tuple(str(i) for i in range(len(found)))
