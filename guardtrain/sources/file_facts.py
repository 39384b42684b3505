"""What an image file tells before anybody looks at the image: format, size, tables, mode, EXIF."""

from __future__ import annotations

from dataclasses import dataclass

from guardtrain.sources.decoding import opened

# Entries of the luminance table in annex K of the JPEG standard (ITU-T T.81), which libjpeg scales by its quality.
_STANDARD_SUM = 3692


@dataclass(frozen=True)
class FileFacts:
    """The facts of one image file; its header is read, and no pixel.

    Args:
        format: as Pillow calls it, such as JPEG.
        size: of the file, in bytes.
        width, height: in pixels.
        mode: of the pixels as they are stored, such as RGB, L or P.
        exif: whether there is EXIF data.
        tables: a JPEG's quantisation tables, one after the other; () for other formats.
    """

    format: str
    size: int
    width: int
    height: int
    mode: str
    exif: bool
    tables: tuple[int, ...] = ()

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def bytes_per_pixel(self) -> float:
        """How closely the file is packed."""
        return self.size / (self.width * self.height)

    @property
    def quality(self) -> float | None:
        """About the quality, from 1 to 100, that libjpeg would make such a luminance table for; None for no JPEG."""
        if not self.tables:
            return None
        scale = 100 * sum(self.tables[:64]) / _STANDARD_SUM
        return (200 - scale) / 2 if scale <= 100 else 5000 / scale


def file_facts(content: bytes) -> FileFacts:
    """The facts of the image file with these bytes.

    Raises:
        OSError: it is none that could be decoded; see `guardtrain.sources.decoding.decode`.

    >>> file_facts(b"<html>")
    Traceback (most recent call last):
    ...
    OSError: not an image of a known format: the file begins with b'<html>'
    """
    with opened(content) as image:
        tables = getattr(image, "quantization", None) or {}
        flat = tuple(int(entry) for number in sorted(tables) for entry in tables[number])
        width, height = image.size
        return FileFacts(str(image.format), len(content), width, height, image.mode, "exif" in image.info, flat)
