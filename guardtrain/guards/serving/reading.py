"""From a request's body to what is to be judged: images' bytes or embeddings, in memory, within the limits."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from guardtrain.guards.serving.messages import PredictRequest
from guardtrain.guards.serving.problems import Problem, readable, without_bytes
from guardtrain.guards.serving.settings import ServeSettings

MEGABYTE = 1_000_000
FILE_FIELDS = ("image", "images", "file", "files")
_MAX_TEXT = 4096  # of a form's field that is no file
_SHOWN = 3  # faults of a request that are told


@dataclass(frozen=True)
class Asked:
    """A request: images or embeddings, not both.

    Args:
        images: files with their names, in order.
        embeddings: (N, D) float64, or None.
        fingerprint: of the encoder that made the embeddings, where it was told.
        point: the operating point's name, or None.
        explain: number of neighbours, or None.
    """

    images: Sequence[tuple[str, bytes | Problem]] = ()
    embeddings: np.ndarray | None = None
    fingerprint: str | None = None
    point: str | None = None
    explain: int | None = None


@dataclass(eq=False)
class _Arriving:
    """A body that is not there yet.

    Args:
        deadline: by when it must be.
        held: bytes of it.
        gone: whether it made room for others.
    """

    deadline: asyncio.Timeout
    held: int = 0
    gone: bool = False


class Buffers:
    """Bytes of all bodies that are held at once, and how many there may be.

    Where there are more, the body that has been arriving longest makes room: bodies that never come to an end keep
    nobody out. Bodies that are there and being answered stay.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._arriving: dict[_Arriving, None] = {}  # the longest first

    @asynccontextmanager
    async def body(self, request: Request, most: int, seconds: float) -> AsyncGenerator[bytes, None]:
        """The request's body, counted until it is let go.

        Raises:
            Problem: too large (413), too slow (408), too much at once (429), or broken off (400).
        """
        length = request.headers.get("content-length", "")
        if (length.isdecimal() and len(length) > 18) or (length.isdecimal() and int(length) > most):
            raise _too_large(most)
        parts, arriving = bytearray(), _Arriving(asyncio.timeout(seconds))
        self._arriving[arriving] = None
        try:
            try:
                async with arriving.deadline:
                    async for chunk in request.stream():
                        if len(parts) + len(chunk) > most:
                            raise _too_large(most)
                        self._hold(arriving, len(chunk))
                        parts += chunk
            except TimeoutError:
                raise _crowded() if arriving.gone else _too_slow(seconds) from None
            except ClientDisconnect:
                raise Problem(400, "The connection ended before the body did.") from None
            del self._arriving[arriving]
            yield bytes(parts)
        finally:
            self._let_go(arriving)

    def _hold(self, arriving: _Arriving, number: int) -> None:
        if arriving.gone:
            return
        arriving.held += number
        self.held += number
        while self.held > self.limit:
            oldest = next((one for one in self._arriving if one.held), arriving)
            self._let_go(oldest)
            if oldest is arriving:
                raise _crowded()
            oldest.gone = True
            oldest.deadline.reschedule(0.0)  # long ago: it ends now

    def _let_go(self, arriving: _Arriving) -> None:
        self._arriving.pop(arriving, None)
        self.held -= arriving.held
        arriving.held = 0


def _crowded() -> Problem:
    return Problem(429, "The requests that are being answered fill the service's memory.")


def _too_slow(seconds: float) -> Problem:
    return Problem(408, f"The body did not arrive within {seconds:g} seconds.")


def _too_large(most: int) -> Problem:
    return Problem(413, f"The body is larger than {most / MEGABYTE:g} MB, the most this service takes.")


async def read_asked(content_type: str, body: bytes, settings: ServeSettings) -> Asked:
    """Return what is asked in a body of this type.

    Raises:
        Problem: another type (415), malformed (400), or not what may be asked (422).
    """
    kind = parse_options_header(content_type)[0].lower()
    if kind == b"application/json":
        return await asyncio.to_thread(asked_in_json, body, settings.max_images)
    if kind == b"multipart/form-data":
        return await asked_in_form(content_type, body, settings.max_images)
    raise Problem(
        415,
        f"The Content-Type is '{readable(content_type.partition(';')[0]) or 'missing'}'; send multipart/form-data with "
        f"files called '{FILE_FIELDS[0]}', or application/json.",
    )


