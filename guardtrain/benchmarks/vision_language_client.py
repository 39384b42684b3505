"""One question to an OpenAI-compatible endpoint: the request, what is tried again, and what its reply holds."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from PIL import Image

from guardtrain.benchmarks.vision_language_settings import VisionLanguageSettings
from guardtrain.benchmarks.vision_language_tokens import Place, places_of
from guardtrain.errors import GuardtrainError
from guardtrain.installing import install_line

if TYPE_CHECKING:
    import httpx

_PASSING = (408, 409, 425, 429)  # and all from 500 on
_WRONG_SETTINGS = (401, 403, 404, 405)  # no further request can succeed
_OF_THIS_IMAGE = (400, 403, 422, 451)  # may be a filter's, which looked at the image
_FILTERED = re.compile(
    r"content[_ -]?filter|content[_ ]polic|content management polic|responsible ?ai|data[_ ]?inspection|moderation|"
    r"prohibited[_ ]content|safety system|usage polic|inappropriate content",
    re.IGNORECASE,
)
_FILTERS = ("content_filter", "safety", "refusal", "prohibited_content", "blocklist", "sensitive", "blocked")
_LONGEST = 60.0  # seconds between two tries
_SHOWN = 300  # characters of a reply in an error


class EndpointError(GuardtrainError):
    """The endpoint refuses every request: a wrong address, model or key."""


class Unanswered(GuardtrainError):
    """One image that the endpoint gave no answer for; others may have one."""


class Stopped(Exception):
    """The asking is over: no further try."""


@dataclass(frozen=True)
class Reply:
    """A server's reply; see `Answer`."""

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    finish: str | None = None
    refusal: str | None = None
    places: tuple[Place, ...] = ()


class Client:
    """Asks about images, from several threads at once.

    httpx is used, not a vendor's own client: it is one POST of a form that many servers speak, and nothing but the
    question goes out with it.

    Args:
        settings: checked.
        prompt: the question.

    Raises:
        EndpointError: httpx is missing.
    """

    def __init__(self, settings: VisionLanguageSettings, prompt: str) -> None:
        try:
            import httpx
        except ImportError as error:
            raise EndpointError(f"Asking an endpoint needs httpx: {install_line('vlm')}.") from error
        self._settings = settings
        self._prompt = prompt
        self._key = os.environ.get(settings.api_key_env, "").strip()
        self._stop = threading.Event()
        limits = httpx.Limits(max_connections=settings.concurrency)
        self._http = httpx.Client(timeout=settings.timeout, limits=limits, headers=self._headers())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._http.close()

    def stop(self) -> None:
        """End all waiting; no try is made any more."""
        self._stop.set()

    def ask(self, image: Image.Image) -> Reply:
        """Ask the model about an RGB image; it or a filter before it may refuse to answer.

        Raises:
            EndpointError: the endpoint refuses what is asked of it, whatever the image.
            Unanswered: it cannot take this one, or did not answer within `retries`.
            Stopped: `stop` was called.
        """
        body = self._body(image)
        said = "nothing"
        for attempt in range(self._settings.retries + 1):
            if self._stop.is_set():
                raise Stopped
            reply, said, wish = self._tried(body)
            if reply is not None:
                return reply
            if attempt < self._settings.retries and self._stop.wait(self._pause(attempt, wish)):
                raise Stopped
        raise Unanswered(f"no answer after {self._settings.retries + 1} tries; the last: {said}")

    def _tried(self, body: bytes) -> tuple[Reply | None, str, float | None]:
        """A reply, or what was wrong and how long the endpoint wants to be left alone."""
        import httpx

        url = f"{self._settings.base_url.rstrip('/')}/chat/completions"
        try:
            response = self._http.post(url, content=body)
        except httpx.TransportError as error:
            return None, self._safely(f"{type(error).__name__} {error}"), None
        if response.status_code in _PASSING or response.status_code >= 500:
            return None, f"status {response.status_code}, {self._safely(response.text)}", _wish(response)
        if response.status_code in _OF_THIS_IMAGE and _FILTERED.search(response.text):
            return Reply("", refusal=f"status {response.status_code}: {self._safely(response.text)}"), "", None
        if response.status_code in _WRONG_SETTINGS:
            hint = ""
            if response.status_code in (401, 403):
                hint = f" The key is that of the environment variable {self._settings.api_key_env}, " + (
                    "which is set." if self._key else "which is not set."
                )
            raise EndpointError(f"{url} answers {response.status_code}: {self._safely(response.text)}.{hint}")
        if response.status_code != 200:
            raise Unanswered(f"answered with status {response.status_code}: {self._safely(response.text)}")
        reply = _read(response)
        if reply is None and _FILTERED.search(response.text):  # an error in the place of an answer
            reply = Reply("", refusal=self._safely(response.text))
        return reply, "" if reply else f"a reply of another form: {self._safely(response.text)}", None

    def _pause(self, attempt: int, wish: float | None) -> float:
        if wish is not None:
            return min(wish, _LONGEST)
        return min(self._settings.backoff * 2.0**attempt, _LONGEST) * random.uniform(0.5, 1.0)

    def _headers(self) -> dict[str, str]:
        bearer = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return {"Content-Type": "application/json", **bearer}

    def _body(self, image: Image.Image) -> bytes:
        settings = self._settings
        url = "data:image/jpeg;base64," + base64.b64encode(_jpeg(image, settings.quality)).decode()
        content = [{"type": "text", "text": self._prompt}, {"type": "image_url", "image_url": {"url": url}}]
        request: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": settings.max_tokens,
        }
        if settings.temperature is not None:
            request["temperature"] = settings.temperature
        if settings.logprobs:
            request |= {"logprobs": True, "top_logprobs": 10}
        # a null in extra takes a field away, such as max_tokens where a model wants another name for it
        request |= settings.extra
        return json.dumps({key: value for key, value in request.items() if value is not None}).encode()

    def _safely(self, text: str) -> str:
        """The start of what the endpoint says, in one line and without the key, should it repeat it."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:_SHOWN]


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image, no longer than `side` pixels; never enlarged."""
    if max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _wish(response: httpx.Response) -> float | None:
    """The seconds of Retry-After, where they are a number of such."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _read(response: httpx.Response) -> Reply | None:
    """Read a reply of the chat-completions form; None where it is not of that form."""
    try:
        content = response.json()
        choice = content["choices"][0]
        message = choice["message"]
        given = message.get("content")
        text, refusal = _joined(given, "text"), str(message.get("refusal") or "") or _joined(given, "refusal")
        finish = None if choice.get("finish_reason") is None else str(choice["finish_reason"]).lower()
        thought = message.get("reasoning_content") or message.get("reasoning")
        if not refusal and finish in _FILTERS:
            refusal = f"ended by {finish}"
        elif not refusal and given is None and finish != "length" and not thought:
            refusal = "no content"
        usage = content.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        places = places_of((choice.get("logprobs") or {}).get("content") or (), text)
        return Reply(text, *tokens, finish, refusal or None, places)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def _joined(content: Any, kind: str) -> str:
    """The text of a message, or its refusal, which may be among the parts that some servers give."""
    if isinstance(content, list):
        return " ".join(str(part[kind]) for part in content if part.get(kind))
    return str(content or "") if kind == "text" else ""
