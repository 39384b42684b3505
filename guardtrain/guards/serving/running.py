"""Running the service: one process, one event loop, and an end that answers what was taken."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from guardtrain.errors import ConfigError
from guardtrain.guards.serving.settings import ServeSettings

_BACKLOG = 512


def serve(app: FastAPI, settings: ServeSettings, started: Callable[[str], object]) -> None:
    """Listen and answer until SIGINT or SIGTERM; then take nothing more, answer what was taken, and return.

    Args:
        app: the application.
        settings: host, port and how long the end may take.
        started: told the address, as soon as requests are taken.

    Raises:
        ConfigError: the address is not to be had.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # what clients send is nobody's to read
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_s)),
        backlog=_BACKLOG,
        log_config=None,
        ws="none",
    )
    listening = _bound(settings.host, settings.port)
    with listening:
        host, port = listening.getsockname()[:2]
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        with _signals_spent():
            uvicorn.Server(config).run(sockets=[listening])


@contextmanager
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
