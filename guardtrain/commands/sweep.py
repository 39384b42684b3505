"""`guardtrain COMMAND -m …`: what is done is skipped, encoders embed first, and what fails is listed at the end."""

from __future__ import annotations

import argparse
import os
import shlex
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from guardtrain.commands import elapsed, ray_jobs, slurm
from guardtrain.commands.config_path import own_configs, search_path
from guardtrain.commands.job import DONE, FAILED, OUTCOME_FILE, RUNNING, Job, Outcome, is_done, make_ready
from guardtrain.commands.sweep_plan import RESUMED, Planned, grid_size, optional_settings, plan
from guardtrain.commands.sweep_progress import Progress, tell_failed
from guardtrain.commands.unmentioned import accepted
from guardtrain.curves.folder import RESULTS_FILE
from guardtrain.disk import is_full, why_unwritten
from guardtrain.errors import ConfigError, EngineError
from guardtrain.files import only_process
from guardtrain.grammar import setting
from guardtrain.installing import install_line
from guardtrain.own_code import own_folders

_GROUP = "hydra/launcher"
_PLUGINS = {  # by what is in a launcher's name: the extra that installs its plugin, and the plugin's module
    "processes": ("joblib", "hydra_joblib_launcher"),
    "joblib": ("joblib", "hydra_joblib_launcher"),
    "slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit": ("slurm", "hydra_submitit_launcher"),
    "ray": ("ray", "hydra_ray_launcher"),
}
COLLECTED = ("train", "curve", "finetune", "tune")  # commands whose runs `guardtrain results` reads
_OFFLINE = "wandb/offline-run-*"  # in a job's folder
_MULTIRUN = "hydra.mode=MULTIRUN"
_ATTEMPTS = 2  # of a job whose process died: another's death may have taken it along
_OF_PROCESSES = ("prefer", "require", "verbose", "timeout", "temp_folder", "max_nbytes", "mmap_mode")  # of joblib's
_JOBLIB, _RAY, _LOCAL, _SLURM = "JoblibLauncher", "RayLauncher", "LocalLauncher", "SlurmLauncher"


def run_sweep(command: str, parsed: argparse.Namespace) -> int | None:
    """Run the jobs of a sweep with the launcher of its config.

    Returns:
        The exit code: 0, or where jobs failed 2 (all of them by what their user can mend) or 1. None where the sweep
        has a sweeper of its own (`hydra/sweeper=…`), which chooses jobs by what others gave; nothing is done then.
    """
    _require_launcher(parsed.overrides)
    hydra = Hydra.create_main_hydra2(command, search_path())
    try:
        mode = [] if _MULTIRUN in parsed.overrides else [_MULTIRUN]
        config = _compose(command, hydra, parsed.config_name or command, [*parsed.overrides, *mode])
        if str(config.hydra.sweeper._target_).rpartition(".")[2] != BasicSweeper.__name__:
            return None
        return _run(command, hydra, config)
    finally:
        GlobalHydra.instance().clear()


def _compose(command: str, hydra: Hydra, name: str, overrides: Sequence[str]) -> DictConfig:
    """The sweep's own config; settings that only some of what is swept has are left to the jobs."""
    optional = optional_settings(command, overrides)
    given = list(overrides)
    while True:
        try:
            config = hydra.compose_config(name, given, RunMode.MULTIRUN)
        except ConfigCompositionException as error:
            # Hydra composes it with the default of each group that is swept
            left = [one for one in given if (key := one.partition("=")[0]) in optional and f"'{key}'" in str(error)]
            if left and isinstance(error.__cause__, (ConfigAttributeError, ConfigKeyError)):
                given.remove(left[0])
            elif (written := accepted(command, given, error)) is not None:
                given = written
            else:
                raise
            continue
        config.hydra.overrides.task = [one for one in overrides if not one.lstrip("+~").startswith("hydra")]
        return config


def _require_launcher(overrides: Sequence[str]) -> None:
    """Refuse a launcher whose plugin is not installed, with what installs it."""
    name = next((one.partition("=")[2] for one in reversed(overrides) if one.startswith(f"{_GROUP}=")), "basic")
    extra, module = next((need for part, need in _PLUGINS.items() if part in name), ("", ""))
    if module and find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{module}") is not None:
        return
    if module:
        package = module.replace("_", "-")
        raise ConfigError(f"{_GROUP}={name} needs {package}, which is not installed: {install_line(extra)}")


