"""Which rows of a store to keep: by their metadata, by id, or one of each image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.embeddings.renewal import HASH_COLUMN
from guardtrain.embeddings.store import EmbeddingStore
from guardtrain.errors import ConfigError, DataError
from guardtrain.files import replace_file
from guardtrain.sources.tables import FORMATS, keep_where, listed, near, read_table, text_of

HALVES = ("error", "drop", "complete")
_ROW = "__row__"


def row_ids(table: pa.Table, origin: str) -> list[str]:
    """The ids of a store's rows: `id`, or `image_path` in a store that clip-retrieval wrote.

    Raises:
        DataError: neither is there, or one is null.
    """
    name = next((name for name in ("id", "image_path") if name in table.column_names), None)
    if name is None:
        raise DataError(f"{origin} has no column 'id' or 'image_path' (metadata: {listed(table.column_names, 20)}).")
    ids = table[name].to_pylist()
    if None in ids:
        raise DataError(f"Column '{name}' of {origin} is empty in row {ids.index(None)}; every row needs one.")
    return [str(text_of(i)) for i in ids]


def matching_rows(
    store: EmbeddingStore,
    *,
    where: Mapping[str, Any] | None = None,
    split: str | None = None,
    ids: Sequence[str] | None = None,
    halves: str = "error",
) -> np.ndarray:
    """Rows of `store`, ascending, that meet all that is given; never a half whose other half was set aside.

    Args:
        where: column of the metadata -> value or list of values.
        split: train, val or test.
        ids: ids to keep.
        halves: of a pair of which one half is kept: `error`, `drop` it too, or `complete` it with the other.

    Raises:
        DataError: no such column or ids, no row left, or halves of pairs.
    """
    if halves not in HALVES:
        raise ConfigError(f"halves is '{halves}'; allowed: {', '.join(HALVES)}.")
    origin = f"the store {store.path}"
    whole = store.metadata()
    table = whole.append_column(_ROW, pa.array(np.arange(len(whole))))
    if (usable := store.whole_pairs(whole)) is not None:
        table = table.take(pa.array(usable))
    conditions = dict(where or {}) | ({} if split is None else {"split": split})
    table = keep_where(table, conditions, origin)
    rows = np.asarray(table[_ROW].to_numpy())
    if ids is not None:
        row_of = {i: row for row, i in enumerate(row_ids(whole, origin))}
        if absent := [i for i in ids if i not in row_of]:
            raise DataError(
                f"{len(absent)} of {len(ids)} ids are not in {origin}: {listed(absent, 3)}.{near(absent[0], row_of)} "
                f"Ids there look like: {listed(list(row_of)[:3], 3)}."
            )
        rows = np.intersect1d(rows, np.array([row_of[i] for i in ids], dtype=np.int64))
        if not len(rows):
            raise DataError(f"None of the {len(ids)} ids of {origin} meets `where` and `split`.")
    return _with_whole_pairs(whole, rows, halves, origin)


def _with_whole_pairs(table: pa.Table, rows: np.ndarray, halves: str, origin: str) -> np.ndarray:
    if "pair_id" not in table.column_names:
        return rows
    names, pair = np.unique([p or "" for p in table["pair_id"].to_pylist()], return_inverse=True)
    size, kept = np.bincount(pair), np.bincount(pair[rows], minlength=len(names))
    halved = (kept > 0) & (kept < size) & (names != "")
    if not halved.any():
        return rows
    if halves == "error":
        raise DataError(
            f"This keeps one half of {int(halved.sum())} pairs of {origin}: {listed(names[halved], 3)}. Say "
            "halves=complete to keep the others too, or halves=drop to leave both out."
        )
    if halves == "drop":
        left = rows[~halved[pair[rows]]]
        if not len(left):
            raise DataError(f"Nothing but halves of pairs of {origin} is left; halves=complete keeps the others too.")
        return left
    return np.union1d(rows, np.flatnonzero(halved[pair]))


@dataclass(frozen=True)
class Duplicates:
    """What `distinct_rows` found.

    Args:
        rows: `(n,)` rows to keep, ascending: the first of each image, or its half of a pair.
        removed: how many rows that leaves out.
        paired: how many further rows are the same image and stay, for a pair needs them.
        by: what was compared: `sha256` (of the image files) or `embedding`.
        disputed: ids of images that are there as safe and as unsafe.
    """

    rows: np.ndarray
    removed: int
    paired: int
    by: str
    disputed: tuple[str, ...]


def distinct_rows(store: EmbeddingStore) -> Duplicates:
    """One row of each image: equal by the hash of their files where the store has it, else by their embeddings' bytes.

    An image that is half of a pair is never left out, as the other half would be worth nothing; one whose other half
    was set aside is.
    """
    table = store.metadata()
    origin = f"the store {store.path}"
    known = table[HASH_COLUMN].to_pylist() if HASH_COLUMN in table.column_names else [None] * len(table)
    by = HASH_COLUMN if any(value is not None for value in known) else "embedding"
    digests = _embedding_digests(store) if None in known else []
    keys = [f"{value}" if value is not None else f"row {digests[i]}" for i, value in enumerate(known)]
    pairs = table["pair_id"].to_pylist() if "pair_id" in table.column_names else [None] * len(table)
    usable = store.whole_pairs(table)
    rows = range(len(table)) if usable is None else usable.tolist()
    first: dict[str, int] = {}
    for i in rows:
        if keys[i] not in first or (pairs[i] is not None and pairs[first[keys[i]]] is None):
            first[keys[i]] = i
    kept = [i for i in rows if pairs[i] is not None or first[keys[i]] == i]
    paired = sum(first[keys[i]] != i for i in kept)
    disputed: dict[str, None] = {}
    if "label" in table.column_names:
        labels, ids = table["label"].to_pylist(), row_ids(table, origin)
        for i in rows:
            if labels[i] != labels[first[keys[i]]]:
                disputed |= {ids[first[keys[i]]]: None, ids[i]: None}
    return Duplicates(np.array(kept, dtype=np.int64), len(table) - len(kept), paired, by, tuple(disputed))


def _embedding_digests(store: EmbeddingStore) -> list[str]:
    return [
        hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).hexdigest()
        for block in store.matrix().blocks()
        for row in block
    ]


def read_ids(path: str) -> list[str]:
    """Ids from a file: one a line, or the column `id` of a table.

    Raises:
        DataError: no such file, or a table without ids.
    """
    if not path.lower().endswith(FORMATS):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"The ids of {path} cannot be read: {error}") from error
        return [line.strip() for line in lines if line.strip()]
    table = read_table(path, ["id"])
    if "id" not in table.column_names:
        raise DataError(f"The table {path} has no column 'id'.{near('id', table.column_names)}")
    return [str(value) for value in table["id"].to_pylist()]


def write_record_table(store: EmbeddingStore, rows: np.ndarray, out: Path) -> None:
    """The metadata of `rows` as a Parquet table, which `StoreSource(path, manifest=out)` joins with the store."""
    import pyarrow.parquet as pq

    table = store.metadata().take(pa.array(rows))
    if "id" not in table.column_names:
        table = table.append_column("id", pa.array(row_ids(table, f"the store {store.path}")))
    replace_file(out, lambda path: pq.write_table(table, path))
