"""A store made of rows of others: whole shards are linked, the rest is written anew, nothing is computed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from guardtrain.embeddings.checksums import checksums_file
from guardtrain.embeddings.contents import Contents, read_contents
from guardtrain.embeddings.differences import differences
from guardtrain.embeddings.journal import current, read_current
from guardtrain.embeddings.quarantine import annotated, noted, noted_in, write_list
from guardtrain.embeddings.renewal import Renewal
from guardtrain.embeddings.rows import MatrixFile, StoredRows
from guardtrain.embeddings.shards import Shard, file_names, matrix_shape, metadata_rows, read_metadata
from guardtrain.embeddings.store import ENCODER_FILE, EmbeddingStore, is_store, read_plan, write_files
from guardtrain.embeddings.writing import named_failures, only_writer
from guardtrain.errors import StoreError
from guardtrain.file_names import path_text
from guardtrain.files import replace_file
from guardtrain.sources.stacking import stacked


@dataclass(frozen=True)
class Piece:
    """A shard to be: rows `(n,)`, ascending, of shards of others counted through all of them, or one of these whole."""

    rows: np.ndarray
    whole: Shard | None = None


def pieces_of(shards: Sequence[Shard], kept: np.ndarray) -> list[Piece]:
    """How rows of `shards` make up a new store: a shard that is kept whole stays as it is, others are filled up.

    Args:
        shards: in order.
        kept: `(n,)` int64 rows, ascending, counted through all of them.
    """
    starts = np.cumsum([0, *(shard.rows for shard in shards)])
    bounds = np.searchsorted(kept, starts)
    size = max(1, *(shard.rows for shard in shards))
    pieces: list[Piece] = []
    waiting: list[np.ndarray] = []

    def flush(all_of_it: bool) -> None:
        rows = np.concatenate([*waiting, np.empty(0, np.int64)])
        cut = len(rows) if all_of_it else len(rows) // size * size
        pieces.extend(Piece(rows[start : min(start + size, cut)]) for start in range(0, cut, size))
        waiting[:] = [rows[cut:]] if cut < len(rows) else []

    for number, shard in enumerate(shards):
        own = kept[bounds[number] : bounds[number + 1]]
        if len(own) == shard.rows and shard.rows:
            flush(all_of_it=True)
            pieces.append(Piece(own, shard))
        else:
            waiting.append(own)
            flush(all_of_it=False)
    flush(all_of_it=True)
    return pieces


def build_store(
    out: str | Path,
    sources: Sequence[EmbeddingStore],
    kept: np.ndarray,
    what: str,
    advance: Callable[[int], None] = lambda rows: None,
) -> EmbeddingStore:
    """The store at `out` of the rows `kept` of `sources`; a part that is there already, of the same work, is kept.

    What was mended in the metadata of `sources` since it was made is renewed, and said in a line of the log.

    Args:
        out: its folder.
        sources: one or more, of one encoder; the spec is the first one's.
        kept: `(n,)` int64 rows, ascending, counted through all of them.
        what: the operation, a part of what tells this work from other work.
        advance: told how many rows each step was.

    Raises:
        StoreError: no rows, `out` holds other work or is a source, another process writes there, or it cannot be
            written to.
    """
    folder = Path(out).expanduser()
    if not len(kept):
        raise StoreError(f"No row is left for the store {folder}, so it is not made.")
    if any(folder.resolve() == source.path.resolve() for source in sources):
        raise StoreError(f"out is the store {folder} itself; give the new one a folder of its own.")
    shards = [shard for source in sources for shard in source.shards]
    pieces = pieces_of(shards, kept)
    work = Contents(tuple((i, len(piece.rows)) for i, piece in enumerate(pieces)), _key(what, shards, kept))
    with only_writer(folder), named_failures(folder):
        if read_contents(folder) != work:
            if is_store(folder) or read_contents(folder) is not None or read_plan(folder) is not None:
                raise StoreError(f"The folder {folder} holds another store: choose another folder, or delete that one.")
            if (sources[0].path / ENCODER_FILE).is_file():
                text = sources[0].spec.to_json()
                replace_file(folder / ENCODER_FILE, lambda path: path.write_text(text, encoding="utf-8"))
            work.write(folder)
        before = []
        for number, piece in enumerate(pieces):
            if not _write_piece(folder, file_names(folder, number, len(pieces)), shards, piece):
                before.append(number)
            advance(len(piece.rows))
        store = EmbeddingStore.open(folder)
        _renewal(shards, [(store.shards[number], pieces[number]) for number in before]).write(folder)
        list_set_aside(store)
    return store


def list_set_aside(store: EmbeddingStore) -> None:
    """Write the store's `quarantine.parquet` from the notes in its shards."""
    with named_failures(store.path):
        write_list(store.path, store.set_aside())