def _run(command: str, hydra: Hydra, config: DictConfig) -> int:
    with open_dict(config):  # launchers tell of each job in their own way; ours is a line where it ends
        config.hydra.hydra_logging = {"version": 1, "root": {"level": "WARNING"}, "disable_existing_loggers": False}
    # the sweep's folder is settled here: `out` becomes each job's own where it keeps one run
    base = Path(str(config.hydra.sweep.dir))
    refusal = ConfigError(f"Another process is running a sweep in {base}. Wait for it, or give another out=.")
    with only_process(base / ".sweep.lock", refusal):
        OmegaConf.save(config, base / "multirun.yaml")
        given = _given(config)
        loader = cast(ConfigLoaderImpl, hydra.config_loader)
        with _processes_made_ready(command, config, base, grid_size(loader, given)):
            jobs, left_out = plan(command, loader, config, base, given, _say)
        missing = [job for job in jobs if not is_done(job.folder, job.key)]
        if len(missing) < len(jobs):
            _say(f"{len(jobs) - len(missing)} of them are done already")
        failed = _launch(command, hydra, config, base, missing) if missing else []
    counts = f"{len(missing) - len(failed)} done, {len(jobs) - len(missing)} skipped, {len(failed)} failed"
    counts += f", {left_out} left out: there are too few images for them" if left_out else ""
    print(f"{counts}{':' if failed else ''}   ({elapsed.seconds():.1f} s in all)")
    tell_failed(base, [job for job, _ in failed])
    if OmegaConf.select(config, "logger.kind") == "wandb" and any(base.glob(f"*/{_OFFLINE}")):
        print(f"W&B offline; send it with: wandb sync {shlex.quote(str(base))}/*/{_OFFLINE}")
    if command in COLLECTED and len(failed) < len(jobs):
        print(f"all of it in one table: guardtrain results {shlex.quote(str(base))}")
        if command == "curve" and _of_one_encoder(base / RESULTS_FILE):  # its jobs share one
            print(f"in one figure: guardtrain plot {shlex.quote(setting('results', str(base)))} all_runs=true")
    if not failed:
        return 2 if left_out else 0
    mendable = (is_full(job.folder) if outcome is None else outcome.mendable for job, outcome in failed)
    return 2 if all(mendable) else 1


def _of_one_encoder(table: Path) -> bool:
    """Whether a results table is there and holds runs of one encoder: no figure mixes two."""
    import pyarrow.parquet as pq

    return table.is_file() and len(pq.read_table(table, columns=["encoder"])["encoder"].unique()) == 1


def _given(config: DictConfig) -> list[str]:
    """All overrides of the jobs as they were written: what refers to a setting that is swept differs between them."""
    nodes = config.hydra.sweeper.params or OmegaConf.create({}), config.hydra.overrides.task
    params, task = (cast(Any, OmegaConf.to_container(node, resolve=False)) for node in nodes)
    return [*(f"{key}={value}" for key, value in params.items()), *task]


@contextmanager
def _processes_made_ready(command: str, config: DictConfig, base: Path, jobs: int) -> Iterator[None]:
    """Start joblib's processes and have them import what jobs need while these are planned: three seconds of a sweep.

    As many as there are jobs for. Not where jobs were run before, for nothing may be left to do; nor where a process
    is to choose its GPU first.
    """
    launcher = config.hydra.launcher
    kind, _, _, gpus = _fit_to_machine(command, config, jobs)
    if kind != _JOBLIB or launcher.n_jobs < 2 or gpus or any(base.glob(f"*/{OUTCOME_FILE}")):
        yield
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    alike = {name: launcher[name] for name in _OF_PROCESSES if name in launcher}

    def start() -> None:
        work = [delayed(make_ready)(command, os.getpid()) for _ in range(launcher.n_jobs)]
        with suppress(BaseException):  # what does not work here, jobs will say of themselves
            Parallel(launcher.n_jobs, backend="loky", batch_size=1, **alike)(work)

    starting = threading.Thread(target=start, name="processes made ready", daemon=True)
    starting.start()
    try:
        yield
        starting.join()
    except BaseException:
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        raise


def _say(line: str) -> None:
    print(line, flush=True)


