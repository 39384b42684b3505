"""Decoding: whatever a file holds becomes RGB as Pillow alone would have it, or an OSError that says why not."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guardtrain.sources import decoding
from guardtrain.sources.decoding import decode, rgb


def picture(height: int = 30, width: int = 40, channels: int = 3) -> np.ndarray:
    smooth = np.random.default_rng(0).integers(0, 255, (height // 5, width // 5, channels), dtype=np.uint8)
    return np.kron(smooth, np.ones((5, 5, 1), np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A small PNG that says it is `side` pixels square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_formats(kind: str) -> None:
    content = encoded(Image.fromarray(picture()), kind)
    image = decode(content)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert (np.asarray(image) == np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))).all()


def test_cmyk() -> None:
    content = encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95)
    found = np.asarray(decode(content)).astype(int)
    assert np.abs(found - picture()).mean() < 12


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    levels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = np.asarray(decode(encoded(Image.fromarray(levels), "PNG")))
    assert (found == (levels >> 8)[..., None]).all()
    assert (np.asarray(rgb(Image.fromarray(np.full((2, 2), 70, np.int32), "I"))) == 70).all()


def test_palette_with_transparency_animation_and_orientation() -> None:
    palette = Image.fromarray(picture()).quantize(16)
    content = encoded(palette, "PNG", transparency=bytes(range(0, 160, 10)))
    assert (np.asarray(decode(content)) == np.asarray(palette.convert("RGB"))).all()
    alpha = Image.fromarray(picture(channels=4), "RGBA")
    assert (np.asarray(decode(encoded(alpha, "PNG"))) == picture(channels=4)[..., :3]).all()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    first = np.asarray(decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    assert (first == (255, 0, 0)).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(Image.fromarray(picture()), "JPEG", exif=exif)).size == (40, 30)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"<html><body>404", r"not an image of a known format: the file begins with b'<html><b'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (encoded(Image.fromarray(picture(300, 400)), "JPEG")[:1500], "truncated"),
        (encoded(Image.fromarray(picture(300, 400)), "PNG")[:500], "truncated"),
        (encoded(Image.fromarray(picture()), "JPEG")[:2], "not an image"),
        (bomb(12_000), "too large to decode .*12000 × 12000 pixels.* decompression bomb"),
        (bomb(60_000), "too large to decode .* decompression bomb"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_decoded_says_why(content: bytes, said: str) -> None:
    with pytest.raises(OSError, match=said):
        decode(content)


@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20),
    st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_is_an_image_or_an_oserror(kind: str, flips: list[tuple[float, int]], kept: float) -> None:
    content = bytearray(encoded(Image.fromarray(picture()), kind))
    for place, value in flips:
        content[int(place * (len(content) - 1))] = value
    try:
        assert decode(bytes(content[: int(kept * len(content))])).mode == "RGB"
    except OSError as error:
        assert str(error)


def test_an_image_that_grows_too_large_when_its_shorter_side_is_resized() -> None:
    content = encoded(Image.new("RGB", (1, 3000)), "PNG")
    assert decode(content).size == (1, 3000)
    with pytest.raises(OSError, match="too long and narrow to resize"):
        decode(content, (224, 224))


def test_jpegs_are_decoded_at_a_fraction_only_where_enough_is_left() -> None:
    assert decoding.DRAFT_FACTOR >= 8  # see there: at 4 the embeddings differ by more than they may
    content = encoded(Image.fromarray(picture(600, 800)), "JPEG")
    assert decode(content, (37, 37)).size == (400, 300)
    assert decode(content, (38, 38)).size == (800, 600)
    assert decode(content).size == (800, 600)
    assert decode(encoded(Image.fromarray(picture(600, 800)), "PNG"), (20, 20)).size == (800, 600)
