"""A sweep's jobs in SLURM's queue: each is followed to its end, also on clusters that keep no accounts of jobs."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

# States after which SLURM does nothing more with a job; a job that is to run again is PENDING or REQUEUED.
_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
_ENDED |= {"PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"}
_LOOK_SECONDS = 1.0  # between two looks at the jobs' notes
_ASK_SECONDS = (2.0, 30.0)  # between two questions to SLURM: at first, and after a while
_LATE_SECONDS = 15.0  # that a note may take to be seen over a network's file system
_ASK_LIMIT = 60.0


class Submitted(Protocol):
    """A job that submitit has sent to SLURM."""

    @property
    def job_id(self) -> str: ...


def launch(
    launcher: Any,
    overrides: Sequence[Sequence[str]],
    first: int,
    ended: Callable[[int], bool],
    lost: Callable[[int, str], None],
    say: Callable[[str], None],
) -> None:
    """Hand jobs to SLURM by Hydra's launcher, and wait for the end of each.

    submitit would wait for what `sacct` says, which on clusters without accounts is nothing: for a job that was
    cancelled it would wait for ever. And of the first job that ended without a result it would wait for no other.

    Args:
        launcher: of hydra-submitit-launcher.
        overrides: of each job.
        first: the number of the first job among all of the sweep.
        ended: whether the job at this place has noted its end.
        lost: told of the job at this place that is over and has noted no end, and why.
        say: told what the user should know, a line a call.
    """
    with _instead_of_waiting(lambda jobs: follow(jobs, ended, lost, say)):
        launcher.launch(overrides, initial_job_idx=first)


@contextmanager
def _instead_of_waiting(wait: Callable[[Sequence[Submitted]], None]) -> Iterator[None]:
    """Within the block submitit's jobs are given to `wait` when they are submitted, and the launcher has none left."""
    from submitit import AutoExecutor

    executors: Any = AutoExecutor
    submit = executors.map_array

    def submit_and_wait(executor: Any, *arguments: Any) -> list[Any]:
        wait(submit(executor, *arguments))
        return []

    executors.map_array = submit_and_wait
    try:
        yield
    finally:
        executors.map_array = submit


def follow(
    jobs: Sequence[Submitted],
    ended: Callable[[int], bool],
    lost: Callable[[int, str], None],
    say: Callable[[str], None],
) -> None:
    """Wait until each job has noted its end, or is over in SLURM without; see `launch`."""
    left = dict(enumerate(jobs))
    over: dict[int, float] = {}  # since when, of jobs that have noted no end
    wait, silent = _ASK_SECONDS[0], 0
    asked = time.monotonic()
    try:
        while left := {i: job for i, job in left.items() if not ended(i)}:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if now - asked < wait:
                continue
            asked, wait = now, min(_ASK_SECONDS[1], wait * 1.5)
            try:
                states = states_in_queue()
            except (OSError, subprocess.SubprocessError) as error:
                silent += 1
                if silent == 2:  # one is the controller's restart
                    say(f"SLURM does not answer ({_reason(error)}); its jobs may still run, so this waits for them")
                continue
            silent = 0
            for i, job in left.items():
                state = states.get(job.job_id)
                if state is not None and state not in _ENDED:
                    over.pop(i, None)
                elif now - over.setdefault(i, now) >= _LATE_SECONDS and not ended(i):
                    lost(i, _why(job.job_id, state))
            if over:
                wait = _ASK_SECONDS[0]
    except KeyboardInterrupt:
        mine = sorted({job.job_id.partition("_")[0] for job in left.values()})
        say(f"what is left of them stays in SLURM's queue; to end it: scancel {shlex.join(mine)}")
        raise


def states_in_queue() -> dict[str, str]:
    """The state of each of this user's jobs that SLURM remembers, in its words, by the job's id.

    Jobs that ended are remembered for some minutes, without any accounts.

    Raises:
        OSError: there is no `squeue` here.
        SubprocessError: SLURM does not answer.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i %T"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_LIMIT, check=True)
    return dict(words for line in done.stdout.splitlines() if len(words := line.split()) == 2)  # type: ignore[misc]


def _why(job: str, state: str | None) -> str:
    if state is None:  # SLURM forgets a task of an array at once that is cancelled before it starts
        return f"SLURM's job {job} is gone from the queue without a result: cancelled while it waited?"
    return f"SLURM's job {job} left no result: {state}"


def _reason(error: Exception) -> str:
    """Return what SLURM's program said, else what Python says of it."""
    said = str(getattr(error, "stderr", None) or "").strip().splitlines()
    return said[-1] if said else str(error)
