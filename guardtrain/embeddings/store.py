"""Embeddings and their records on disk, in clip-retrieval's layout with the encoder's spec beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from guardtrain.encoders.spec import EncoderSpec, external_spec, require_same
from guardtrain.errors import StoreError
from guardtrain.files import replace_file
from guardtrain.records import SCHEMA, Records

ENCODER_FILE = "encoder.json"
PLAN_FILE = "extraction.json"
_MATRIX_FOLDER, _METADATA_FOLDER = "img_emb", "metadata"
_MATRIX_NAME = r"img_emb_(\d+)\.npy"
_CHECK_ROWS = 65536  # rows a step of the finiteness check, so that a memory-mapped matrix is not read whole


@dataclass(frozen=True)
class Embeddings:
    """Records and their embeddings: what everything downstream works on.

    Args:
        records: N records.
        matrix: (N, D) float16 or float32, row i belonging to record i; may be memory-mapped, read-only.
        spec: the encoder that made it.
    """

    records: Records
    matrix: np.ndarray
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
        """The rows at `indices`, in that order, copied."""
        rows = np.asarray(indices, dtype=np.int64)
        return Embeddings(self.records.take(rows), self.matrix[rows], self.spec)


@dataclass(frozen=True)
class Plan:
    """What an extraction set out to write; kept in the store, so that a part of it is known to be a part.

    Args:
        rows: number of records.
        shard_size: rows a shard; the last may be smaller.
        records_digest, content_key: which records and images (see `Records.digest`, `Source.content_key`).
        fingerprint: the encoder's.
        storage: float32 or float16, the type on disk.
    """

    rows: int
    shard_size: int
    records_digest: str
    content_key: str
    fingerprint: str
    storage: str = "float32"

    @property
    def shards(self) -> int:
        """How many shards there will be."""
        return -(-self.rows // self.shard_size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row of a shard and the row after its last."""
        return shard * self.shard_size, min((shard + 1) * self.shard_size, self.rows)


@dataclass(frozen=True)
class Shard:
    """One shard's files and the number of its rows."""

    number: int
    matrix: Path
    metadata: Path
    rows: int
    dim: int


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
        if not (folder / _MATRIX_FOLDER).is_dir():
            found = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
            raise StoreError(
                f"There is no embedding store at {folder}: it must hold {_MATRIX_FOLDER}/ and {_METADATA_FOLDER}/"
                + (f"; it holds {', '.join(found)}." if found else ".")
            )
        plan = read_plan(folder)
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

    def matrix(self) -> np.ndarray:
        """(N, D) float16 or float32: memory-mapped where there is one shard, else read into one array.

        Raises:
            StoreError: values that are not finite, with the shard and its first such row.
        """
        parts = []
        for shard in self.shards:
            part = np.load(shard.matrix, mmap_mode="r", allow_pickle=False)
            for start in range(0, len(part), _CHECK_ROWS):
                bad = np.flatnonzero(~np.isfinite(part[start : start + _CHECK_ROWS]).all(axis=1))
                if len(bad):
                    raise StoreError(f"{shard.matrix} holds values that are not finite, first in row {start + bad[0]}.")
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def metadata(self) -> pa.Table:
        """The metadata of all shards, as it is on disk."""
        tables = [pq.read_table(shard.metadata) for shard in self.shards]
        return pa.concat_tables(tables, promote_options="permissive")

    def read(self) -> Embeddings:
        """Records and embeddings of a store that carries labels, as those that guardtrain writes do.

        Raises:
            DataError: the metadata is no record table, as in a store that clip-retrieval wrote: use `StoreSource`,
                which joins labels.
            StoreError: see `matrix`.
        """
        table = self.metadata()
        if "image_path" in table.column_names and "image" in table.column_names:
            table = table.drop_columns(["image_path"])  # written for clip-retrieval's tools
        return Embeddings(Records.from_table(table, origin=f"the store {self.path}"), self.matrix(), self.spec)


def _planned_shards(folder: Path, plan: Plan) -> tuple[Shard, ...]:
    """The shards of a store that we wrote: those of its plan, and nothing else that may lie there."""
    written = [shard for i in range(plan.shards) if (shard := committed(folder, plan, i)) is not None]
    if len(written) < plan.shards:
        raise StoreError(
            f"The store {folder} is not complete: {len(written)} of {plan.shards} shards are written. Run the command "
            "that was writing it again; it goes on from there."
        )
    return tuple(written)


