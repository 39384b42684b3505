"""Which images are to be judged: files, folders, globs, URLs and tables that list them, one after another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardtrain.errors import DataError
from guardtrain.sources.images import EXTENSIONS, is_url
from guardtrain.sources.paths import files_named
from guardtrain.sources.rows import located
from guardtrain.sources.tables import FORMATS, read_table


@dataclass(frozen=True)
class InputImage:
    """An image to be judged.

    Args:
        id: what it is called: as the table says, else its path or URL.
        uri: a path or fsspec URL; None where the table names none.
    """

    id: str
    uri: str | None


def input_images(inputs: Sequence[str]) -> Iterator[InputImage]:
    """The images that `inputs` name, in order; those of a folder are found while it is walked through.

    Args:
        inputs: each a file, a folder (searched through, hidden files passed over), a glob or a brace pattern, local or
            an fsspec URL; or a table (CSV, JSONL, Parquet) with a column `image` and, if wanted, `id`.

    Raises:
        DataError: nothing there, or a table without images.
    """
    for text in inputs:
        path = Path(text).expanduser()
        if not is_url(text) and path.is_dir():
            yield from _of_folder(path)
        elif text.split("?")[0].lower().endswith(FORMATS):
            yield from _of_table(text)
        else:
            for file in files_named(text, tuple(sorted(EXTENSIONS)), "images"):
                yield InputImage(file if is_url(file) or path.is_absolute() else os.path.relpath(file), file)


def content_key(images: Sequence[InputImage]) -> str:
    """Hex sha256 that changes when one of the files does, by path, size and time; of URLs the URL."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.id}\0{image.uri}\0".encode(errors="surrogateescape"))
        if image.uri is not None and not is_url(image.uri):
            try:
                stat = Path(image.uri).stat()
            except OSError:
                digest.update(b"missing\0")
            else:
                digest.update(f"{stat.st_size}|{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _of_folder(folder: Path) -> Iterator[InputImage]:
    found = False
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."):
                found = True
                path = str(Path(where, name))
                yield InputImage(path, path)
    if not found:
        raise DataError(f"There are no images in {folder} (endings looked for: {' '.join(sorted(EXTENSIONS))}).")


def _of_table(text: str) -> Iterator[InputImage]:
    table = read_table(text, ("id", "image"))
    if "image" not in table.column_names:
        raise DataError(f"The table {text} has no column 'image'; it has: {', '.join(table.column_names)}.")
    root = text.rpartition("/")[0] if is_url(text) else str(Path(text).expanduser().parent)
    ids = table["id"] if "id" in table.column_names else table["image"]
    for number, (name, image) in enumerate(zip(ids, table["image"], strict=True)):
        value, uri = name.as_py(), located(image.as_py(), root)
        yield InputImage(f"row {number}" if value is None else str(value), uri)
