"""Why something could not be written, in a line: in which folder, and how much room there is."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What libraries that raise no OSError, or one without a number, say of a write that failed.
_SAID = (
    (r"\(os error (\d+)\)", None),  # Rust's, as safetensors and tokenizers pass it on
    (r"no space left on device|disk is full", errno.ENOSPC),
    (r"disk quota exceeded", errno.EDQUOT),
    (r"file too large", errno.EFBIG),
    (r"input/output error|disk i/o error", errno.EIO),
    (r"requested and \d+ written|failed writing file|unexpected pos \d+ vs \d+", errno.ENOSPC),  # numpy's and torch's
)
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_SMALL, _LARGE = 16_384, 2**30  # bytes
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


WHAT_NOW = "What was finished is kept: make room, and the same command goes on."


@contextmanager
def named_writes(path: Path) -> Iterator[None]:
    """Have what fails in the block for the disk's sake name `path`, whatever library writes it.

    Raises:
        OSError: of the disk, with `path` as its file name.
    """
    try:
        yield
    except Exception as error:
        number = disk_error(error)
        if number is None or (isinstance(error, OSError) and error.filename is not None):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def disk_error(error: BaseException) -> int | None:
    """The number of the disk's error that `error` tells of (no space, no quota, too large, failing); None of others.

    >>> disk_error(OSError(errno.ENOSPC, "No space left on device")) == errno.ENOSPC
    True
    >>> disk_error(ValueError("no number")) is None
    True
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _OURS else None
    for pattern, number in _SAID:
        if (found := re.search(pattern, str(error), re.IGNORECASE)) is not None:
            number = int(found[1]) if number is None else number
            return number if number in _OURS else None
    return None


def why_unwritten(error: BaseException, places: Iterable[Path]) -> str | None:
    """Return what the user should know of a write that failed; None where `error` is no disk's.

    Args:
        error: any.
        places: folders that may have been written to, for errors that name no file; the fullest of them is named.
    """
    number = disk_error(error)
    if number is None:
        return None
    name = error.filename if isinstance(error, OSError) else None
    if isinstance(name, str | bytes | os.PathLike):
        folder = Path(os.fsdecode(name)).absolute()
        folder = folder if folder.is_dir() else folder.parent
    else:
        folder = min((place.absolute() for place in places), key=_free, default=Path.cwd())
    return f"{reason(number, folder)} {WHAT_NOW}"


def written_folders(settings: Mapping[str, Any]) -> list[Path]:
    """The folders that a command of these settings may write to."""
    named = [settings.get(name) for name in ("out", "cache_dir")]
    return [*(Path(str(name)).expanduser() for name in named if name), Path(tempfile.gettempdir()), Path.cwd()]


def is_full(folder: Path) -> bool:
    """Whether a small file more has no room on the disk of `folder`."""
    return _free(folder) < _SMALL


def reason(number: int, folder: Path) -> str:
    """Return what a disk's error means in `folder`, and how much room is left there, in a sentence."""
    done = "read or written to" if number == errno.EIO else "written to"
    return f"{folder} could not be {done}: {cause(number, folder)}."


def cause(number: int, folder: Path) -> str:
    """Return what a disk's error means where `folder` lies, and the room left there, to be put into a sentence."""
    left = os.statvfs(_existing(folder))
    free = f"{size_text(left.f_bavail * left.f_frsize)} free"
    if number == errno.EDQUOT:
        return f"the disk quota is used up ({free} on the whole disk)"
    if number == errno.EFBIG:
        return f"a file would be larger than is allowed, by ulimit -f or by the file system ({free})"
    if number == errno.EIO:
        return f"its disk fails, input/output error ({free})"
    if left.f_files and not left.f_favail:
        return f"its disk takes no more files, all {left.f_files:,} places are taken ({free})"
    if _free(folder) > _LARGE:
        return f"no space left for it ({free} on the disk), or a limit on the size of files (ulimit -f)"
    return f"no space left on its disk ({free})"


def size_text(size: float) -> str:
    """Bytes, in a unit that fits.

    >>> size_text(0), size_text(204_800), size_text(3.2e9)
    ('0 bytes', '205 kB', '3.2 GB')
    """
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit > 2 else f"{size:.0f} {_UNITS[unit]}"


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def _free(folder: Path) -> int:
    left = os.statvfs(_existing(folder))
    return 0 if left.f_files and not left.f_favail else left.f_bavail * left.f_frsize
