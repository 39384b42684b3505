"""From the bytes of an image file to pixels: whatever the file holds, an RGB image or the reason why not."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

# Pillow reads more, some of it by running other programs (EPS through Ghostscript): not on files of strangers.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
# A decoded image takes three bytes a pixel, in each decoding thread; Pillow's own limit, beyond which it warns.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
# A JPEG is decoded at half, quarter or eighth size only where that leaves this many times the pixels needed a side:
# what is left to the model's own resampling hides the coarser start. At 2, 3 and 4 times it does not (cosines of .998
# to .9999 with the whole decode, for MobileNetV2 on photographs and noise), and 500-pixel images are decoded whole.
DRAFT_FACTOR = 8


def decode(content: bytes, needed: tuple[int, int] | None = None) -> Image.Image:
    """The image in the bytes of a file as RGB; of an animation the first frame.

    CMYK becomes RGB as Pillow does it, transparency is dropped, and 16-bit grey is scaled to 8 bits. EXIF orientation
    is not applied. All but the 16 bits is what open_clip's and timm's own pipelines do, and embeddings should equal
    theirs.

    Args:
        content: of a JPEG, PNG, WebP, … (see `FORMATS`).
        needed: (height, width) the image is resized to afterwards. A JPEG at least `DRAFT_FACTOR` times as large both
            ways is decoded at a fraction of its size, which is quicker and changes embeddings by less than a cosine of
            1e-4.

    Raises:
        OSError: nothing that can be decoded, with the reason: empty, another format, truncated, too large.

    >>> decode(b"<html>")
    Traceback (most recent call last):
    ...
    OSError: not an image of a known format: the file begins with b'<html>'
    """
    if not content:
        raise OSError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise OSError(_too_large(f"{width} × {height} pixels"))
            if needed is not None and needed[0] * needed[1] * max(image.size) > MAX_PIXELS * min(image.size):
                raise OSError(f"too long and narrow to resize ({width} × {height} pixels)")
            if needed is not None and image.format == "JPEG":
                image.draft("RGB", (DRAFT_FACTOR * needed[1], DRAFT_FACTOR * needed[0]))
            return rgb(image)
    except UnidentifiedImageError:
        raise OSError(f"not an image of a known format: the file begins with {content[:8]!r}") from None
    except Image.DecompressionBombError as error:
        raise OSError(_too_large(str(error))) from None
    except OSError:
        raise
    except Exception as error:  # Pillow's plugins raise errors of any kind on damaged files
        raise OSError(f"damaged: {type(error).__name__}: {error}") from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def rgb(image: Image.Image) -> Image.Image:
    """The image as RGB; see `decode`."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255: nearly all white
        grey = np.asarray(image)
        deep = image.mode != "I" or int(grey.max(initial=0)) > 255
        levels: Any = np.clip(grey, 0, 65535).astype(np.uint16) >> 8 if deep else grey
        return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image.info.pop("transparency")  # dropped either way, and Pillow would warn
    if image.mode == "RGB":
        image.load()
        return image  # `convert` would copy it
    return image.convert("RGB")


def _too_large(size: str) -> str:
    return f"too large to decode ({size}; the limit is {MAX_PIXELS:,} pixels): a decompression bomb, or a scan"
