"""Sums of a shard's files, kept beside them: in sha256sum's form, so that `sha256sum -c checksums/*` reads them too."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from guardtrain.errors import StoreError
from guardtrain.files import file_sha256, replace_file

CHECKSUMS_FOLDER = "checksums"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def checksums_file(folder: Path, matrix: Path) -> Path:
    """Where the sums of the shard with this matrix file are kept, under the same digits."""
    digits = matrix.stem.rpartition("_")[2]
    return folder / CHECKSUMS_FOLDER / f"checksums_{digits}.sha256"


def write_checksums(folder: Path, matrix: Path, metadata: Path, content: bytes | memoryview) -> None:
    """Note the sums of a shard whose matrix is on disk and whose metadata is about to be: the metadata marks a shard as
    whole, so the sums come before it.

    Args:
        folder: the store's.
        matrix, metadata: the shard's files.
        content: of the metadata file.
    """
    sums = {matrix: file_sha256(matrix), metadata: hashlib.sha256(content).hexdigest()}
    text = "".join(f"{digest}  {file.relative_to(folder).as_posix()}\n" for file, digest in sums.items())
    file = checksums_file(folder, matrix)
    replace_file(file, lambda path: path.write_text(text, encoding="utf-8"))


def read_checksums(file: Path) -> dict[str, str]:
    """Path within the store -> hex sha256.

    Raises:
        StoreError: a file of another form.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error
    matches = [_LINE.fullmatch(line) for line in lines]
    if not lines or not all(matches):
        raise StoreError(f"{file} is no list of checksums.")
    return {match[2]: match[1] for match in matches if match}
