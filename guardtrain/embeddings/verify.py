"""A store read from end to end: what is damaged, what is missing, and which shards to make again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from guardtrain.embeddings.checksums import CHECKSUMS_FOLDER, checksums_file, read_checksums
from guardtrain.embeddings.contents import Contents, read_contents
from guardtrain.embeddings.journal import read_current, unfinished
from guardtrain.embeddings.selection import row_ids
from guardtrain.embeddings.shards import (
    MATRIX_FOLDER,
    METADATA_FOLDER,
    file_names,
    matrix_shape,
    read_metadata,
    shard_numbers,
)
from guardtrain.embeddings.store import ENCODER_FILE, PLAN_FILE, Plan, committed, read_plan
from guardtrain.embeddings.writing import named_failures, only_writer
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import DataError, EncoderError, StoreError
from guardtrain.files import file_sha256
from guardtrain.sources.stacking import as_text
from guardtrain.words import listed

NORM_TOLERANCE = 5e-3  # float16 and bfloat16 arithmetic stay within it
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class ShardCheck:
    """The findings of one shard; None where its file could not say."""

    number: int
    matrix: Path
    metadata: Path
    rows: int | None
    dim: int | None
    dtype: str | None
    summed: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """The result of `verify_store`.

    Args:
        path: the store's folder.
        spec: None where the folder does not say which encoder made it, or says it wrongly.
        made_by: `extraction`, `list` (joined, thinned out or added to) or `others`.
        shards: every one that is there or should be, by number.
        problems: of the store as a whole.
        notes: what could not be checked, and why.
    """

    path: Path
    spec: EncoderSpec | None
    made_by: str
    shards: tuple[ShardCheck, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def damaged(self) -> tuple[ShardCheck, ...]:
        """The shards with problems."""
        return tuple(shard for shard in self.shards if shard.problems)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not self.damaged


def verify_store(path: str | Path, advance: Callable[[int], None] = lambda shards: None) -> Verification:
    """Read all of a store, ours or clip-retrieval's, and say what is wrong with it; nothing is changed.

    Every shard must be there, be readable, have as many embeddings as rows of metadata, be finite, of the type and
    dimensions of the others, of unit norm where the encoder normalises, and have the sums that were noted when it was
    written; the ids must be unique; the encoder's spec must have the fingerprint that is written in it.

    Args:
        path: the folder.
        advance: told of each shard that is done.

    Raises:
        StoreError: there is no store at all.
    """
    folder = Path(path).expanduser()
    if not (folder / MATRIX_FOLDER).is_dir():
        raise StoreError(
            f"There is no embedding store at {folder}: it must hold {MATRIX_FOLDER}/ and {METADATA_FOLDER}/."
        )
    problems: list[str] = []
    notes: list[str] = []
    spec = _spec(folder, problems, notes)
    plan, contents = _plan(folder, problems), _contents(folder, problems)
    if plan is not None and spec is not None and plan.fingerprint != spec.fingerprint:
        problems.append(f"{PLAN_FILE} was written for another encoder than {ENCODER_FILE} describes")
    normalised = spec is not None and bool(spec.normalize)
    checks, hashes, schemas = [], [], []
    for number, matrix, metadata, rows in _expected(folder, plan, contents):
        check, ids, schema = _shard(folder, number, matrix, metadata, normalised)
        found = list(check.problems)
        if not found and rows not in (None, check.rows):
            found.append(f"has {check.rows} rows; it was written with {rows}")
        if not found and contents is None and plan is not None and committed(folder, plan, number) is None:
            found.append(f"has {check.rows} rows, which are not those of {PLAN_FILE}")
        checks.append(ShardCheck(**(vars(check) | {"problems": tuple(found)})))
        schemas += [] if schema is None else [schema]
        hashes.append(np.fromiter((hash(i) for i in ids), dtype=np.int64, count=len(ids)))
        advance(1)
    problems += _disagreements(checks, spec)
    problems += _repeated_ids(checks, hashes)
    if checks and not any(check.summed for check in checks):
        notes.append("no checksums were noted when it was written, so that contents could not be compared")
    elif unsummed := [check.number for check in checks if not check.summed]:
        notes.append(f"no checksums were noted of shards {listed(unsummed, 5)}")
    types = sorted({check.dtype for check in checks if check.dtype is not None})
    if len(types) > 1:
        notes.append(f"the shards are of several types ({', '.join(types)}); they are read as float32")
    for name, kinds in as_text(schemas).items():
        notes.append(f"column '{name}' is of several types ({', '.join(kinds)}); it is read as text")
    if unfinished(folder):
        notes.append(
            "new metadata, which counts already, is not in place yet: a command that renewed it was cut off. The next "
            "command that writes here, such as the same again, finishes it; other programs see the old until then"
        )
    if strays := sorted(shard_numbers(folder).keys() - {check.number for check in checks}):
        notes.append(f"files of shards that are none of it, left by a command that was cut off: {listed(strays, 5)}")
    made_by = "list" if contents is not None else "extraction" if plan is not None else "others"
    return Verification(folder, spec, made_by, tuple(checks), tuple(problems), tuple(notes))


def remove_damaged(found: Verification) -> list[Path]:
    """Delete the damaged shards' files, so that they can be made again; returns these files.

    Shards of an extraction are then missing, and `guardtrain embed` makes them again. Others are taken off the list of
    shards: what is left is a whole store, which `guardtrain store append` adds the lost records to.

    Raises:
        StoreError: others made the store, so that nothing here can make it again; it would be left without any shard;
            or it cannot be written to.
    """
    damaged = {shard.number for shard in found.damaged}
    if found.made_by == "others":
        raise StoreError(
            f"guardtrain did not write {found.path} and cannot make its shards again: copy them from where they are "
            "whole."
        )
    if damaged >= {shard.number for shard in found.shards}:
        raise StoreError(f"Every shard of {found.path} is damaged: delete the folder, and make the store again.")
    deleted = []
    with only_writer(found.path), named_failures(found.path):
        if (contents := read_contents(found.path)) is not None:
            plan = read_plan(found.path)
            extracted = range(0 if plan is None else plan.shards)
            kept = tuple(s for s in contents.shards if s[0] not in damaged or s[0] in extracted)
            Contents(kept, contents.work).write(found.path)
        for shard in found.damaged:
            for file in (shard.metadata, shard.matrix, checksums_file(found.path, shard.matrix)):
                if file.exists():
                    file.unlink()
                    deleted.append(file)
    return deleted


def _spec(folder: Path, problems: list[str], notes: list[str]) -> EncoderSpec | None:
    file = folder / ENCODER_FILE
    if not file.is_file():
        notes.append(f"no {ENCODER_FILE}: which encoder made it is not known, as in stores of clip-retrieval")
        return None
    try:
        return EncoderSpec.from_json(file.read_text(encoding="utf-8"))
    except (EncoderError, OSError, UnicodeDecodeError) as error:
        problems.append(f"{ENCODER_FILE}: {error}")
        return None


def _plan(folder: Path, problems: list[str]) -> Plan | None:
    try:
        return read_plan(folder)
    except (StoreError, OSError, UnicodeDecodeError) as error:
        problems.append(str(error))
        return None


def _contents(folder: Path, problems: list[str]) -> Contents | None:
    try:
        return read_contents(folder)
    except (StoreError, UnicodeDecodeError) as error:
        problems.append(str(error))
        return None


def _expected(
    folder: Path, plan: Plan | None, contents: Contents | None
) -> Iterator[tuple[int, Path, Path, int | None]]:
    """(number, matrix, metadata, rows if they are known) of each shard there is or should be."""
    files = shard_numbers(folder)
    rows: dict[int, int] = {} if contents is None else dict(contents.shards)
    if contents is not None:
        numbers = list(rows)
    elif plan is not None:
        numbers = list(range(plan.shards))
    else:
        noted = [int(file.stem.rpartition("_")[2]) for file in (folder / CHECKSUMS_FOLDER).glob("checksums_*.sha256")]
        numbers = list(range(max([*files, *noted], default=-1) + 1))
    for number in numbers:
        names = file_names(folder, number, max(numbers) + 1)
        matrix, metadata = files.get(number, (None, None))
        digits = (matrix or metadata or names[0]).stem.rpartition("_")[2]  # a lost file was called as the other is
        yield (
            number,
            matrix or folder / MATRIX_FOLDER / f"img_emb_{digits}.npy",
            metadata or folder / METADATA_FOLDER / f"metadata_{digits}.parquet",
            rows.get(number),
        )


def _shard(
    folder: Path, number: int, matrix: Path, metadata: Path, normalised: bool
) -> tuple[ShardCheck, list[str], pa.Schema | None]:
    problems: list[str] = []
    rows, dim, dtype, ids, schema = None, None, None, list[str](), None
    absent = [file.relative_to(folder).as_posix() for file in (matrix, metadata) if not file.is_file()]
    problems += [f"{name} is missing" for name in absent]
    if matrix.is_file():
        try:
            rows, dim, kind = matrix_shape(matrix)
            dtype = str(kind)
            problems += _values(matrix, normalised)
        except StoreError as error:
            problems.append(str(error).removeprefix(f"{folder}/"))
    if metadata.is_file():
        try:
            table = read_metadata(metadata)
            schema = table.schema
            ids = row_ids(table, f"{metadata.name}")
            if rows is not None and len(table) != rows:
                problems.append(f"{rows} embeddings and metadata of {len(table)}")
        except (StoreError, DataError) as error:
            problems.append(str(error).removeprefix(f"{folder}/"))
    summed = checksums_file(folder, matrix).is_file()
    if summed and not problems:
        problems += _sums(folder, matrix, metadata)
    return ShardCheck(number, matrix, metadata, rows, dim, dtype, summed, tuple(problems)), ids, schema


def _values(file: Path, normalised: bool) -> list[str]:
    """Say what is wrong with the numbers of a matrix file, read a block at a time."""
    length = len(np.load(file, mmap_mode="r", allow_pickle=False))
    infinite, odd, first_infinite, first_odd = 0, 0, 0, 0
    for start in range(0, length, _BLOCK_ROWS):
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)  # anew, so that what was read does not stay mapped
        block = np.array(mapped[start : start + _BLOCK_ROWS], dtype=np.float32)
        finite = np.isfinite(block).all(axis=1)
        bad = np.flatnonzero(~finite)
        first_infinite = start + int(bad[0]) if len(bad) and not infinite else first_infinite
        infinite += len(bad)
        if normalised:
            off = np.flatnonzero(finite & (np.abs(np.linalg.norm(block, axis=1) - 1) > NORM_TOLERANCE))
            first_odd = start + int(off[0]) if len(off) and not odd else first_odd
            odd += len(off)
    found = [f"{infinite} rows are not finite, first row {first_infinite}"] if infinite else []
    return found + ([f"{odd} rows are not of unit norm, first row {first_odd}"] if odd else [])


def _sums(folder: Path, matrix: Path, metadata: Path) -> list[str]:
    try:
        noted = read_current(checksums_file(folder, matrix), read_checksums)
    except StoreError as error:
        return [str(error).removeprefix(f"{folder}/")]
    names = [(file, file.relative_to(folder).as_posix()) for file in (matrix, metadata)]
    return [
        f"{name} is not what was written" for file, name in names if noted.get(name) != read_current(file, file_sha256)
    ]


def _disagreements(checks: list[ShardCheck], spec: EncoderSpec | None) -> list[str]:
    found = []
    dims = sorted({check.dim for check in checks if check.dim is not None})
    if not checks:
        found.append("it has no shards")
    if len(dims) > 1:
        found.append(f"the shards have different dimensions: {', '.join(map(str, dims))}")
    if spec is not None and spec.dim is not None and dims and dims != [spec.dim]:
        found.append(f"{ENCODER_FILE} says {spec.dim} dimensions, and the embeddings have {', '.join(map(str, dims))}")
    return found


def _repeated_ids(checks: list[ShardCheck], hashes: list[np.ndarray]) -> list[str]:
    """Ids that are there more than once, named; first by hash, which takes eight bytes a row."""
    values, counts = np.unique(np.concatenate([np.empty(0, np.int64), *hashes]), return_counts=True)
    suspects = values[counts > 1]
    if not len(suspects):
        return []
    seen: dict[str, int] = {}
    for check, own in zip(checks, hashes, strict=True):
        if np.isin(own, suspects).any():
            for name in row_ids(read_metadata(check.metadata), check.metadata.name):
                seen[name] = seen.get(name, 0) + 1
    repeated = [name for name, count in seen.items() if count > 1]
    return [f"{len(repeated)} ids are there more than once: {listed(repeated, 3)}"] if repeated else []
