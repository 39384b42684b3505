"""Which images are to be judged: files, folders, globs, URLs and tables that list them, one after another."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from guardtrain.errors import DataError, GuardtrainError
from guardtrain.file_names import path_on_disk, path_text
from guardtrain.sources.decoding import endings
from guardtrain.sources.images import is_url, read_encoded
from guardtrain.sources.paths import files_named, local_path
from guardtrain.sources.rows import located
from guardtrain.sources.walk import Walk


@dataclass(frozen=True)
class InputImage:
    """An image to be judged.

    Args:
        id: what it is called: as the table says, else its path or URL.
        uri: a path or fsspec URL; None where the table names none.
        stored: gives the bytes of the file, where a table holds the images themselves; `uri` then tells it from others.
    """

    id: str
    uri: str | None
    stored: Callable[[], bytes | str | None] | None = field(default=None, compare=False)

    def read(self) -> bytes:
        """The bytes of the image's file.

        Raises:
            OSError: they cannot be read, or the table names no image.
        """
        found = self.uri if self.stored is None else self.stored()
        if found is None:
            raise OSError("the table names no image")
        return found if isinstance(found, bytes) else read_encoded(found)


# what reading and decoding an image raises: disks, file systems behind URLs, decoders
UNREADABLE = (OSError, ValueError, ImportError, GuardtrainError)


def reason(error: Exception) -> str:
    """One line that says why an image could not be read."""
    text = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:500] or type(error).__name__


def input_images(
    inputs: Sequence[str], walk: Walk | None = None, columns: Mapping[str, str] | None = None
) -> Iterator[InputImage]:
    """The images that `inputs` name, in order; those of a folder are found while it is walked through.

    Args:
        inputs: each a file, a folder (searched through, hidden files passed over), a glob or a brace pattern, local or
            an fsspec URL; or a table (CSV, JSON, Parquet) with a column `image`, of paths or of the images themselves,
            and, if wanted, `id`. What is named by itself is not found once more in a folder.
        walk: keeps what is passed over in folders; a new one each time.
        columns: our column (`image`, `id`) -> the tables', for those named differently.

    Raises:
        DataError: nothing there, or a table without images.
    """
    texts = [local_path(text) for text in inputs]
    walk = walk or Walk()
    walk.name(text for text in texts if not is_url(text))
    for text in texts:
        path = Path(path_on_disk(text)).expanduser()
        if not is_url(text) and path.is_dir():
            yield from _of_folder(path, walk)
        elif _is_table(text):
            yield from _of_table(text, columns or {})
        else:
            for file in files_named(text, tuple(sorted(endings())), "images", walk):
                name = file if is_url(file) or path.is_absolute() else os.path.relpath(file)
                yield InputImage(path_text(name), file)


def parts_of(images: Iterable[InputImage], size: int) -> Generator[list[InputImage], None, None]:
    """So many images at a time, the last time fewer."""
    left = iter(images)
    while part := list(itertools.islice(left, size)):
        yield part


def content_key(images: Sequence[InputImage]) -> str:
    """Hex sha256 that changes when one of the files does, by path, size and time; of URLs the URL."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.id}\0{image.uri}\0".encode())
        if image.uri is not None and image.stored is None and not is_url(image.uri):
            try:
                stat = Path(path_on_disk(image.uri)).stat()
            except OSError:
                digest.update(b"missing\0")
            else:
                digest.update(f"{stat.st_size}|{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _of_folder(folder: Path, walk: Walk) -> Iterator[InputImage]:
    before = len(walk.links)
    found = False
    for file in walk.files([str(folder)]):
        found, path = True, path_text(Path(file))  # `a.png` in the folder `.`, not `./a.png`
        yield InputImage(path, path)
    if not found and len(walk.links) == before:  # else it is there already
        passed = "".join(f" {line[0].upper()}{line[1:]}." for line in walk.lines())
        raise DataError(
            f"There are no images in {path_text(folder)} (endings looked for: {' '.join(sorted(endings()))}).{passed}"
        )


def _is_table(text: str) -> bool:
    ending = text.split("?")[0].lower()
    if ending.endswith(tuple(endings())):  # an image: what reads tables need not be imported
        return False
    from guardtrain.sources.tables import FORMATS

    return ending.endswith(FORMATS)


def _of_table(text: str, columns: Mapping[str, str]) -> Iterator[InputImage]:
    from guardtrain.sources.guessing import may_be_images, without_image_column
    from guardtrain.sources.parquet_rows import holding_images
    from guardtrain.sources.record_columns import rename_columns
    from guardtrain.sources.tables import read_table, without_blank_rows

    origin = f"the table {text}"
    if inside := holding_images(text):
        yield from _of_stored(text, columns, inside, origin)
        return
    theirs = without_blank_rows(read_table(text, [columns.get(name, name) for name in ("id", "image")]))
    table = rename_columns(theirs, columns, origin)
    if "image" not in table.column_names:
        raise without_image_column("image", theirs.column_names, may_be_images(theirs), origin)
    root = text.rpartition("/")[0] if is_url(text) else str(Path(text).expanduser().parent)
    ids = table["id"] if "id" in table.column_names else table["image"]
    for number, (name, image) in enumerate(zip(ids, table["image"], strict=True)):
        value, uri = name.as_py(), located(image.as_py(), root)
        yield InputImage(f"row {number}" if value is None else str(value), uri)


def _of_stored(text: str, columns: Mapping[str, str], inside: Sequence[str], origin: str) -> Iterator[InputImage]:
    """The images that a Parquet file holds, read when they are judged."""
    from guardtrain.sources.parquet_rows import ParquetRows

    file = str(Path(text).expanduser().absolute()) if not is_url(text) else text
    rows = ParquetRows([file], columns.get("image"), origin)
    image = rows.image_columns[0]
    ids: Sequence[Any] = rows.ids
    for name in [columns["id"]] if "id" in columns else ["id", f"{image}.path"]:
        if name in rows.table.column_names:
            ids = rows.table[name].to_pylist()
            break
    for row, name in enumerate(ids):
        yield InputImage(str(name or rows.ids[row]), f"{rows.key}#{row}", partial(rows.cell, row, image))
