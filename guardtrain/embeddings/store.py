"""Embeddings and their records on disk, in clip-retrieval's layout with the encoder's spec beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from guardtrain.embeddings.checksums import write_checksums
from guardtrain.embeddings.contents import Contents, read_contents
from guardtrain.embeddings.quarantine import SetAside, annotated, noted, still_set_aside, whole_pairs
from guardtrain.embeddings.rows import MatrixFile, StoredRows
from guardtrain.embeddings.shards import (
    MATRIX_FOLDER,
    METADATA_FOLDER,
    Shard,
    file_names,
    matrix_shape,
    metadata_rows,
    read_metadata,
    shard_numbers,
    whole_shard,
)
from guardtrain.encoders.spec import EncoderSpec, external_spec, require_same
from guardtrain.errors import StoreError
from guardtrain.files import replace_file
from guardtrain.records import SCHEMA, Records
from guardtrain.sources.stacking import stacked

ENCODER_FILE = "encoder.json"
PLAN_FILE = "extraction.json"
PATH_COLUMN = "image_path"  # what clip-retrieval's tools look for


@dataclass(frozen=True)
class Embeddings:
    """Records and their embeddings: what everything downstream works on.

    Args:
        records: N records.
        matrix: (N, D) float16 or float32, row i belonging to record i; of a store, rows that are read where they are
            indexed.
        spec: the encoder that made it.
    """

    records: Records
    matrix: np.ndarray | StoredRows
    spec: EncoderSpec

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.matrix) != len(self.records):
            raise StoreError(f"{len(self.records)} records cannot have embeddings of shape {self.matrix.shape}.")

    def __len__(self) -> int:
        return len(self.records)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.matrix.shape[1])

    def take(self, indices: np.ndarray | Sequence[int]) -> Embeddings:
        """The rows at `indices`, in that order; copied, but where they lie in a store."""
        rows = np.asarray(indices, dtype=np.int64)
        matrix = self.matrix.take(rows) if isinstance(self.matrix, StoredRows) else self.matrix[rows]
        return Embeddings(self.records.take(rows), matrix, self.spec)


@dataclass(frozen=True)
class Plan:
    """An extraction's aim; kept in the store, so that a part of it is known to be a part.

    Args:
        rows: number of records.
        shard_size: rows a shard; the last may be smaller.
        records_digest, content_key: which records and images (see `Records.digest`, `Source.content_key`).
        fingerprint: the encoder's.
        storage: float32 or float16, the type on disk.
        arithmetic: float32 or bfloat16, what the forward pass was computed in; no part of what work it is.
    """

    rows: int
    shard_size: int
    records_digest: str
    content_key: str
    fingerprint: str
    storage: str = "float32"
    arithmetic: str = "float32"

    @property
    def shards(self) -> int:
        """How many shards there will be."""
        return -(-self.rows // self.shard_size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row of a shard and the row after its last."""
        return shard * self.shard_size, min((shard + 1) * self.shard_size, self.rows)


