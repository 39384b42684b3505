"""How long a command has taken, from its start: what it says at its end must agree with the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_begun = time.perf_counter()


def begin() -> None:
    """Count from now on: a command starts."""
    global _begun
    _begun = time.perf_counter()


@contextmanager
def of_its_own() -> Iterator[None]:
    """Count from now on, and afterwards as before: a job of a sweep tells of itself alone."""
    global _begun
    before = _begun
    begin()
    try:
        yield
    finally:
        _begun = before


def seconds() -> float:
    """Seconds since the command, or the job, began."""
    return time.perf_counter() - _begun
