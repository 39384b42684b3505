"""One job of a sweep, in whatever process a launcher gives it: done once, logged to a file, and never raising."""

from __future__ import annotations

import atexit
import errno
import importlib
import io
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from guardtrain.commands import elapsed
from guardtrain.commands.config_path import set_own_configs
from guardtrain.curves.folder import RESULTS_FILE
from guardtrain.disk import is_full, reason, why_unwritten, written_folders
from guardtrain.errors import GuardtrainError
from guardtrain.files import replace_file
from guardtrain.imports import import_quickly
from guardtrain.own_code import make_importable, place_in_own

OUTCOME_FILE = "job.json"
DONE, FAILED, RUNNING = "done", "failed", "running"
_LOCK = ".job.lock"
_WATCH_SECONDS = 0.5
_GPU_LOCKS = ".gpus"
_PRODUCTS = ("head.json", "head.safetensors", "guard/config.json")  # what a run leaves in its folder

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """A job's outcome; `job.json` in its folder.

    Args:
        key: of all that decides its results; a job of the same key need not be done again.
        sweep: the start of the sweep it belongs to.
        status: `running`, `done` or `failed`.
        seconds: it took.
        error: why it failed; None otherwise.
        mendable: whether its user can mend that; False is a bug.
        files: what it left, by path: size and time of change, or the rows of a table that only grows.
        process: where it ran.
    """

    key: str
    sweep: str
    status: str = RUNNING
    seconds: float = 0.0
    error: str | None = None
    mendable: bool = True
    files: dict[str, list[int]] = field(default_factory=dict)
    process: str = ""

    def write(self, folder: Path) -> None:
        text = json.dumps(vars(self), indent=1)
        replace_file(folder / OUTCOME_FILE, lambda path: path.write_text(text))

    @staticmethod
    def read(folder: Path) -> Outcome | None:
        """The outcome noted in `folder`; None where there is none that can be read."""
        try:
            return Outcome(**json.loads((folder / OUTCOME_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def is_done(folder: Path, key: str) -> bool:
    """Whether the job of this key is done and what it left is there, as it left it; a look at a few small files."""
    outcome = Outcome.read(folder)
    if outcome is None or outcome.status != DONE or outcome.key != key or not outcome.files:
        return False
    return all(_unchanged(Path(name), was) for name, was in outcome.files.items())


def _unchanged(path: Path, was: Sequence[int]) -> bool:
    now = _state(path)
    if now is None or len(now) != len(was):
        return False
    return now[0] >= was[0] if len(was) == 1 else now == list(was)  # jobs may share a table, which only grows


def _state(path: Path) -> list[int] | None:
    if path.name == RESULTS_FILE:
        import pyarrow.parquet as pq

        try:
            return [pq.read_metadata(path).num_rows]
        except (OSError, ValueError):  # pyarrow's own errors are both
            return None
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _left(folders: Sequence[Path]) -> dict[str, list[int]]:
    places = dict.fromkeys(folder / name for folder in folders for name in (*_PRODUCTS, RESULTS_FILE))
    return {str(path): state for path in places if (state := _state(path)) is not None}


@dataclass(frozen=True)
class Job:
    """Hydra's task function for the jobs of a sweep; launchers pickle it into other processes.

    It returns whatever happens, so that no launcher stops for it; the outcome is in the job's folder. What is printed
    and logged goes to the job's log.

    Args:
        command: which `guardtrain` command.
        sweep: this start of the sweep.
        keys: of each job, by its folder's name.
        threads: for each job; None leaves torch its own choice.
        gpus: each process takes one of these for itself; none where the launcher hands them out, or there are none.
        locks: folder of the GPUs' locks.
        driver: the process whose children work on the jobs and end with it, killed or not; None where the launcher sees
            to its processes.
        own: folders of the user's own modules.
        configs: folder of the user's own configs.
    """

    command: str
    sweep: str
    keys: Mapping[str, str]
    threads: int | None = None
    gpus: tuple[str, ...] = ()
    locks: str = ""
    driver: int | None = None
    own: tuple[str, ...] = ()
    configs: Path | None = None

    def settle(self) -> None:
        """Make this process one in which the job can work, wherever a launcher started it."""
        from guardtrain.commands.process import prepare_process

        prepare_process()
        make_importable(self.own)
        set_own_configs(self.configs)

    def __call__(self, config: DictConfig) -> None:
        self.settle()
        if self.driver is not None:
            _end_with(self.driver)
        self._take_threads()
        self._take_gpu()
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        key = self.keys[folder.name]
        with FileLock(folder / _LOCK):  # a process of a killed sweep may still be at it
            outcome = Outcome.read(folder) if is_done(folder, key) else None
            if outcome is None:
                outcome = self._work(config, folder, key, folder / f"{hydra.job.name}.log")
            else:
                outcome.sweep = self.sweep
            outcome.write(folder)

    def _work(self, config: DictConfig, folder: Path, key: str, file: Path) -> Outcome:
        outcome = Outcome(key, self.sweep, process=f"{os.getpid()} on {socket.gethostname()}")
        outcome.write(folder)
        with elapsed.of_its_own(), _output_to(file):
            try:
                importlib.import_module(_module(self.command)).run(config)
                outcome.status = DONE
                outcome.files = _left([folder, Path(config.get("out") or folder).absolute()])
            except (Exception, SystemExit) as error:
                if isinstance(error, SystemExit) and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
                    log.warning("told to end before it was done; SLURM knows whether it starts again")
                    raise
                why = why_unwritten(error, written_folders(config))
                if why is not None or isinstance(error, GuardtrainError | OSError):
                    outcome.status, outcome.error = FAILED, why or str(error)
                    log.error("%s", outcome.error)
                else:
                    outcome.status, outcome.error = FAILED, f"{type(error).__name__}: {error}"
                    own = place_in_own(error)
                    outcome.mendable = bool(own)
                    log.exception(
                        f"these lines lead to {own}, which is yours."
                        if own
                        else "this is a bug in guardtrain; please report these lines."
                    )
            outcome.seconds = elapsed.seconds()
        return outcome

    def _take_threads(self) -> None:
        if self.threads is None:
            return
        given = os.environ.get("OMP_NUM_THREADS", "")
        threads = min(self.threads, int(given)) if given.isdigit() and int(given) else self.threads
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)

    def _take_gpu(self) -> None:
        """One GPU for this process, before torch looks for any; the system gives it back when the process dies."""
        if not self.gpus or _taken:
            return
        Path(self.locks, _GPU_LOCKS).mkdir(parents=True, exist_ok=True)
        for gpu in self.gpus:
            lock = FileLock(Path(self.locks, _GPU_LOCKS, f"{gpu}.lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            break
        else:  # more processes than GPUs were asked for
            gpu, lock = self.gpus[os.getpid() % len(self.gpus)], None
        _taken.append((gpu, lock))
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


_taken: list[tuple[str, FileLock | None]] = []


@cache
def _end_with(driver: int) -> None:
    """End this process when `driver`, its parent, has: a sweep that was killed goes on with no job."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    if os.getpid() != driver:
        Thread(target=watch, daemon=True).start()
        # as the command itself does: Python's own clean-up of all that was imported takes two seconds
        atexit.register(os._exit, 0)


def make_ready(command: str, driver: int) -> None:
    """Import what the jobs of a command need into a process that is to work on some.

    Args:
        command: which.
        driver: the process whose child this is.
    """
    from guardtrain.commands.process import prepare_process

    prepare_process()
    _end_with(driver)
    importlib.import_module(_module(command))
    import_quickly("lightning", "pandas")


def _module(command: str) -> str:
    return f"guardtrain.commands.{command.replace('-', '_')}"


class _Follower(io.TextIOBase):
    """A stream to the log of the job at work: who keeps it writes to the next job's log later on."""

    def __init__(self) -> None:
        self.file: TextIO | None = None

    def write(self, text: str) -> int:
        return (self.file or sys.__stderr__ or io.StringIO()).write(text)

    def flush(self) -> None:
        if self.file is not None:
            self.file.flush()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"


_follower = _Follower()


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Print to `path`; what is logged goes there by Hydra's own handler, and to no terminal."""
    terminals = [one for one in logging.root.handlers if type(one) is logging.StreamHandler]
    for handler in terminals:
        logging.root.removeHandler(handler)
    with path.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(_follower), redirect_stderr(_follower):
        _follower.file = file
        try:
            yield
        finally:
            _follower.file = None
            for handler in terminals:
                logging.root.addHandler(handler)


def describe(outcome: Outcome | None, folder: Path) -> str:
    """Why the job in `folder` failed, in a line."""
    if outcome is None or outcome.status == RUNNING:
        if is_full(folder):  # it could not note its end
            return reason(errno.ENOSPC, folder)
        return "its process ended before it did (out of memory, or killed?)"
    lines: list[Any] = (outcome.error or "").splitlines() or ["no reason is known"]
    return str(lines[0])
