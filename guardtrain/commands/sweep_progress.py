"""What a sweep tells while its jobs run: a line where one ends, and once in a while how long the rest may take."""

from __future__ import annotations

import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from guardtrain.commands.job import DONE, FAILED, Outcome, describe
from guardtrain.commands.sweep_plan import Planned
from guardtrain.files import replace_file

FAILED_FILE = "failed.txt"  # in the sweep's folder: log and reason of each job that failed
_LOOK_SECONDS = 0.3  # between two looks at the jobs' notes, and as much again for each hundred of them
_ESTIMATE_SECONDS = 60.0
_SHOWN = 5  # logs of one reason
_WIDTH = 100


class Progress:
    """Tells of each job that ends, wherever it runs: of this process, others, or other machines that share the folder.

    Args:
        jobs: all of them.
        outcome_of: what became of a job in this sweep; None where nothing has yet.
    """

    def __init__(self, jobs: Sequence[Planned], outcome_of: Callable[[Planned], Outcome | None]) -> None:
        self._left, self._outcome_of = list(jobs), outcome_of
        self._total, self._ended, self._failed = len(jobs), 0, 0
        self._waiting = True  # no job has begun, and nobody was told
        self._started = self._told = time.monotonic()
        self._terminal = sys.stdout  # as it is now: a job of this very process sends it to its log
        self._over = Event()
        self._thread = Thread(target=self._watch, name="sweep progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS * (1 + len(self._left) / 100)):
            self._look()
            now = time.monotonic()
            if now - self._told >= _ESTIMATE_SECONDS and self._ended and self._left:
                self._told = now
                left = _duration((now - self._started) / self._ended * len(self._left))
                failed = f", {self._failed} of them failed" if self._failed else ""
                self._print(f"{self._ended} of {self._total} jobs ended{failed}; about {left} to go")
            elif self._waiting and now - self._started >= _ESTIMATE_SECONDS:
                self._waiting = False
                self._print(f"no job has begun in {_duration(now - self._started)}: there is no room for one yet")

    def _look(self) -> None:
        left = []
        for job in self._left:
            outcome = self._outcome_of(job)
            self._waiting &= outcome is None
            if outcome is None or outcome.status not in (DONE, FAILED):
                left.append(job)
                continue
            self._ended += 1
            count = f"{self._ended:>{len(str(self._total))}}/{self._total}"
            why = ""
            if outcome.status == FAILED:
                self._failed += 1
                why = f": {textwrap.shorten(describe(outcome, job.folder), _WIDTH, placeholder=' …')}"
            self._print(f"{outcome.status:<7} {outcome.seconds:6.1f} s  {count}  {job.label}{why}")
        self._left = left

    def _print(self, line: str) -> None:
        print(line, file=self._terminal, flush=True)


def _duration(seconds: float) -> str:
    """Roughly, in words.

    >>> _duration(40), _duration(600), _duration(9000)
    ('1 min', '10 min', '2.5 h')
    """
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def tell_failed(base: Path, failed: Sequence[Planned]) -> None:
    """List the jobs that failed with their logs, by reason; all of them also in `failed.txt`, a line a job."""
    file = base / FAILED_FILE
    if not failed:
        file.unlink(missing_ok=True)
        return
    by_reason: dict[str, list[Planned]] = defaultdict(list)
    for job in failed:
        by_reason[describe(Outcome.read(job.folder), job.folder)].append(job)
    lines = [f"{job.log}\t{reason}" for reason, jobs in by_reason.items() for job in jobs]
    with suppress(OSError):  # on a full disk it need not stand there as well
        replace_file(file, lambda path: path.write_text("\n".join([*lines, ""]), encoding="utf-8"))
    cut = False
    for reason, jobs in by_reason.items():
        if len(jobs) == 1:
            print(f"  {jobs[0].log}: {reason}")
            continue
        print(f"  {len(jobs)} jobs: {reason}")
        for job in jobs[:_SHOWN]:
            print(f"    {job.log}")
        if len(jobs) > _SHOWN:
            cut = True
            print(f"    and {len(jobs) - _SHOWN} more")
    if cut:
        print(f"  all of them: {file}")
