"""Which files are images by their names, and what the others are called when they are counted."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath

from guardtrain.sources.decoding import HEIF_ENDINGS, endings, heif_hint, heif_readable, holds_image, is_heif

# What is called an ending: `.05` of `22.05` and `.1 copy` are none, and such files are looked into.
_ENDING = re.compile(r"\.(?=[0-9]*[a-z])[a-z0-9_+-]{1,12}", re.IGNORECASE)
_START = 64  # bytes that tell what a file without an ending is
_SHOWN = 8  # kinds of files in a line
_NO_ENDING, _HEIC = "without an ending", "HEIC without an ending"


@dataclass(frozen=True)
class Wanted:
    """Which files are wanted: those of certain endings, in any case, or images.

    Args:
        suffixes: the endings; None for images that can be decoded, also without an ending.
    """

    suffixes: tuple[str, ...] | None = None

    def __call__(self, path: str) -> bool:
        """Whether the file is wanted; one without an ending is looked into."""
        if self.suffixes is not None:
            return path.lower().endswith(self.suffixes)
        ending = ending_of(path)
        return ending in endings() if ending else _holds_image(path)


def ending_of(path: str) -> str:
    """The ending of a file's name in small letters, with its dot; empty where there is none.

    >>> ending_of("a.b/photo.JPG"), ending_of("a.b/2024-05-01 22.05"), ending_of("README")
    ('.jpg', '', '')
    """
    ending = PurePath(path).suffix
    return ending.lower() if _ENDING.fullmatch(ending) else ""


def kind_of(path: str) -> str:
    """Return what a file that is passed over is counted as: its ending, or that it has none."""
    return ending_of(path) or (_HEIC if is_heif(_start_of(path)) else _NO_ENDING)


def kinds_text(counts: Counter[str]) -> str:
    """Numbers of files by kind, the most first; of HEIC what it takes to decode it.

    >>> kinds_text(Counter({".txt": 3, "without an ending": 1}))
    '3 .txt, 1 without an ending'
    """
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{number:,} {kind}{_hint(kind)}" for kind, number in most[:_SHOWN]]
    if rest := most[_SHOWN:]:
        kinds.append(f"{sum(number for _, number in rest):,} of {len(rest):,} other endings")
    return ", ".join(kinds)


def _hint(kind: str) -> str:
    return f" (not decodable: {heif_hint()})" if kind in (*HEIF_ENDINGS, _HEIC) and not heif_readable() else ""


def _start_of(path: str) -> bytes:
    """The first bytes of a file; none of what is no file, or cannot be read."""
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            return b""
        with open(path, "rb") as file:
            return file.read(_START)
    except OSError:
        return b""


def _holds_image(path: str) -> bool:
    """Whether a file without an ending is an image that can be decoded: nothing but its header is looked at."""
    start = _start_of(path)
    if not start or is_heif(start):
        return bool(start) and heif_readable()
    try:
        with open(path, "rb") as file:
            return holds_image(file)
    except OSError:
        return False
