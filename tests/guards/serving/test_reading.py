"""Bodies that come slowly or not at all, and forms whatever they are cut into."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from guardtrain.guards.serving.problems import Problem
from guardtrain.guards.serving.reading import Buffers, asked_in_form, place_of


class Sending:
    """A request whose body comes in these chunks, with so many seconds before each."""

    def __init__(
        self,
        chunks: list[bytes],
        pauses: Sequence[float] | None = None,
        length: str | None = None,
        broken: bool = False,
    ) -> None:
        self.headers = {} if length is None else {"content-length": length}
        self._chunks, self._pauses, self._broken = chunks, pauses or [0.0] * len(chunks), broken

    async def stream(self) -> AsyncGenerator[bytes, None]:
        for chunk, pause in zip(self._chunks, self._pauses, strict=True):
            await asyncio.sleep(pause)
            yield chunk
        if self._broken:
            raise ClientDisconnect


def read(buffers: Buffers, request: Any, most: int = 100, seconds: float = 30.0) -> bytes:
    async def body() -> bytes:
        async with buffers.body(request, most, seconds) as content:
            assert buffers.held >= len(content)
            return content

    return asyncio.run(body())


@pytest.mark.parametrize(
    ("request_", "seconds", "status"),
    [
        (Sending([b"x"] * 3, [10.0] * 3), 0.01, 408),
        (Sending([b"x" * 60] * 2), 30.0, 413),
        (Sending([], length="101"), 30.0, 413),
        (Sending([], length="9" * 5000), 30.0, 413),
        (Sending([b"x"], broken=True), 30.0, 400),
    ],
)
def test_bodies_that_are_not_taken(request_: Sending, seconds: float, status: int) -> None:
    buffers = Buffers(1000)
    with pytest.raises(Problem) as caught:
        read(buffers, request_, seconds=seconds)
    assert caught.value.status == status
    assert buffers.held == 0


def test_all_bodies_together_have_a_limit() -> None:
    buffers = Buffers(90)

    async def two() -> list[bytes | BaseException]:
        entered = asyncio.Event()

        async def first() -> bytes:
            async with buffers.body(Sending([b"x" * 50]), 100, 30) as content:  # type: ignore[arg-type]
                entered.set()
                await asyncio.sleep(0.01)
                return content

        async def second() -> bytes:
            await entered.wait()
            async with buffers.body(Sending([b"y" * 50]), 100, 30) as content:  # type: ignore[arg-type]
                return content

        return await asyncio.gather(first(), second(), return_exceptions=True)

    taken, refused = asyncio.run(two())
    assert taken == b"x" * 50
    assert isinstance(refused, Problem)
    assert refused.status == 429
    assert buffers.held == 0
    assert read(buffers, Sending([b"z" * 50])) == b"z" * 50


@given(
    names=st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), min_size=1, max_size=4),
    content=st.binary(max_size=200),
    cut=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_forms_are_read_as_they_were_written(names: list[str], content: bytes, cut: int) -> None:
    if b"--b" in content:
        return
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name in names
    ]
    body = b"".join(parts) + b'--b\r\nContent-Disposition: form-data; name="explain"\r\n\r\n7\r\n--b--\r\n'
    asked = asyncio.run(asked_in_form("multipart/form-data; boundary=b", body, 4))
    assert list(asked.images) == [(name, content) for name in names]
    assert asked.explain == 7
    with pytest.raises(Problem):  # whatever is missing at the end, it is noticed
        asyncio.run(asked_in_form("multipart/form-data; boundary=b", body[: -cut - 3], 4))


def test_places_are_told_as_people_write_them() -> None:
    assert place_of(("images", 2, "data")) == "images[2].data"
    assert place_of(()) == "the body"
    assert len(place_of(("x" * 10_000,))) == 60


def test_bodies_that_never_end_keep_nobody_out() -> None:
    buffers = Buffers(200)

    async def take(request: Any) -> bytes:
        async with buffers.body(request, 100, 30.0) as content:
            return content

    async def all_of_them() -> list[bytes | BaseException]:
        endless = [asyncio.create_task(take(Sending([bytes([i]) * 90, b"x"], pauses=[0, 3600]))) for i in range(2)]
        while buffers.held < 180:
            await asyncio.sleep(0)
        new = await take(Sending([b"z" * 50, b"z" * 30]))
        assert buffers.held == 90  # of the second: the first made room
        endless[1].cancel()
        return [new, *await asyncio.gather(*endless, return_exceptions=True)]

    new, first, second = asyncio.run(all_of_them())
    assert new == b"z" * 80
    assert isinstance(first, Problem)
    assert first.status == 429
    assert isinstance(second, asyncio.CancelledError)
    assert buffers.held == 0
