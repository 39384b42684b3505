"""The Optuna study of a search in SQLite: many processes may work on it, and each may be killed at any moment."""

from __future__ import annotations

import json
import os
import socket
import uuid
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError

from guardtrain.curves.tuning.space import Parameter, Value, grid, suggest
from guardtrain.errors import ConfigError, DataError

STUDY_FILE = "study.db"
_NAME = "guardtrain"
_LOCKS = ".workers"
_WORKER, _AGAIN, _POINT = "worker", "again", "point"
_REASON, _SCORES, _BY_SEED, _SECONDS = "reason", "scores", "by_seed", "seconds"
_LATER = ("validation",)  # what older studies do not know of themselves: they are taken to be of what is found
_WAIT = 120.0  # seconds for a database that another process writes to

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Trial:
    """A trial of the study.

    Args:
        number: in the study.
        values: its parameters.
        score: None where it is not finished, or failed.
        scores: by seed and fold, a single one without folds; NaN (None in the study) where nothing was judged.
        by_seed: the score of each seed, whose mean `score` is: folds are as heavy in it as they have images.
        seconds: its share of the time its batch took.
        reason: why it failed.
    """

    number: int
    values: Mapping[str, Value]
    score: float | None = None
    scores: Sequence[Sequence[float]] = field(default_factory=list)
    by_seed: Sequence[float] = field(default_factory=list)
    seconds: float = 0.0
    reason: str = ""


