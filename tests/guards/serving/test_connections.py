"""Connections that are held, trickle, flood or never read: what they are told, and that they keep nobody out."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from guardtrain.guards.guard import Guard
from guardtrain.guards.predicting import ImageJudge
from guardtrain.guards.serving import connections as module
from guardtrain.guards.serving import running
from guardtrain.guards.serving.running import files_left, seldom
from guardtrain.guards.serving.service import GuardService
from guardtrain.guards.serving.settings import ServeSettings
from tests.guards.serving.conftest import served
from tests.guards.serving.fuzzing import well_formed

WAIT = 60.0  # seconds for what comes at once
HEADERS_S, TIMEOUT_S = 1.0, 2.0
HEAD = b"GET /readyz HTTP/1.1\r\nHost: x\r\n"
BODY = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"

Serving = Callable[..., "Server"]


class Server:
    """A service that clients can be nasty to; they are closed at the end."""

    def __init__(self, service: GuardService, address: tuple[str, int], open_: ExitStack) -> None:
        self.service, self.address, self._open = service, address, open_

    def connect(self, first: bytes = b"") -> socket.socket:
        made = self._open.enter_context(socket.create_connection(self.address, timeout=WAIT))
        made.sendall(first)
        return made

    def ended(self, reason: str) -> float:
        """How many connections the service ended for this reason."""
        return self.service.metrics.ended.labels(reason)._value.get()

    def ready(self) -> int:
        return httpx.get(f"http://{self.address[0]}:{self.address[1]}/readyz", timeout=WAIT).status_code

    def until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture(scope="module")
def judge(guard: Guard) -> ImageJudge:
    return ImageJudge(guard, 4_000_000)


@pytest.fixture
def serving(judge: ImageJudge) -> Iterator[Serving]:
    """Starts a server with these settings."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Server:
            wanted = {"guard": "scenes", "threads": 1, "headers_s": HEADERS_S, "timeout_s": TIMEOUT_S} | settings
            service = GuardService(judge, ServeSettings(**wanted))
            address = stack.enter_context(served(service))
            service.settings = replace(service.settings, timeout_s=WAIT)  # of answers: what is slow here is the client
            return Server(service, address, stack.enter_context(ExitStack()))

        yield start


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    got = bytearray()
    with suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            got += part
    return bytes(got)


def answer(connection: socket.socket) -> tuple[int, dict[str, Any], bytes]:
    """Status and body of the one answer, and all of it; status 0 where the server closed without."""
    got = rest(connection)
    head, _, body = got.partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]), json.loads(body), got) if head else (0, {}, b"")


