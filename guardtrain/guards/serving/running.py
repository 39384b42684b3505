"""Running the service: one process, one event loop, and an end that answers what was taken."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from guardtrain.errors import ConfigError
from guardtrain.guards.serving.connections import IDLE_SECONDS
from guardtrain.guards.serving.service import GuardService

log = logging.getLogger(__name__)

_BACKLOG = 4096  # more than come at once: one that finds no place is tried again after 1, 3, 7 seconds
_AT_ONCE = 32  # connections that are taken off the queue before those taken are looked at; a quarter of _OWN_FILES
_MOST_FILES = 65_536  # that a process asks for: some systems allow a thousand million
_OWN_FILES = 128  # for all but connections, and for those that are told that there are too many
_LOGGERS = ("uvicorn.error", "asyncio", "guardtrain.guards.serving.connections")  # that say what clients do
_SILENCE = 60.0  # seconds


def serve(app: FastAPI, service: GuardService, started: Callable[[str], object]) -> None:
    """Listen and answer until SIGINT or SIGTERM; then take nothing more, answer what was taken, and return.

    Args:
        app: the application.
        service: the guard behind it; host, port and limits are in its settings.
        started: told the address, as soon as requests are taken.

    Raises:
        ConfigError: the address is not to be had.
    """
    settings, connections = service.settings, service.connections
    listening = _bound(settings.host, settings.port)
    with listening, seldom(_LOGGERS):
        if (room := files_left()) < connections.limit:
            log.warning(
                "at most %d connections, not %d: this process may have no more files open (ulimit -n)",
                room,
                connections.limit,
            )
            connections.limit = room
        host, port = listening.getsockname()[:2]
        gc.collect()
        gc.freeze()  # what is there stays: to look through all of torch takes the collector half a second each time
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        with _signals_spent():
            server_of(app, service).run(sockets=[listening])


def server_of(app: FastAPI, service: GuardService) -> uvicorn.Server:
    """uvicorn's server, as the service runs it."""
    config = uvicorn.Config(
        app,
        http=service.connections.protocol(),
        log_level="warning",
        access_log=False,  # what clients send is nobody's to read
        server_header=False,
        timeout_keep_alive=round(IDLE_SECONDS),
        timeout_graceful_shutdown=max(1, round(service.settings.shutdown_s)),
        backlog=_AT_ONCE,
        log_config=None,
        ws="none",
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Takes connections off a long queue, a few at a time.

    asyncio takes as many at once as it is told that the queue holds, each with a descriptor, before the first of them
    is looked at and one that only waits makes room for it. Out of descriptors it stops listening for a second, and then
    is out of them again: with a hard limit of 1,024 ordinary requests waited for half a minute.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for taken in (one for server in getattr(self, "servers", ()) for one in server.sockets):
            with socket.fromfd(taken.fileno(), taken.family, taken.type) as same:
                same.listen(_BACKLOG)


def files_left() -> int:
    """How many connections the process may have open, once it may have as many files as the system lets it ask for."""
    try:
        import resource
    except ImportError:  # Windows knows no such limit
        return _MOST_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY:
        soft = _MOST_FILES
    here = Path("/dev/fd")
    already = len(list(here.iterdir())) if here.is_dir() else 0
    return max(1, soft - already - _OWN_FILES)


@contextlib.contextmanager
def seldom(names: tuple[str, ...], seconds: float = _SILENCE) -> Iterator[None]:
    """Count, and do not print, what these loggers say again within so many seconds."""
    filters = [(logging.getLogger(name), _Seldom(seconds)) for name in names]
    for logger, one in filters:
        logger.addFilter(one)
    try:
        yield
    finally:
        for logger, one in filters:
            logger.removeFilter(one)


class _Seldom(logging.Filter):
    """Lets a message through once in a while, with how often it came meanwhile: clients cannot fill the log."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.levelno, *_kind(record))
        now = time.monotonic()
        last, held = self._seen.get(key, (-self._seconds, 0))
        if now - last < self._seconds:
            self._seen[key] = last, held + 1
            return False
        if len(self._seen) >= 1000:
            self._seen.clear()
        self._seen[key] = now, 0
        if held:
            record.msg, record.args = f"{record.getMessage()} (and {held:,} more like it)", ()
        return True


def _kind(record: logging.LogRecord) -> tuple[object, ...]:
    """Equal for what a person would call the same message: its beginning, and where its error was raised."""
    trace = record.exc_info[2] if isinstance(record.exc_info, tuple) else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = () if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
    return (str(record.msg)[:40], *place)


@contextlib.contextmanager
def _signals_spent() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more at the end; by then it has done what was asked of it."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens already: whoever is told the address can connect."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once (TCP_NODELAY) only on sockets that say they are TCP: else 40 ms later
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. Give another with host=… port=…; port=0 "
            "takes a free one."
        ) from error
    return sock