def _shards(folder: Path) -> tuple[Shard, ...]:
    """The shards of a store that others wrote, in order; clip-retrieval pads numbers to the digits it needs."""
    matrices = _numbered(folder / _MATRIX_FOLDER, _MATRIX_NAME)
    metadata = _numbered(folder / _METADATA_FOLDER, r"metadata_(\d+)\.parquet")
    if not matrices:
        raise StoreError(f"The store {folder} has no {_MATRIX_FOLDER}/img_emb_*.npy.")
    if alone := sorted(matrices.keys() ^ metadata.keys()):
        number = alone[0]
        has, lacks = ("embeddings", "metadata") if number in matrices else ("metadata", "embeddings")
        raise StoreError(f"Shard {number} of the store {folder} has {has} and no {lacks}.")
    if gaps := sorted(set(range(max(matrices) + 1)) - matrices.keys()):
        raise StoreError(f"The store {folder} lacks shard {gaps[0]}: it has {len(matrices)}, up to {max(matrices)}.")
    shards = []
    for number in sorted(matrices):
        rows, dim = _matrix_shape(matrices[number])
        if (noted := _metadata_rows(metadata[number])) != rows:
            raise StoreError(f"Shard {number} of the store {folder} has {rows} embeddings and metadata of {noted}.")
        shards.append(Shard(number, matrices[number], metadata[number], rows, dim))
    return tuple(shards)


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    matches = ((re.fullmatch(pattern, p.name), p) for p in folder.iterdir())
    return {int(m.group(1)): p for m, p in matches if m}


def _matrix_shape(file: Path) -> tuple[int, int]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StoreError(f"{file} is no whole array: {error}") from error
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32, np.float64):
        raise StoreError(f"{file} must be (rows, dimensions) of floating type; it is {array.shape} {array.dtype}.")
    return int(array.shape[0]), int(array.shape[1])


def _metadata_rows(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{file} is no whole Parquet file: {error}") from error


# ---------------------------------------------------------------- writing


def shard_files(folder: Path, plan: Plan, shard: int) -> tuple[Path, Path]:
    """Matrix and metadata file of a shard that we write: four digits, or as many as are needed."""
    digits = max(4, len(str(plan.shards - 1)))
    return (
        folder / _MATRIX_FOLDER / f"img_emb_{shard:0{digits}d}.npy",
        folder / _METADATA_FOLDER / f"metadata_{shard:0{digits}d}.parquet",
    )


def committed(folder: Path, plan: Plan, shard: int) -> Shard | None:
    """The shard if it is wholly written, else None. The metadata is written last, so it marks the shard."""
    matrix, metadata = shard_files(folder, plan, shard)
    start, stop = plan.bounds(shard)
    if not (matrix.is_file() and metadata.is_file()):
        return None
    try:
        rows, dim = _matrix_shape(matrix)
        if rows != stop - start or _metadata_rows(metadata) != rows:
            return None
    except StoreError:
        return None
    return Shard(shard, matrix, metadata, rows, dim)


def is_store(folder: Path) -> bool:
    """Whether embeddings of anybody's lie in the folder."""
    return bool(_numbered(folder / _MATRIX_FOLDER, _MATRIX_NAME))


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
    for sub in (_MATRIX_FOLDER, _METADATA_FOLDER):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    _write(folder / ENCODER_FILE, lambda file: file.write(spec.to_json().encode()))
    _write(folder / PLAN_FILE, lambda file: file.write((json.dumps(asdict(plan), indent=2) + "\n").encode()))


def write_shard(folder: Path, plan: Plan, shard: int, matrix: np.ndarray, records: Records) -> None:
    """Write a shard whole or not at all: matrix first, metadata last.

    Args:
        matrix: (rows, D); stored as `plan.storage`.
        records: the shard's records; image paths are stored absolute, and again as `image_path`, which is the name
            clip-retrieval's tools look for.

    Raises:
        StoreError: rows that do not fit the plan, or values that are not finite (in `plan.storage`).
    """
    start, stop = plan.bounds(shard)
    if len(matrix) != stop - start or len(records) != stop - start:
        raise StoreError(
            f"Shard {shard} has {stop - start} rows; got {len(matrix)} embeddings, {len(records)} records."
        )
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused below
        stored = np.ascontiguousarray(matrix, dtype=plan.storage)
    if (bad := np.flatnonzero(~np.isfinite(stored).all(axis=1))).size:
        raise StoreError(
            f"The embeddings of {len(bad)} images are not finite as {plan.storage}, first {records.ids[bad[0]]}."
        )
    uris = pa.array(records.image_uris(), pa.string())
    table = records.table.set_column(SCHEMA.get_field_index("image"), "image", uris)
    if "image_path" not in table.column_names:
        table = table.append_column("image_path", uris)
    matrix_file, metadata_file = shard_files(folder, plan, shard)
    _write(matrix_file, lambda file: np.save(file, stored, allow_pickle=False))
    _write(metadata_file, lambda file: pq.write_table(table, file))


def _write(file: Path, writer: Callable[[BinaryIO], object]) -> None:
    """Hand `writer` a file that becomes `file` once it is whole."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            writer(handle)

    replace_file(file, write)
