"""Opening images by path or URL, and the key of what a set of image files holds."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from guardtrain.errors import DataError
from guardtrain.file_names import path_on_disk, path_text
from guardtrain.sources.decoding import MAX_PIXELS, decode

if TYPE_CHECKING:
    from guardtrain.records import Records

MAX_BYTES = 8 * MAX_PIXELS  # of a file: the largest image there may be, as 16 bits of four channels, as it is


class MissingImages(DataError):
    """Images that are not where they are looked for.

    Args:
        problem: how many, and which.
        paths: of these, as the records have them.
    """

    def __init__(self, problem: str, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        super().__init__(problem)


def is_url(path: str) -> bool:
    """Whether `path` goes through fsspec (`s3://…`, `https://…`) rather than the local file system."""
    return "://" in path


def open_image(uri: str) -> Image.Image:
    """The image at a local path or fsspec URL, decoded, as RGB; of an animation the first frame.

    EXIF orientation is not applied: neither open_clip's nor timm's own pipelines do, and embeddings should equal
    theirs. See `guardtrain.sources.decoding.decode`.

    Raises:
        OSError: no such file, or not an image that can be decoded.
    """
    return decode(read_encoded(uri))


def read_encoded(uri: str) -> bytes:
    """The bytes of the image file at a local path or fsspec URL, as they are.

    Raises:
        OSError: no such file, or it cannot be read: a folder, a pipe or a device, or larger than any image.
    """
    if is_url(uri):
        import fsspec

        with fsspec.open(uri, "rb") as file:
            return bytes(file.read())
    with open(path_on_disk(uri), "rb", opener=_at_once) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a file but a pipe or a device")
        if found.st_size > MAX_BYTES:
            raise OSError(
                f"too large for an image ({found.st_size / 1e9:.1f} GB; the limit is {MAX_BYTES / 1e9:.1f} GB)"
            )
        return file.read()


def _at_once(path: str, flags: int) -> int:
    """A pipe under an image's name would be waited for without end, hence not to be blocked by opening it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decode_image(content: bytes) -> Image.Image:
    """The image in the bytes of a file, as `open_image` gives it.

    Raises:
        OSError: not an image that Pillow can decode.
    """
    return decode(content)


def files_key(records: Records, origin: str) -> str:
    """Hex sha256 over every image's absolute path, size in bytes and modification time in ns; of URLs the URL.

    Labels and other columns have no part in it. Costs one `stat` an image. Files that are there and cannot be looked at
    (a link to nothing, a folder that is not ours to enter) are noted as that: whoever reads them says so.

    Raises:
        DataError: records without an image.
        MissingImages: local files that do not exist, with their number and the first few.
    """
    from guardtrain.words import listed

    digest = hashlib.sha256()
    absent, missing, missing_as_given = [], [], []
    uris = records.image_uris()
    for record_id, uri, given in zip(records.ids, uris, records.column("image"), strict=True):
        if uri is None:
            absent.append(record_id)
            continue
        if is_url(uri):
            digest.update(f"{uri}\0".encode())
            continue
        file = Path(path_on_disk(uri)).absolute()
        path = path_text(file)
        try:
            found = file.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            if not file.is_symlink():
                missing.append(path)
                missing_as_given.append(str(given))
            digest.update(f"{path}\0{error.errno}\0".encode())
            continue
        except OSError as error:
            digest.update(f"{path}\0{error.errno}\0".encode())
            continue
        digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    if absent:
        raise DataError(f"{len(absent)} of {len(uris)} records of {origin} have no image: {listed(absent, 5)}.")
    if missing:
        raise MissingImages(
            f"{len(missing)} of {len(uris)} images of {origin} do not exist, the first: {listed(missing, 3)}.",
            missing_as_given,
        )
    return digest.hexdigest()