def _key(what: str, shards: Sequence[Shard], kept: np.ndarray) -> str:
    digest = hashlib.sha256(what.encode())
    for shard in shards:
        stat = shard.matrix.stat()
        digest.update(f"{path_text(shard.matrix.absolute())}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    digest.update(np.ascontiguousarray(kept, dtype=np.int64).data)
    return digest.hexdigest()


def _write_piece(folder: Path, names: tuple[Path, Path], shards: Sequence[Shard], piece: Piece) -> bool:
    """Write the piece, and say whether it was not there yet."""
    matrix, metadata = names
    if _is_whole(matrix, metadata, len(piece.rows)):
        return False
    if piece.whole is not None:
        link_shard(folder, names, piece.whole)
    else:
        rows = StoredRows([MatrixFile(shard.matrix, shard.rows) for shard in shards], shards[0].dim, _dtype(shards))
        write_files(folder, matrix, metadata, rows[piece.rows], metadata_of(shards, piece.rows))
    return True


def _renewal(shards: Sequence[Shard], there: Sequence[tuple[Shard, Piece]]) -> Renewal:
    """Return what has changed, since they were made, in the metadata that pieces are made of."""
    tables, before, after = [], list[pa.Table](), list[pa.Table]()
    for shard, piece in there:
        if piece.whole is not None and current(shard.metadata).samefile(current(piece.whole.metadata)):
            continue
        old, now = read_metadata(shard.metadata), metadata_of(shards, piece.rows)
        if differences(_names(now), old, now) or noted(shard.metadata) != noted_in(now):
            tables.append((shard, now))
            before.append(old)
            after.append(now)
    if not tables:
        return Renewal((), ())
    whole = stacked(after)
    return Renewal(tuple(tables), tuple(differences(_names(whole), stacked(before), whole)))


def _names(table: pa.Table) -> list[str]:
    """Return what rows are called in a message."""
    return [str(name) for name in (table["id"].to_pylist() if "id" in table.column_names else range(len(table)))]


def _is_whole(matrix: Path, metadata: Path, rows: int) -> bool:
    if not (matrix.is_file() and metadata.is_file()):
        return False
    try:
        return matrix_shape(matrix)[0] == rows == metadata_rows(metadata)
    except StoreError:
        return False


def _dtype(shards: Sequence[Shard]) -> type[np.floating]:
    return np.float16 if all(shard.dtype == np.float16 for shard in shards) else np.float32


def link_shard(folder: Path, names: tuple[Path, Path], shard: Shard) -> None:
    """Link the files under other names, and checksums under those; the metadata comes last, as it marks a shard."""
    matrix, metadata = names
    link_file(shard.matrix, matrix)
    sums = checksums_file(shard.matrix.parent.parent, shard.matrix)
    if sums.is_file():
        text = read_current(sums, lambda path: path.read_text(encoding="utf-8"))
        for old, new in ((shard.matrix, matrix), (shard.metadata, metadata)):
            text = text.replace(f"{old.parent.name}/{old.name}\n", f"{new.parent.name}/{new.name}\n")
        replace_file(checksums_file(folder, matrix), lambda path: path.write_text(text, encoding="utf-8"))
    read_current(shard.metadata, lambda path: link_file(path, metadata))


def link_file(file: Path, to: Path) -> None:
    """`to` is the same file as `file`, which nobody writes into, or a copy where a file system has no such links."""

    def write(temporary: Path) -> None:
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)

    to.unlink(missing_ok=True)  # renaming a file onto itself under another name would leave both
    replace_file(to, write)


def metadata_of(shards: Sequence[Shard], rows: np.ndarray) -> pa.Table:
    """The metadata of `rows`, ascending and counted through all shards; only their shards' files are read."""
    starts = np.cumsum([0, *(shard.rows for shard in shards)])
    bounds = np.searchsorted(rows, starts)
    tables = [
        read_metadata(shard.metadata).take(pa.array(rows[first:last] - start))
        for shard, start, first, last in zip(shards, starts, bounds, bounds[1:], strict=False)
        if last > first
    ]
    # The notes of what is missing from the shards go along: halves of pairs must be known to have lost the other.
    touched = (shard for shard, first, last in zip(shards, bounds, bounds[1:], strict=False) if last > first)
    notes = [each for shard in touched for each in noted(shard.metadata)]
    return annotated(stacked(tables).replace_schema_metadata(None), notes)