@dataclass(frozen=True)
class EmbeddingStore:
    """A complete store, checked file by file; `read` gives its embeddings.

    Args:
        path: the folder.
        spec: the encoder; of family clip-retrieval where the folder has no `encoder.json`.
        shards: in order.
    """

    path: Path
    spec: EncoderSpec
    shards: tuple[Shard, ...]

    @classmethod
    def open(cls, path: str | Path) -> EmbeddingStore:
        """The store at `path`, ours or clip-retrieval's; reads headers only.

        Raises:
            StoreError: no store there, one that is not complete, a matrix without metadata (or the other way
                round), row counts or dimensions that disagree, a matrix that is not floating.
            EncoderError: an `encoder.json` that cannot be read.
        """
        folder = Path(path).expanduser()
        if not (folder / MATRIX_FOLDER).is_dir():
            found = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
            raise StoreError(
                f"There is no embedding store at {folder}: it must hold {MATRIX_FOLDER}/ and {METADATA_FOLDER}/"
                + (f"; it holds {', '.join(found)}." if found else ".")
            )
        contents, plan = read_contents(folder), read_plan(folder)
        if contents is not None:
            shards = _listed_shards(folder, contents)
        else:
            shards = _shards(folder) if plan is None else _planned_shards(folder, plan)
        dims = {shard.dim for shard in shards}
        if len(dims) > 1:
            raise StoreError(f"The shards of {folder} have different dimensions: {', '.join(map(str, sorted(dims)))}.")
        dim = dims.pop()
        file = folder / ENCODER_FILE
        spec = EncoderSpec.from_json(file.read_text()) if file.is_file() else external_spec({}, dim, "clip-retrieval")
        if spec.dim not in (None, dim):
            raise StoreError(f"{file} says {spec.dim} dimensions, and the embeddings of {folder} have {dim}.")
        return cls(folder, spec, shards)

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def require(self, wanted: EncoderSpec) -> EmbeddingStore:
        """This store, if `wanted` is the encoder that made it.

        Raises:
            EncoderError: it is another, with the fields that differ.
        """
        require_same(self.spec, wanted, f"the store {self.path}")
        return self

    def matrix(self) -> StoredRows:
        """(N, D) float16 where all of it is, else float32; only what is indexed is read, and refused if not finite."""
        files = [MatrixFile(shard.matrix, shard.rows) for shard in self.shards]
        half = all(shard.dtype == np.float16 for shard in self.shards)
        return StoredRows(files, self.dim, np.float16 if half else np.float32)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.shards[0].dim

    def metadata(self) -> pa.Table:
        """The metadata of all shards (see `read_metadata`), one after another (see `stacked`)."""
        return stacked([read_metadata(shard.metadata) for shard in self.shards])

    def read(self) -> Embeddings:
        """Records and embeddings of a store that carries labels, as those that guardtrain writes do.

        Raises:
            DataError: the metadata is no record table, as in a store that clip-retrieval wrote: use `StoreSource`,
                which joins labels.
            StoreError: see `matrix`.
        """
        table = self.metadata()
        records, rows = usable_records(table, self.set_aside(table), f"the store {self.path}")
        matrix = self.matrix()
        return Embeddings(records, matrix if rows is None else matrix.take(rows), self.spec)

    def whole_pairs(self, table: pa.Table) -> np.ndarray | None:
        """The rows of `metadata` but halves of pairs whose other half could not be embedded; None for all of them."""
        return whole_pairs(table, self.set_aside(table))

    def set_aside(self, table: pa.Table | None = None) -> list[SetAside]:
        """The records that could not be embedded, and have not been since.

        Args:
            table: `metadata`, where it is at hand.
        """
        notes = [each for shard in self.shards for each in noted(shard.metadata)]
        return still_set_aside(notes, self.metadata() if table is None and notes else table) if notes else []


def usable_records(table: pa.Table, set_aside: Sequence[SetAside], origin: str) -> tuple[Records, np.ndarray | None]:
    """The records of a store's metadata without halves of pairs whose other half is set aside; and the rows they are.

    Returns:
        the records, and their rows in `table`; None for all.

    Raises:
        DataError: the metadata is no record table.
    """
    if PATH_COLUMN in table.column_names and "image" in table.column_names:
        table = table.drop_columns([PATH_COLUMN])
    rows = whole_pairs(table, set_aside)
    return Records.from_table(table if rows is None else table.take(pa.array(rows)), origin=origin), rows


def _planned_shards(folder: Path, plan: Plan) -> tuple[Shard, ...]:
    """The shards of a store that we wrote: those of its plan, and nothing else that may lie there."""
    written = [shard for i in range(plan.shards) if (shard := committed(folder, plan, i)) is not None]
    if len(written) < plan.shards:
        raise StoreError(
            f"The store {folder} is not complete: {len(written)} of {plan.shards} shards are written. Run the command "
            "that was writing it again; it goes on from there."
        )
    return tuple(written)


def _listed_shards(folder: Path, contents: Contents) -> tuple[Shard, ...]:
    """The shards of a store that was joined, thinned out or added to: those on its list."""
    files = shard_numbers(folder)
    there = [number for number, _ in contents.shards if None not in files.get(number, (None, None))]
    if len(there) < len(contents.shards) or not there:
        raise StoreError(
            f"The store {folder} is not complete: {len(there)} of {len(contents.shards)} shards are written. Run the "
            "command that was writing it again; it goes on from there. If shards were lost, `guardtrain store verify "
            f"path={folder}` says which."
        )
    shards = tuple(whole_shard(folder, number, files[number]) for number, _ in contents.shards)
    for shard, (number, rows) in zip(shards, contents.shards, strict=True):
        if shard.rows != rows:
            raise StoreError(f"Shard {number} of the store {folder} has {shard.rows} rows; it was written with {rows}.")
    return shards


def _shards(folder: Path) -> tuple[Shard, ...]:
    """The shards of a store that others wrote, in order; clip-retrieval pads numbers to the digits it needs."""
    files = shard_numbers(folder)
    matrices = [number for number, (matrix, _) in files.items() if matrix is not None]
    if not matrices:
        raise StoreError(f"The store {folder} has no {MATRIX_FOLDER}/img_emb_*.npy.")
    for number, both in files.items():
        if None in both:
            has, lacks = ("embeddings", "metadata") if both[0] is not None else ("metadata", "embeddings")
            raise StoreError(f"Shard {number} of the store {folder} has {has} and no {lacks}.")
    if gaps := sorted(set(range(max(matrices) + 1)) - files.keys()):
        raise StoreError(f"The store {folder} lacks shard {gaps[0]}: it has {len(matrices)}, up to {max(matrices)}.")
    return tuple(whole_shard(folder, number, both) for number, both in files.items())