def _launch(
    command: str, hydra: Hydra, config: DictConfig, base: Path, jobs: Sequence[Planned]
) -> list[tuple[Planned, Outcome | None]]:
    """Run the jobs; those that failed with their outcomes (None or `running`: its process died)."""
    kind, at_once, threads, gpus = _fit_to_machine(command, config, len(jobs))
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # Ray would take the lines of two jobs for one
    if kind == _SLURM:
        print(f"{len(jobs)} jobs go to SLURM; what it has to say of them: {base / '.submitit'}", flush=True)
    sweep = uuid.uuid4().hex
    keys = {job.folder.name: job.key for job in jobs}
    driver = os.getpid() if kind == _JOBLIB else None
    task = Job(command, sweep, keys, threads, gpus, str(base), driver, own_folders(), own_configs())
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=config.hydra.job.config_name)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    try:
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    except ImportError as error:
        raise EngineError(f"The launcher cannot be loaded: {str(error).splitlines()[0]}. Install it.") from error

    def outcome_of(job: Planned) -> Outcome | None:
        outcome = Outcome.read(job.folder)
        return outcome if outcome is not None and outcome.sweep == sweep else None

    def hand_over(batch: Sequence[Planned], first: int) -> None:
        overrides = [job.overrides for job in batch]
        if kind != _SLURM:
            launcher.launch(overrides, initial_job_idx=first)
            return

        def ended(i: int) -> bool:
            found = outcome_of(batch[i])
            return found is not None and found.status != RUNNING

        def lost(i: int, why: str) -> None:
            batch[i].folder.mkdir(parents=True, exist_ok=True)
            Outcome(batch[i].key, sweep, FAILED, error=why).write(batch[i].folder)

        slurm.launch(launcher, overrides, first, ended, lost, _say)

    if kind == _RAY:
        ray_jobs.connect(config.hydra.launcher.ray, _say)
    starts: Counter[Path] = Counter()
    pending, launched = list(jobs), 0
    with _hushed(kind, base), Progress(jobs, outcome_of):
        while pending:
            batch, pending = pending[:at_once], pending[at_once:]
            broken: Exception | None = None
            try:
                hand_over(batch, launched)
            except Exception as error:  # jobs tell of their own failures: a process died, or the launcher failed
                if (why := why_unwritten(error, [base])) is not None:
                    raise EngineError(why) from error
                broken = error
            launched += len(batch)
            if broken is None:
                continue
            left = [(job, found) for job in batch if (found := outcome_of(job)) is None or found.status == RUNNING]
            started = [job for job, found in left if found is not None]
            if len(left) == len(batch) and not started:
                raise EngineError(f"The launcher {kind} started no job: {_first_line(broken)}") from broken
            starts.update(job.folder for job in started)
            if started:
                again = [job for job, _ in left if starts[job.folder] < _ATTEMPTS]
                print(f"a process died ({_first_line(broken)}); {len(again)} jobs are started again", flush=True)
                pending = again + pending
    callbacks.on_multirun_end(config=config, config_name=config.hydra.job.config_name)
    outcomes = [(job, outcome_of(job)) for job in jobs]
    return [(job, outcome) for job, outcome in outcomes if outcome is None or outcome.status != DONE]


@contextmanager
def _hushed(kind: str, base: Path) -> Iterator[None]:
    """Ctrl-C is told of once: it also reaches a thread of joblib and processes of submitit, which end in tracebacks."""
    if kind == _JOBLIB:
        kept = threading.excepthook

        def tell(about: threading.ExceptHookArgs) -> None:
            if about.thread is None or not about.thread.name.startswith("ExecutorManagerThread"):
                kept(about)

        threading.excepthook = tell
        yield
        threading.excepthook = kept  # not where a sweep was cut off: the thread is about to notice
    elif kind == _LOCAL:
        log = base / ".submitit" / "processes.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        terminal = os.dup(2)
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
    else:
        yield


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fit_to_machine(command: str, config: DictConfig, jobs: int) -> tuple[str, int, int | None, tuple[str, ...]]:
    """Fill in what a launcher leaves open: as many jobs at once as GPUs, else as cores; the cores shared out.

    A cluster is asked for a GPU a job where its jobs run an encoder: those of other commands find embeddings in the
    cache, and a cluster without GPUs refuses them or lets them wait.

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
            if launcher.gpus_per_node is None and command not in RESUMED:
                launcher.gpus_per_node = 1
            return kind, at_once, launcher.cpus_per_task, ()
        if kind == _RAY:
            remote = launcher.ray.remote
            if "num_gpus" in remote and remote.num_gpus is None:
                here = launcher.ray.init.get("address") is None
                remote.num_gpus = int(bool(gpus) if here else command not in RESUMED)
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
