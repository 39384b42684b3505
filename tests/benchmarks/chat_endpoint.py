"""A server that speaks the chat-completions form: it looks at the image it is sent, and has faults on request."""

from __future__ import annotations

import base64
import copy
import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from PIL import Image

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)
_BITS, _WIDE = 10, 8


def numbered(number: int) -> Image.Image:
    """An image that says its number, in bars that JPEG leaves as they are."""
    bars = [255 * (number >> bit & 1) for bit in range(_BITS)]
    return Image.fromarray(np.repeat(np.array([bars], dtype=np.uint8), 2 * _WIDE, axis=0).repeat(_WIDE, axis=1))


def number_of(image: np.ndarray) -> int:
    """The number that an image (H, W, 3) says."""
    bars = image.mean(axis=(0, 2)).reshape(_BITS, _WIDE).mean(axis=1)
    return int(sum(1 << bit for bit, bar in enumerate(bars) if bar > 127))


@dataclass(frozen=True)
class Scripted:
    """What the server says of one image.

    Args:
        body: of its reply; without `choices` it is an error.
        status: of its reply.
        tokens: the log-probabilities it gives where they are asked for.
    """

    body: dict[str, Any]
    status: int = 200
    tokens: list[dict[str, Any]] | None = None


def saying(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """The body of a reply with these words."""
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 1000, "completion_tokens": 2}}


@dataclass
class Endpoint:
    """What it was asked, and what it does next.

    Args:
        faults: what the next requests get instead of an answer: a status, `garbage`, or `drop`.
        key: that it wants; None for none.
        logprobs: whether it gives them when asked.
        delay: seconds an answer takes.
        script: what it says of numbered images; else it looks at their colour.
    """

    script: dict[int, Scripted] = field(default_factory=dict)
    faults: list[Any] = field(default_factory=list)
    key: str | None = None
    logprobs: bool = True
    delay: float = 0.0
    address: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    colours: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, body: dict[str, Any]) -> Response:
        """Red is unsafe, green is safe, blue is something to be silent about."""
        url = body["messages"][0]["content"][1]["image_url"]["url"]
        start, _, content = url.partition("base64,")
        assert start == "data:image/jpeg;"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.format == "JPEG"
            pixels, size = np.asarray(image.convert("RGB")), image.size
        if self.script:
            said = self.script[number_of(pixels)]
            reply = copy.deepcopy(said.body)
            if body.get("logprobs") and said.tokens is not None:
                reply["choices"][0]["logprobs"] = {"content": said.tokens}
            return JSONResponse(reply, said.status)
        mean = pixels.reshape(-1, 3).mean(axis=0)
        colour = ("red", "green", "blue")[int(mean.argmax())]
        with self.lock:
            self.requests.append({**body, "messages": body["messages"][0]["content"][0]["text"], "size": size})
            self.colours[colour] += 1
        words = {"red": "Yes.", "green": "No", "blue": "I would rather not say."}[colour]
        reply = saying(words)
        if body.get("logprobs") and self.logprobs:
            first = words.rstrip(".")
            odds = {"Yes": 0.6, " no": 0.2} if colour != "green" else {"No": 0.6, "yes": 0.2}
            likely = [{"token": token, "logprob": np.log(p)} for token, p in odds.items()]
            tokens = [{"token": first, "logprob": np.log(0.6), "top_logprobs": likely}]
            reply["choices"][0]["logprobs"] = {"content": [*tokens, {"token": words[len(first) :], "logprob": -0.1}]}
        return JSONResponse(reply)


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """The endpoint on a free port of this machine, in a thread."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def completions(request: Request, body: dict[str, Any]) -> Response:
        with endpoint.lock:
            endpoint.under_way += 1
            endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
            fault = endpoint.faults.pop(0) if endpoint.faults else None
        try:
            given = request.headers.get("authorization")
            if endpoint.key is not None and given != f"Bearer {endpoint.key}":
                return JSONResponse({"error": f"bad key {given}"}, 401)
            time.sleep(endpoint.delay)
            if fault == "garbage":
                return PlainTextResponse("<html>an idle proxy</html>")
            if isinstance(fault, int):
                headers = {"Retry-After": "0"} if fault == 429 else {}
                return JSONResponse({"error": f"fault of {given}"}, fault, headers)
            return endpoint.reply(body)
        finally:
            with endpoint.lock:
                endpoint.under_way -= 1

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        endpoint.address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield endpoint
        finally:
            server.should_exit = True
            thread.join(timeout=30)
