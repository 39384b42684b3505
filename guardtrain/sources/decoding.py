"""From the bytes of an image file to pixels: whatever the file holds, an RGB image or the reason why not."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from guardtrain.installing import install_line

# Pillow reads more, some of it by running other programs (EPS through Ghostscript): not on files of strangers.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
# Of these, what a build of Pillow may lack though it knows the format.
_FEATURES = {"JPEG": "jpg", "PNG": "zlib", "WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
HEIF_PACKAGE, HEIF_EXTRA = "pillow_heif", "heic"
HEIF_ENDINGS = (".heic", ".heics", ".heif", ".heifs", ".hif")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
# Several pictures of one shot (a phone's depth map, a 3D camera's other eye): no animation, the first is the image.
_SEVERAL_BUT_STILL = ("MPO",)
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
    with opened(content, needed) as image:
        return rgb(image)


@contextmanager
def opened(
    content: bytes, needed: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """The image in the bytes of a file, its header read and nothing decoded; `rgb` decodes it, while the context lasts.

    Args:
        content, needed: see `decode`.
        max_pixels: of the image, or of its first frame.

    Raises:
        OSError: see `decode`; also what decoding inside the context raises, whatever its kind.
    """
    if not content:
        raise OSError("the file is empty")
    formats = _formats()
    if is_heif(content[:64]):
        if not heif_readable():
            raise OSError(f"not decodable: {heif_hint()}")
        _register_heif()
        formats = ("HEIF",)
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            width, height = image.size
            check_size(image, max_pixels)
            if needed is not None and needed[0] * needed[1] * max(image.size) > MAX_PIXELS * min(image.size):
                raise OSError(f"too long and narrow to resize ({width} × {height} pixels)")
            if needed is not None and image.format == "JPEG":
                image.draft("RGB", (DRAFT_FACTOR * needed[1], DRAFT_FACTOR * needed[0]))
            yield image
    except UnidentifiedImageError:
        raise OSError(f"not an image of a known format: the file begins with {content[:8]!r}") from None
    except Image.DecompressionBombError as error:
        raise OSError(_too_large(str(error), max_pixels)) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise errors of any kind on damaged files
        raise OSError(f"damaged: {type(error).__name__}: {error}") from error


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Raise OSError for an image (or the frame it stands at) of too many pixels."""
    width, height = image.size
    if width * height > max_pixels:
        raise OSError(_too_large(f"{width} × {height} pixels", max_pixels))


def is_animation(image: Image.Image) -> bool:
    """Whether an opened image goes on after its first frame: GIF, APNG, WebP, AVIF, pages of TIFF, images of HEIF."""
    if image.format in _SEVERAL_BUT_STILL:
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except MemoryError:
        raise
    except Exception:  # what comes after the first frame is damaged
        return False


def rgb(image: Image.Image) -> Image.Image:
    """The image as RGB; see `decode`."""
    image.load()  # whether a frame of a GIF is transparent is known only then
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255: nearly all white
        grey = np.asarray(image)
        deep = image.mode != "I" or int(grey.max(initial=0)) > 255
        levels: Any = np.clip(grey, 0, 65535).astype(np.uint16) >> 8 if deep else grey
        return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # from 0 to 1 as a rule, of which Pillow would make black
        floats = np.nan_to_num(np.asarray(image), posinf=255, neginf=0)
        scale = 255 if float(floats.max(initial=0)) <= 1 else 1
        return Image.fromarray(np.clip(floats * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image.info.pop("transparency")  # dropped either way, and Pillow would warn
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def holds_image(file: IO[bytes]) -> bool:
    """Whether a file begins like an image of a format that can be decoded; no more than its header is read."""
    formats = [name for name in _formats() if name != "DIB"]  # four bytes that many files begin with
    try:
        with Image.open(file, formats=formats):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # of what is no image, plugins raise errors of any kind
        return False


@cache
def endings() -> frozenset[str]:
    """The endings, in small letters and with their dots, of files that `decode` can decode on this machine."""
    formats = {*_formats(), *_SEVERAL_BUT_STILL}
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in formats}
    return frozenset(known | (set(HEIF_ENDINGS) if heif_readable() else set()))


def heif_hint() -> str:
    """Say what to install for reading HEIC."""
    return f"HEIC needs pillow-heif: {install_line(HEIF_EXTRA)}"


@cache
def heif_readable() -> bool:
    """Whether the package that decodes HEIC is installed. It takes a while to import, and waits for the first HEIC."""
    return importlib.util.find_spec(HEIF_PACKAGE) is not None


def is_heif(start: bytes) -> bool:
    """Whether a file that starts so is HEIC: by its brands, of which AVIF has others in the same container."""
    if start[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, end, 4))}
    return bool(brands & _HEIF_BRANDS)


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


@cache
def _formats() -> tuple[str, ...]:
    """Return the `FORMATS` that this Pillow was built with; HEIF is registered when the first one comes."""
    Image.init()
    return tuple(
        name
        for name in FORMATS
        if name != "HEIF" and name in Image.OPEN and (name not in _FEATURES or features.check(_FEATURES[name]))
    )


def _too_large(size: str, max_pixels: int) -> str:
    return f"too large to decode ({size}; the limit is {max_pixels:,} pixels): a decompression bomb, or a scan"
