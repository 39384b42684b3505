"""What images go through between two users: JPEG again, another size, a blur, a crop; before preprocessing."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter


def jpeg(image: Image.Image, quality: float, key: str) -> bytes:
    """A JPEG file of this quality, 1 to 100."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return file.getvalue()


def resize(image: Image.Image, share: float, key: str) -> bytes:
    """The image at this share of its width and height, as a thumbnail is sent on."""
    width, height = (max(1, round(share * side)) for side in image.size)
    return _png(image.resize((width, height), Image.Resampling.BICUBIC))


def blur(image: Image.Image, share: float, key: str) -> bytes:
    """A Gaussian blur whose standard deviation is this share of the shorter side."""
    return _png(image.filter(ImageFilter.GaussianBlur(share * min(image.size))))


def crop(image: Image.Image, share: float, key: str) -> bytes:
    """A piece of the image of this share of its width and height; where it lies is drawn by `key`."""
    width, height = (max(1, round(share * side)) for side in image.size)
    g = generator(key, "crop")
    left, top = (int(g.integers(0, n - m + 1)) for n, m in zip(image.size, (width, height), strict=True))
    return _png(image.crop((left, top, left + width, top + height)))


# An RGB image, a strength and a key that seeds what is random, to the file that the other user gets.
EVERYDAY: dict[str, Callable[[Image.Image, float, str], bytes]] = {
    "jpeg": jpeg,
    "resize": resize,
    "blur": blur,
    "crop": crop,
}


def generator(*key: object) -> np.random.Generator:
    """Draws of an image's own: the same whatever block it stands in and whatever was drawn before."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode(errors="surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
