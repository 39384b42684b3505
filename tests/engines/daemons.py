"""Programs that a test starts and that end with it, also where it is interrupted or killed."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_WAIT_SECONDS = 60.0


@contextmanager
def daemon(
    command: Sequence[str],
    log: Path,
    *,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    seconds: float = _WAIT_SECONDS,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that stays in the foreground until the block ends; Linux ends it where this process is killed.

    Args:
        command: and its arguments.
        log: what it prints is appended there.
        ready: whether it does its work; asked until it says so.
        env: more of the environment.
        seconds: that it may take.

    Raises:
        RuntimeError: it ended, or was not ready in time; with the end of its log.
    """
    parent = os.getpid()

    def end_with_parent() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,  # Ctrl-C is for the test, which ends it in its turn
            preexec_fn=end_with_parent,
        )
    try:
        begun = f"{' '.join(command[:3])} to be ready"
        wait_for(lambda: ready() or process.poll() is not None, begun, lambda: _end_of(log), seconds=seconds)
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{_end_of(log)}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(
    condition: Callable[[], bool], what: str, about: Callable[[], str] = str, *, seconds: float = _WAIT_SECONDS
) -> None:
    """Ask until it is so.

    Raises:
        RuntimeError: it was not in the time given; `about` says more.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {seconds:.0f} s for {what}\n{about()}")
        time.sleep(0.2)


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def listens(port: int) -> bool:
    """Whether something on this machine takes connections at a port."""
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