def first_status(connection: socket.socket) -> int:
    """Of an answer on a connection that stays."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def test_many_connections_that_never_finish_keep_nobody_out(serving: Serving, files: list[bytes], guard: Guard) -> None:
    server = serving(max_connections=60, headers_s=3.0, timeout_s=3.0)  # also of a machine that is busy
    heads = [server.connect(HEAD) for _ in range(150)]
    bodies = [server.connect(BODY + b"{") for _ in range(20)]
    expected = guard.predict(files[:3]).probabilities
    for image, probability in zip(files[:3], expected, strict=True):
        assert server.ready() == 200
        asked = server.connect(well_formed(image))
        status, told, _ = answer(asked)
        assert status == 200
        assert told["results"][0]["probability"] == pytest.approx(probability, abs=1e-5)
    assert server.service.connections.number <= 60
    assert server.ended("unused") >= 150 + 20 - 60
    assert server.ended("refused") == 0
    statuses = {answer(one)[0] for one in heads}
    assert statuses == {0, 408}  # those that made room, and those whose time was over
    assert {answer(one)[0] for one in bodies} == {408}
    server.until(lambda: server.service.connections.number == 0)
    assert server.service.buffers.held == 0


@pytest.mark.parametrize(
    ("first", "more", "status"),
    [
        (b"", b"", 0),
        (HEAD, b"", 408),
        (HEAD, b"a", 408),
        (BODY, b"", 408),
        (BODY, b" ", 408),
    ],
    ids=["nothing", "half a head", "a head by bytes", "no body", "a body by bytes"],
)
def test_what_does_not_arrive_in_time_is_ended(serving: Serving, first: bytes, more: bytes, status: int) -> None:
    server = serving()
    began = time.monotonic()
    held = server.connect(first)
    held.settimeout(0.1)
    got = bytearray()
    while True:
        try:
            part = held.recv(1 << 16)
        except TimeoutError:
            with suppress(OSError):
                held.sendall(more)
            assert time.monotonic() - began < WAIT
            continue
        except ConnectionResetError:
            break
        if not part:
            break
        got += part
    assert time.monotonic() - began >= (TIMEOUT_S if first == BODY else module._SOONEST * HEADERS_S) - 0.05
    if status:
        head, _, body = bytes(got).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"application/problem+json" in head
        assert b"connection: close" in head.lower()
        assert json.loads(body)["status"] == status
    else:
        assert got == b""


def test_a_connection_is_kept_between_requests_and_a_slow_second_head_is_not(serving: Serving) -> None:
    server = serving()
    kept = server.connect(HEAD + b"\r\n")
    assert first_status(kept) == 200
    time.sleep(1.5 * HEADERS_S)  # longer than a head may take
    kept.sendall(HEAD + b"\r\n")
    assert first_status(kept) == 200
    kept.sendall(HEAD)
    assert answer(kept)[0] == 408
    server.service.connections.seconds[module.Stage.IDLE] = 0.2
    idle = server.connect(HEAD + b"\r\n")
    assert rest(idle).startswith(b"HTTP/1.1 200")
    assert server.ended("slow") == 1  # an idle one that ends did nothing wrong


@pytest.mark.parametrize(
    "head",
    [b"GET /readyz HTTP/1.1\r\nX: ", b"GET /", b"GET /readyz HTTP/1.1\r\n"],
    ids=["one header", "the path", "many headers"],
)
def test_a_head_without_end_is_refused(serving: Serving, head: bytes) -> None:
    server = serving(headers_s=WAIT)
    endless = server.connect(head)
    more = b"X: y\r\n" * 10_000 if head.endswith(b"\r\n") else b"x" * 60_000
    sent = 0
    with suppress(OSError):
        for _ in range(200):
            endless.sendall(more)
            sent += len(more)
    assert sent < 200 * len(more)  # the server stopped reading
    assert server.ready() == 200


def test_headers_after_a_body_in_chunks_are_not_kept(serving: Serving) -> None:
    server = serving()
    chunked = BODY.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked")
    trailing = server.connect(chunked + b"2\r\n{}\r\n0\r\n")
    (kept,) = _protocols(server)
    for _ in range(20):
        trailing.sendall(b"X: y\r\n" * 1000)
    trailing.sendall(b"\r\n")
    assert first_status(trailing) == 422  # `{}` asks nothing
    assert len(kept.headers) == 3


def _protocols(server: Server) -> list[Any]:
    server.until(lambda: bool(server.service.connections._arriving))
    return list(server.service.connections._arriving)


def test_many_requests_at_once_on_one_connection_are_too_many(serving: Serving, files: list[bytes]) -> None:
    server = serving()
    few = server.connect((HEAD + b"\r\n") * 9 + HEAD + b"Connection: close\r\n\r\n")
    assert rest(few).count(b"HTTP/1.1 200 OK") == 10
    many = server.connect((HEAD + b"\r\n") * 5000)
    assert rest(many).count(b"HTTP/1.1 200 OK") < 100
    assert server.ended("refused") == 1
    assert server.ready() == 200


def test_an_answer_that_nobody_reads_ends(serving: Serving) -> None:
    server = serving(page=True)
    server.service.connections.seconds[module.Stage.ANSWER] = 1.0
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    with held:
        held.settimeout(WAIT)
        held.connect(server.address)
        with suppress(OSError):  # more answers than all buffers between the two hold
            for _ in range(600):
                held.sendall((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") * 10)
                server.service.connections.seconds[module.Stage.IDLE] = 1.0
        server.until(lambda: server.service.connections.number == 0)
    assert server.ready() == 200


def test_where_all_connections_have_requests_a_new_one_is_told(
    serving: Serving, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(max_connections=3, headers_s=WAIT, timeout_s=WAIT)
    held = threading.Event()
    judge = server.service.judge.judge
    monkeypatch.setattr(server.service.judge, "judge", lambda *a: (held.wait(WAIT), judge(*a))[1])
    try:
        asked = [server.connect(well_formed(files[0])) for _ in range(3)]
        server.until(lambda: server.service.batcher.waiting == 3)
        status, told, raw = answer(server.connect(HEAD + b"\r\n"))
        assert status == 503
        assert told["status"] == 503
        assert b"retry-after: 1" in raw.lower()
        silent = [server.connect() for _ in range(module._SURPLUS + 10)]
        server.until(lambda: server.ended("refused") >= 10)
        server.until(lambda: server.service.connections.number <= 3 + module._SURPLUS)
    finally:
        held.set()
    assert [answer(one)[0] for one in asked] == [200] * 3
    for one in silent:
        one.close()
    assert server.ready() == 200


def test_what_is_no_http_is_told_in_the_same_form(serving: Serving) -> None:
    server = serving()
    status, told, raw = answer(server.connect(b"\x16\x03\x01 hello\r\n\r\n"))
    assert (status, told["detail"]) == (400, "This is no HTTP request.")
    assert b"application/problem+json" in raw


def test_the_log_says_a_thing_once_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("uvicorn.error")

    def fail(text: str) -> None:
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("it went wrong")

    def fail_elsewhere() -> None:
        try:
            {}["x"]
        except KeyError:
            logger.exception("it went wrong")

    now = 100.0
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: now))
    with seldom(("uvicorn.error",)), caplog.at_level("WARNING"):
        for number in range(50):
            logger.warning("number %d", number)
            fail(str(number))
        fail_elsewhere()
        assert [record.getMessage() for record in caplog.records] == ["number 0", "it went wrong", "it went wrong"]
        now += 59
        logger.warning("number %d", 50)
        assert len(caplog.records) == 3
        now += 2
        logger.warning("number %d", 51)
        assert caplog.records[-1].getMessage() == "number 51 (and 50 more like it)"
    logger.warning("number 52")
    logger.warning("number 53")
    assert len(caplog.records) == 6


OUT_OF_FILES = """
import asyncio, logging, os, resource, socket
from guardtrain.guards.serving.running import seldom
logging.basicConfig()
with socket.create_server(("127.0.0.1", 0)) as listening, seldom(("asyncio",)):
    clients = [socket.socket() for _ in range(40)]
    async def main():
        server = await asyncio.start_server(lambda r, w: None, sock=listening)
        opened = len(os.listdir("/dev/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 10, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        await asyncio.sleep(2.5)
    asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="needs /dev/fd")
def test_running_out_of_files_does_not_fill_the_log() -> None:
    done = subprocess.run([sys.executable, "-c", OUT_OF_FILES], capture_output=True, text=True, env={**os.environ})
    assert "out of system resource" in done.stderr
    assert done.stderr.count("out of system resource") == 1


CROWD = """
import asyncio, os, resource, socket, urllib.request
import uvicorn
from guardtrain.guards.serving.connections import Connections
from guardtrain.guards.serving.running import _AT_ONCE, _Server
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
async def main():
    listening = socket.create_server(("127.0.0.1", 0))
    crowd = [socket.socket() for _ in range(400)]
    room = len(os.listdir("/dev/fd")) + 60 + 4 * _AT_ONCE
    resource.setrlimit(resource.RLIMIT_NOFILE, (room, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    limits = Connections(60, 10.0, 10.0, lambda why: None)
    config = uvicorn.Config(app, http=limits.protocol(), lifespan="off", log_config=None, backlog=_AT_ONCE)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    for client in crowd:
        client.setblocking(False)
        client.connect_ex(listening.getsockname())
    url = "http://127.0.0.1:%d/" % listening.getsockname()[1]
    for _ in range(3):
        print((await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=60).read())).decode())
    server.should_exit = True
    await serving
asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="needs /dev/fd")
def test_more_connections_at_once_than_files_stop_no_listening() -> None:
    done = subprocess.run([sys.executable, "-c", CROWD], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.split() == ["ok"] * 3, done.stderr
    assert "out of system resource" not in done.stderr


def test_as_many_files_as_the_system_lets_it_ask_for() -> None:
    code = (
        "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard)); "
        "from guardtrain.guards.serving.running import files_left; "
        "print(files_left(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    left, soft, hard = map(int, text.split())
    assert soft == (min(hard, 65_536) if hard > 0 else 65_536)
    assert soft - 300 < left < soft
    assert re.fullmatch(r"\d+", str(files_left()))