# ---------------------------------------------------------------- writing


def shard_files(folder: Path, plan: Plan, shard: int) -> tuple[Path, Path]:
    """Matrix and metadata file of a shard that we write: four digits, or as many as are needed."""
    return file_names(folder, shard, plan.shards)


def committed(folder: Path, plan: Plan, shard: int) -> Shard | None:
    """The shard if it is wholly written, else None. The metadata is written last, so it marks the shard."""
    matrix, metadata = shard_files(folder, plan, shard)
    start, stop = plan.bounds(shard)
    if not (matrix.is_file() and metadata.is_file()):
        return None
    try:
        rows, dim, dtype = matrix_shape(matrix)
        if metadata_rows(metadata) != rows or (rows != stop - start and rows + len(noted(metadata)) != stop - start):
            return None
    except StoreError:
        return None
    return Shard(shard, matrix, metadata, rows, dim, dtype)


def is_store(folder: Path) -> bool:
    """Whether embeddings of anybody's lie in the folder."""
    return any(matrix is not None for matrix, _ in shard_numbers(folder).values())


def read_plan(folder: Path) -> Plan | None:
    """The plan a store was written by; None where there is none (clip-retrieval's stores).

    Raises:
        StoreError: a plan that cannot be read.
    """
    file = folder / PLAN_FILE
    if not file.is_file():
        return None
    try:
        return Plan(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{file} is not the plan of an extraction: {error}") from None


def begin(folder: Path, plan: Plan, spec: EncoderSpec) -> None:
    """Make the folders, and note spec and plan."""
    for sub in (MATRIX_FOLDER, METADATA_FOLDER):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    _write(folder / ENCODER_FILE, lambda file: file.write(spec.to_json().encode()))
    write_plan(folder, plan)


def write_plan(folder: Path, plan: Plan) -> None:
    """Note the plan."""
    _write(folder / PLAN_FILE, lambda file: file.write((json.dumps(asdict(plan), indent=2) + "\n").encode()))


def write_shard(
    folder: Path,
    plan: Plan,
    shard: int,
    matrix: np.ndarray,
    records: Records,
    set_aside: Sequence[SetAside] = (),
) -> None:
    """Write a shard whole or not at all: matrix first, metadata last.

    Args:
        matrix: (rows, D); stored as `plan.storage`.
        records: the shard's records; image paths are stored absolute, and again as `image_path`, for clip-retrieval's
            tools.
        set_aside: the plan's other records of this shard, which have no embedding.

    Raises:
        StoreError: rows that do not fit the plan, or values that are not finite (in `plan.storage`).
    """
    start, stop = plan.bounds(shard)
    rows = stop - start - len(set_aside)
    if len(matrix) != rows or len(records) != rows:
        raise StoreError(f"Shard {shard} has {rows} rows; got {len(matrix)} embeddings, {len(records)} records.")
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused below
        stored = np.ascontiguousarray(matrix, dtype=plan.storage)
    if (bad := np.flatnonzero(~np.isfinite(stored).all(axis=1))).size:
        raise StoreError(
            f"The embeddings of {len(bad)} images are not finite as {plan.storage}, first {records.ids[bad[0]]}."
        )
    matrix_file, metadata_file = shard_files(folder, plan, shard)
    write_files(folder, matrix_file, metadata_file, stored, annotated(shard_metadata(records), set_aside))


def shard_metadata(records: Records) -> pa.Table:
    """The metadata of a shard of these records, see `write_shard`."""
    uris = pa.array(records.image_uris(), pa.string())
    table = records.table.set_column(SCHEMA.get_field_index("image"), "image", uris)
    return table if PATH_COLUMN in table.column_names else table.append_column(PATH_COLUMN, uris)


def write_files(folder: Path, matrix_file: Path, metadata_file: Path, matrix: np.ndarray, table: pa.Table) -> None:
    """Write a shard's files in the order that makes it whole at once: matrix, checksums, metadata.

    Args:
        folder: the store's.
        matrix_file, metadata_file: the shard's files.
        matrix: (rows, D), as it is to be stored.
        table: of as many rows.
    """
    metadata = parquet_bytes(table)
    _write(matrix_file, lambda file: np.save(file, matrix, allow_pickle=False))
    write_checksums(folder, matrix_file, metadata_file, metadata)
    _write(metadata_file, lambda file: file.write(metadata))


def parquet_bytes(table: pa.Table) -> memoryview:
    """A metadata file's content."""
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    return memoryview(content.getvalue())


def _write(file: Path, writer: Callable[[BinaryIO], object]) -> None:
    """Hand `writer` a file that becomes `file` once it is whole."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            writer(handle)

    replace_file(file, write)