def asked_in_json(body: bytes, most: int) -> Asked:
    """Return what a JSON body asks; `most` images or embeddings.

    Raises:
        Problem: no JSON (400), or not as `PredictRequest` has it (422). What was sent is not repeated.
    """
    try:
        asked = PredictRequest.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        first = faults[0]
        if first["type"] == "json_invalid":
            raise Problem(400, f"The body is no JSON: {first['msg'].removeprefix('Invalid JSON: ')}.") from None
        text = "; ".join(f"{place_of(fault['loc'])}: {fault['msg']}" for fault in faults[:_SHOWN])
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise Problem(422, text + more + ".", place_of(first["loc"])) from None
    if (asked.images is None) == (asked.embeddings is None):
        raise Problem(422, "Give either `images` or `embeddings`.")
    count = len(asked.images or asked.embeddings or ())
    _refuse_many(count, most)
    common: dict[str, Any] = {"point": asked.point, "explain": asked.explain}
    if asked.embeddings is not None:
        lengths = sorted({len(row) for row in asked.embeddings})
        if len(lengths) > 1:
            raise Problem(422, f"The embeddings have {lengths[0]} and {lengths[-1]} dimensions.", "embeddings")
        matrix = np.array(asked.embeddings, dtype=np.float64)
        return Asked(embeddings=matrix, fingerprint=asked.fingerprint, **common)
    if asked.fingerprint is not None:
        raise Problem(422, "`fingerprint` goes with embeddings; images are embedded here.", "fingerprint")
    images = [
        (str(number) if image.id is None else image.id, _from_base64(image.data, f"images[{number}].data"))
        for number, image in enumerate(asked.images or ())
    ]
    return Asked(images, **common)


async def asked_in_form(content_type: str, body: bytes, most: int) -> Asked:
    """Return what a form asks: files called `image` (or `images`, `file`, `files`), fields `point` and `explain`.

    Raises:
        Problem: malformed, or ending early (400); another field, too many files, none (422).
    """

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _MemoryParser(
        Headers({"content-type": content_type}), whole(), max_files=most, max_fields=8, max_part_size=_MAX_TEXT
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        status = 422 if error.message.startswith(("Too many", "Part exceeded")) else 400
        raise Problem(status, f"The form cannot be read: {without_bytes(error.message)}") from None
    if not parser.ended:
        raise Problem(400, "The form ends before its closing boundary: a part of it is missing.")
    images: list[tuple[str, bytes | Problem]] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in FILE_FIELDS:
                raise Problem(422, f"A file must be called '{FILE_FIELDS[0]}'.", readable(name))
            images.append(((value.filename or str(len(images)))[:1024], value.file.read()))
        elif name not in ("point", "explain"):
            raise Problem(422, "A form has files, and may have the fields 'point' and 'explain'.", readable(name))
        elif name in fields:
            raise Problem(422, "A field is given once.", name)
        else:
            fields[name] = value
    if not images:
        raise Problem(422, f"The form has no file; call it '{FILE_FIELDS[0]}'.")
    return Asked(images, point=fields.get("point"), explain=_whole_number(fields.get("explain")))


class _MemoryParser(MultiPartParser):
    """Starlette's, but nothing that is sent goes to the disk, and a form that ends early is told from a whole one."""

    spool_max_size = 0  # for SpooledTemporaryFile: never

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ended = False

    def on_end(self) -> None:
        self.ended = True


def place_of(location: Sequence[str | int]) -> str:
    """`images[2].data` for `("images", 2, "data")`; of the client's own keys no more than it takes to find them."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{readable(part)}" for part in location)
    return text.removeprefix(".") or "the body"


def _from_base64(data: str, where: str) -> bytes | Problem:
    if data.startswith("data:"):
        data = data.partition(",")[2]
    try:
        return base64.b64decode(data.encode("ascii", "strict"), validate=True)
    except (binascii.Error, ValueError):
        return Problem(422, "it is not base64", where)


def _whole_number(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Problem(422, "`explain` must be a whole number, 0 or more.", "explain")
    return int(text)


def _refuse_many(count: int, most: int) -> None:
    if count > most:
        raise Problem(422, f"{count} images in one request; the most is {most}.")
