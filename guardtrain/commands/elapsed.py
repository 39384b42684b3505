"""How long a command has taken, from its start: what it says at its end must agree with the clock on the wall."""

from __future__ import annotations

import time

_begun = time.perf_counter()


def begin() -> None:
    """Count from now on; a command (or a job of a sweep, which tells of itself) starts here."""
    global _begun
    _begun = time.perf_counter()


def seconds() -> float:
    """Seconds since the command began."""
    return time.perf_counter() - _begun
