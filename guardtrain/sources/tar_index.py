"""What a tar of samples holds and where: read through once, kept on disk, then its members are read by offset."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from guardtrain.errors import DataError
from guardtrain.file_names import path_text
from guardtrain.files import replace_file

FIELDS = ("json", "cls", "txt")  # members that are read into the index whole
_VERSION = 1
_MEMBER = pa.struct([("suffix", pa.string()), ("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("members", pa.list_(_MEMBER)),
        *(pa.field(name, pa.string()) for name in FIELDS),
    ]
)


@dataclass(frozen=True)
class TarIndex:
    """The samples of one tar.

    Args:
        samples: one row a sample: `key`, its `members` with `suffix`, `name`, `offset` of the data and `size`, and the
            texts of its `json`, `cls` and `txt`.
        key: what changes when the tar does.
    """

    samples: pa.Table
    key: str


def sample_name(member: str) -> tuple[str, str] | None:
    """Key and suffix of a member, as webdataset splits them: at the first dot of the file's name; None without one.

    >>> sample_name("a.b/0001.seg.PNG")
    ('a.b/0001', 'seg.png')
    """
    folder, slash, name = member.rpartition("/")
    stem, dot, suffix = name.partition(".")
    return (folder + slash + stem, suffix.lower()) if dot and stem else None


def read_index(file: IO[bytes], key: str, origin: str) -> TarIndex:
    """The index of an uncompressed tar, from its headers and its small text members.

    As webdataset does, neighbouring members of one key make a sample, and members that are no files, have no dot, or
    whose path starts with `__name__` are passed over.

    Raises:
        DataError: no tar, a damaged or truncated one, a sparse member, or a sample with two members of one suffix.
    """
    rows: list[dict[str, Any]] = []
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            for info in _members(tar):
                member = path_text(info.name)
                split = sample_name(member)
                if split is None or re.match(r"__[^/]*__($|/)", member):
                    continue
                if info.sparse is not None:
                    raise DataError(f"The member {member} of {origin} is sparse: write the tar anew without holes.")
                name, suffix = split
                if not rows or rows[-1]["key"] != name:
                    rows.append({"key": name, "members": []})
                row = rows[-1]
                if suffix in row or any(m["suffix"] == suffix for m in row["members"]):
                    raise DataError(f"The sample {name} of {origin} has two members '.{suffix}'.")
                if suffix in FIELDS:
                    content = tar.extractfile(info)
                    row[suffix] = b"" if content is None else content.read()
                else:
                    where = {"offset": info.offset_data, "size": info.size}
                    row["members"].append({"suffix": suffix, "name": member, **where})
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{origin} is no whole tar ({error}): it may be cut short. Fetch it again, or leave it out of the path."
        ) from error
    for row in rows:
        for name in FIELDS:
            row[name] = row[name].decode("utf-8", "replace") if name in row else None
    return TarIndex(pa.Table.from_pylist(rows, schema=_SCHEMA), key)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for info in tar:
        if info.isreg():
            yield info
        vars(tar)["members"] = []  # a tar of a million files would otherwise keep all its headers


class IndexFolder:
    """Indices kept on disk, one file a tar, found again as long as the tar is the same.

    Args:
        folder: where they lie; default: `tar-index` in `$GUARDTRAIN_CACHE`, else in `~/.cache/guardtrain`. Where it
            cannot be written, nothing is kept.
    """

    def __init__(self, folder: str | None) -> None:
        cache = os.environ.get("GUARDTRAIN_CACHE") or "~/.cache/guardtrain"
        self.folder = Path(folder or f"{cache}/tar-index").expanduser()

    def file(self, tar: str) -> Path:
        """Where the index of a tar (path, URL or pipe) lies."""
        return self.folder / f"{hashlib.sha256(tar.encode()).hexdigest()[:32]}.parquet"

    def load(self, tar: str, key: str | None) -> TarIndex | None:
        """The kept index of `tar`, if it was made under `key`; any that is there where `key` is None."""
        file = self.file(tar)
        try:
            samples = pq.read_table(file)
            about = json.loads(samples.schema.metadata[b"guardtrain"])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            return None
        if about.get("version") != _VERSION or about.get("tar") != tar or (key is not None and about["key"] != key):
            return None
        return TarIndex(samples, about["key"])

    def save(self, tar: str, index: TarIndex) -> None:
        """Keep `index`; whole or not at all."""
        from filelock import FileLock

        file = self.file(tar)
        about = json.dumps({"version": _VERSION, "tar": tar, "key": index.key})
        samples = index.samples.replace_schema_metadata({b"guardtrain": about.encode()})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock")):
                replace_file(file, lambda temporary: pq.write_table(samples, temporary, compression="zstd"))
        except OSError:
            return  # a read-only or full cache costs time, not correctness
