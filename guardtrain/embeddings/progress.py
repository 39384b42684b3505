"""How an extraction shows how far it is: a bar on a terminal, elsewhere a line at the start and the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def reported(
    progress: bool | None,
    total: int,
    done: int,
    what: str,
    kind: str = "images",
    verbs: tuple[str, str] = ("Embedding", "Embedded"),
) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, or one line at the start and one at the end.

    Args:
        progress: a bar, True or False; None shows one on a terminal.
        total, done: rows, and those that were done before.
        what: is embedded.
        kind: what the rows are.
        verbs: what is done, and was.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if progress is False:
        yield lambda rows: None
        return
    if progress or console.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(f"{verbs[0]} {what}", total=total, completed=done)
            yield lambda rows: bar.advance(task, rows)
        return
    started = time.perf_counter()
    kept = f", {done:,} done before" if done else ""
    print(f"{verbs[0]} {what}: {total:,} {kind}{kept}", file=sys.stderr, flush=True)
    yield lambda rows: None
    seconds = time.perf_counter() - started
    rate = (total - done) / max(seconds, 1e-9)
    print(f"{verbs[1]} {total - done:,} {kind} in {seconds:.1f} s ({rate:.0f} a second)", file=sys.stderr, flush=True)
