"""Connections under limits: none is held longer than a request takes, and one that asks nothing makes room for others.

uvicorn gives an idle connection its time, but none to a request's head and none to an answer that nobody reads; it
takes any number of connections, heads of any size, and any number of requests at once. What it lacks is here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from enum import Enum
from functools import cache
from http import HTTPStatus
from typing import ClassVar

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from guardtrain.guards.serving.problems import Problem

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0  # between two requests
_MAX_HEAD = 64 * 1024  # bytes of a request's line and headers, after the first read
_MAX_PIPELINED = 16  # requests that are sent before the first has its answer
_SOONEST = 0.75  # of the time for a head
_SURPLUS = 64  # connections over the limit that may be told so


class Stage(Enum):
    """The states of a connection."""

    IDLE = "idle"  # between two requests
    HEAD = "head"  # a request's line and headers are awaited
    BODY = "body"  # the rest of the request is awaited
    ANSWER = "answer"  # the request is there, and its answer worked out or read
    REST = "rest"  # the request goes on, though it has its answer


class Connections:
    """The connections of a server, and what they may take.

    Where there are as many as may be, one that is only held makes room for a new one: the one that has waited longest
    without a request, else the one whose request has been arriving longest. Connections that ask nothing, or never
    come to an end of it, keep nobody out. Where all requests are there and being answered, a new one is told so (503).

    Args:
        limit: how many there may be.
        head_s: most seconds for a request's line and headers, from the connection or from their first byte.
        request_s: seconds for the rest of a request, and as many for its answer and its being read.
        count: told why a connection was ended: `slow`, `unused` (it made room), `refused`.
    """

    def __init__(self, limit: int, head_s: float, request_s: float, count: Callable[[str], object]) -> None:
        self.limit, self.count, self.number = limit, count, 0
        self.seconds = {
            Stage.IDLE: IDLE_SECONDS,
            Stage.HEAD: head_s,
            Stage.BODY: request_s,
            Stage.ANSWER: request_s,
            Stage.REST: head_s,
        }
        # those that may make room, the longest first
        self._unused: dict[LimitedProtocol, None] = {}
        self._arriving: dict[LimitedProtocol, None] = {}
        self._surplus: dict[LimitedProtocol, None] = {}

    def protocol(self) -> type[LimitedProtocol]:
        """The class for `uvicorn.Config(http=…)`."""

        class Protocol(LimitedProtocol):
            shared = self

        return Protocol

    def make_room(self, new: LimitedProtocol) -> bool:
        """Whether the new connection may ask; if not, it is told so where it does."""
        self.number += 1
        if self.number <= self.limit:
            return True
        held = next(iter(self._unused), None) or next(iter(self._arriving), None)
        if held is None:
            self._surplus[new] = None
            if len(self._surplus) > _SURPLUS:
                next(iter(self._surplus)).end("refused")
            return False
        log.warning("there are %d connections, the most there may be: those without a request make room", self.limit)
        held.end("unused")
        return True

    def settle(self, one: LimitedProtocol, stage: Stage) -> None:
        """Note that the connection may have to make room, or no longer."""
        self.forget(one)
        if stage is Stage.BODY:
            self._arriving[one] = None
        elif stage is not Stage.ANSWER:
            self._unused[one] = None

    def lost(self, one: LimitedProtocol) -> None:
        """Note that the connection has ended."""
        self.number -= 1
        self.forget(one)

    def forget(self, one: LimitedProtocol) -> None:
        """Note that the connection makes no room, for it is ending or has a request."""
        for some in (self._unused, self._arriving, self._surplus):
            some.pop(one, None)


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol of a connection, under the limits of `Connections`."""

    shared: ClassVar[Connections]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stage: Stage | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._in_head, self._in_message, self._head_bytes = True, False, 0
        self._admitted = self.shared.make_room(self)
        if not self._admitted:
            self.app = _no_room  # told once its request is there: an answer before it is often lost
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.shared.lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _MAX_HEAD and not self.transport.is_closing():
            self._say(431, "The request's line and headers are longer than a request needs.")
        self._settle()

    def on_message_begin(self) -> None:
        self._in_head, self._in_message, self._head_bytes = True, True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after a body in chunks there may be more of them, without end, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.pipeline) >= _MAX_PIPELINED:
            self.end("refused")
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._stage = None  # the next of several requests has its own time
        self._settle()

    def send_400_response(self, msg: str) -> None:
        self._say(400, "This is no HTTP request.")

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def end(self, why: str) -> None:
        """End the connection, and count it."""
        if not self._ended:
            self._ended = True
            self.shared.count(why)
        self.shared.forget(self)
        self._close()

    def _settle(self) -> None:
        """Give what comes next its time."""
        if self.transport.is_closing() or (stage := self._at()) is self._stage:
            return
        self._stage = stage
        if self._timer is not None:
            self._timer.cancel()
        seconds = self.shared.seconds[stage]
        if stage is Stage.HEAD:  # those that came together do not end together, and come again together
            seconds *= random.uniform(_SOONEST, 1.0)
        self._timer = self.loop.call_later(seconds, self._too_slow)
        if self._admitted:
            self.shared.settle(self, stage)

    def _at(self) -> Stage:
        if self.cycle is not None and not self.cycle.response_complete:
            return Stage.BODY if self.cycle.more_body else Stage.ANSWER
        if self._in_head:
            return Stage.HEAD
        return Stage.REST if self._in_message else Stage.IDLE

    def _too_slow(self) -> None:
        stage = self._at()
        if stage is Stage.IDLE:
            self._close()
            return
        seconds = self.shared.seconds[stage]
        log.warning("a connection was ended: what comes next (%s) took over %g seconds", stage.value, seconds)
        if stage is Stage.HEAD and self._in_message and not self.transport.is_closing():
            self._say(408, f"The request's line and headers did not arrive within {seconds:g} seconds.")
        self.end("slow")

    def _say(self, status: int, detail: str) -> None:
        self.transport.write(_written(status, detail))
        self.transport.close()

    def _close(self) -> None:
        # what nobody reads would never be sent, and the connection never end
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()


async def _no_room(scope: Scope, receive: Receive, send: Send) -> None:
    problem = Problem(503, "There are as many connections as this service takes, and all have requests.")
    await problem.response({"Connection": "close"})(scope, receive, send)


@cache
def _written(status: int, detail: str) -> bytes:
    """A whole answer, after which the connection is closed."""
    response = Problem(status, detail).response({"Connection": "close"})
    head = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    head += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join([*head, b"", bytes(response.body)])
