"""Animations in every format that has them, a colour a frame, and pictures that only look like one."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

from PIL import Image, features

KINDS = ["GIF", "PNG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else [])]
Colour = tuple[int, int, int]


def colours(count: int) -> list[Colour]:
    """`count` colours, each well apart from its neighbours."""
    return [(20 + 235 * i // max(1, count - 1), 255 * (i % 2), 90) for i in range(count)]


def animation(kind: str, frames: Sequence[Image.Image]) -> bytes:
    """These frames as one file."""
    file = io.BytesIO()
    options = {"quality": 95} if kind == "AVIF" else {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(file, kind, save_all=True, append_images=list(frames[1:]), **options)
    return file.getvalue()


def coloured(kind: str, count: int, size: tuple[int, int] = (32, 24)) -> bytes:
    """`colours(count)` as frames."""
    return animation(kind, [Image.new("RGB", size, colour) for colour in colours(count)])


def tiny_gif(frames: int, side: int = 1) -> bytes:
    """A GIF of that many frames of one pixel, on a canvas of `side` × `side`."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b";"


def two_eyes() -> bytes:
    """A JPEG of several pictures, as 3D cameras and phones write it."""
    file = io.BytesIO()
    Image.new("RGB", (32, 24), "red").save(
        file, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 24), "blue")]
    )
    return file.getvalue()