class Search:
    """A study in a folder, and this process's part in it.

    A trial belongs to the process that asked for it, which holds a lock file for as long as it lives; the system frees
    it however the process ends. Trials of processes that are gone are asked for again, with the same parameters.
    What a trial's parameters are depends on the seed, the trials finished and under way, and nothing else.

    Args:
        folder: of `study.db`; made if missing.
        space: the parameters.
        sampler: `tpe`, `random` or `grid`.
        seed: of the sampler.
        minimise: whether a lower score is better.
        about: all that decides a score, as plain data by name; a study of something else is refused.

    Raises:
        ConfigError: the folder holds a study of another search.
        DataError: the file is no study.
    """

    def __init__(
        self,
        folder: Path,
        space: Sequence[Parameter],
        *,
        sampler: str,
        seed: int,
        minimise: bool,
        about: Mapping[str, Any],
    ) -> None:
        self.space, self.sampler, self.seed, self.minimise = space, sampler, seed, minimise
        self._folder = folder
        self._asked: dict[int, optuna.Trial] = {}
        (folder / _LOCKS).mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".study.lock")
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._alive = FileLock(self._lock_of(self._worker))
        self._alive.acquire()
        self.points = grid(space) if sampler == "grid" else None
        try:
            with self._lock:
                self._study = self._open(folder / STUDY_FILE)
                self._check(json.loads(json.dumps(about)))
                self._enqueue_grid()
        except DatabaseError as error:
            raise DataError(
                f"{folder / STUDY_FILE} is no study that Optuna can read ({str(error).splitlines()[0]}). Move it away "
                "to start over, or give another out=PATH."
            ) from None

    def _open(self, path: Path) -> optuna.Study:
        # SQLite waits for other writers; all writing of ours is under one lock besides
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": _WAIT}}
        )
        direction = StudyDirection.MINIMIZE if self.minimise else StudyDirection.MAXIMIZE
        return optuna.create_study(storage=storage, study_name=_NAME, direction=direction, load_if_exists=True)

    def _check(self, about: Mapping[str, Any]) -> None:
        known = self._study.user_attrs.get("search")
        if known is None:
            self._study.set_user_attr("search", about)
            return
        if added := {name: about[name] for name in _LATER if name in about and name not in known}:
            known = {**known, **added}
            self._study.set_user_attr("search", known)
        different = [name for name in {**known, **about} if known.get(name) != about.get(name)]
        if different:
            raise ConfigError(
                f"{self._folder} holds a search that differs in {', '.join(different)}: its trials cannot be compared "
                "with these. Give another out=PATH, or move the folder away."
            )

    def _enqueue_grid(self) -> None:
        if self.points is None:
            return
        there = {trial.user_attrs.get(_POINT) for trial in self._trials()}
        for number in np.random.default_rng(self.seed).permutation(len(self.points)).tolist():
            if number not in there:
                self._study.enqueue_trial(dict(self.points[number]), user_attrs={_POINT: number})

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self._alive.release()
        self._lock_of(self._worker).unlink(missing_ok=True)

    def locked(self, name: str) -> AbstractContextManager[Any]:
        """A lock of this folder, for what one process at a time may do."""
        return FileLock(self._folder / f".{name}.lock")

    def ask(self, batch: int, trials: int) -> list[Trial]:
        """The next trials for this process: at most `batch`, and of all processes together no more than `trials`."""
        with self._lock:
            self._bury()
            counted = sum(_counts(trial) for trial in self._trials())
            asked = []
            for number in range(counted, min(counted + batch, self.most(trials))):
                # a sampler anew for each: what it draws then does not depend on when a process was started
                self._study.sampler = self._sampler(number)
                trial = self._study.ask()
                trial.set_user_attr(_WORKER, self._worker)
                self._asked[trial.number] = trial
                asked.append(Trial(trial.number, suggest(trial, self.space)))
            return asked

    def most(self, trials: int) -> int:
        """How many trials there will be of `trials` asked for: no more than a grid has points."""
        return trials if self.points is None else min(trials, len(self.points))

    def tell(self, trials: Sequence[Trial]) -> None:
        """Note what became of trials that this process asked for; one without a score has failed."""
        with self._lock:
            for trial in trials:
                mine = self._asked.pop(trial.number)
                mine.set_user_attr(_SECONDS, trial.seconds)
                mine.set_user_attr(_SCORES, [_kept(row) for row in trial.scores])
                mine.set_user_attr(_BY_SEED, _kept(trial.by_seed))
                mine.set_user_attr(_REASON, trial.reason)
                state = TrialState.FAIL if trial.score is None else TrialState.COMPLETE
                self._study.tell(mine, trial.score, state=state)

    def read(self) -> list[Trial]:
        """Every trial that is finished or failed for a reason of its own, best first, those that failed last."""
        found = []
        for trial in self._trials():
            if trial.state not in (TrialState.COMPLETE, TrialState.FAIL) or not _counts(trial):
                continue
            attributes = trial.user_attrs
            scores = [_read(row) for row in attributes.get(_SCORES, [])]
            # of an older guardtrain, which did not keep how heavy its folds were: near, where these are of about a size
            by_seed = [float(np.nanmean(row)) if not np.isnan(row).all() else np.nan for row in scores]
            found.append(
                Trial(
                    trial.number,
                    trial.params,
                    trial.value if trial.state == TrialState.COMPLETE else None,
                    scores,
                    _read(attributes[_BY_SEED]) if _BY_SEED in attributes else by_seed,
                    attributes.get(_SECONDS, 0.0),
                    attributes.get(_REASON, ""),
                )
            )
        sign = 1 if self.minimise else -1
        return sorted(found, key=lambda t: (t.score is None, sign * (t.score or 0.0), t.number))

    def under_way(self) -> int:
        """How many trials other processes are at now."""
        with self._lock:
            self._bury()
            return sum(trial.state == TrialState.RUNNING for trial in self._trials())

    def _bury(self) -> None:
        """Ask again for trials of processes that are gone."""
        trials = self._trials()
        asked_again = {trial.user_attrs.get(_AGAIN) for trial in trials}
        gone: dict[str, bool] = {}
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            worker = str(trial.user_attrs.get(_WORKER, ""))
            if worker not in gone:
                gone[worker] = worker != self._worker and self._is_gone(worker)
            if not gone[worker]:
                continue
            # first the new one, then the end of the old one: killed between the two, it is found here again
            if trial.number not in asked_again and trial.params:
                attributes = {_AGAIN: trial.number}
                attributes |= {_POINT: trial.user_attrs[_POINT]} if _POINT in trial.user_attrs else {}
                self._study.enqueue_trial(dict(trial.params), user_attrs=attributes)
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _is_gone(self, worker: str) -> bool:
        if not worker:
            return True  # killed while it asked, which nobody does without our lock
        path = self._lock_of(worker)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        path.unlink(missing_ok=True)
        return True

    def _lock_of(self, worker: str) -> Path:
        return self._folder / _LOCKS / f"{worker}.lock"

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.sampler != "tpe":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # trials of one batch know nothing of one another's scores: the liar keeps them apart
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True, group=True)


def _kept(values: Sequence[float]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def _read(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those asked for: finished, under way, or failed for a reason of its own."""
    if trial.state == TrialState.FAIL:
        return bool(trial.user_attrs.get(_REASON))
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
