"""Which rows of a store to keep: by their metadata, by id, or one of each image."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.embeddings.disputes import check_disputed, ways_out
from guardtrain.embeddings.renewal import HASH_COLUMN
from guardtrain.embeddings.store import EmbeddingStore
from guardtrain.errors import ConfigError, DataError
from guardtrain.files import replace_file
from guardtrain.sources.cells import text_of
from guardtrain.sources.choosing import keep_where
from guardtrain.sources.tables import FORMATS, read_table
from guardtrain.sources.text_tables import decoded
from guardtrain.words import listed, near

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
    conditions = dict(where or {}) | ({} if split is None else {"split": split})
    rows = np.asarray(keep_where(table, conditions, origin)[_ROW].to_numpy())
    if (usable := store.whole_pairs(whole)) is not None:
        rows = np.intersect1d(rows, usable)
        if not len(rows):
            raise DataError(f"All rows of {origin} that meet `where` and `split` are halves whose other was set aside.")
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
    """The result of `distinct_rows`.

    Args:
        rows: `(n,)` rows to keep, ascending: the first of each image, or its halves of pairs.
        removed: how many rows that leaves out.
        paired: how many further rows are the same image and stay, for a pair needs them.
        by_file: how many rows are an image that is there before by the hash of their files.
        by_embedding: how many more are one by their embeddings' bytes alone.
        disputed: of each image that is there with two labels, the first id with either, and the label.
    """

    rows: np.ndarray
    removed: int
    paired: int
    by_file: int
    by_embedding: int
    disputed: tuple[tuple[tuple[str, Any], ...], ...]


def distinct_rows(store: EmbeddingStore, disputed: str = "error") -> Duplicates:
    """One row of each image: rows are one image if their files have one hash, or their embeddings the same bytes.

    So a file that was written anew without loss is known as well. A half of a pair is never left out for being there
    before, as the other half would be worth nothing; one whose other half was set aside is.

    Args:
        store: any.
        disputed: of an image that is there as safe and as unsafe: `error`, keep the `first` or the `last` row, or
            `drop` all of them, and with them the other halves of their pairs.

    Raises:
        ConfigError: a value of `disputed` that there is not.
        DataError: images with two labels, counted and named, where `disputed` does not say what counts.
    """
    check_disputed(disputed)
    table = store.metadata()
    usable = store.whole_pairs(table)
    rows = np.arange(len(table)) if usable is None else usable
    pairs = _cells(table, "pair_id", rows)
    paired = np.array([pair not in (None, "") for pair in pairs], dtype=bool)
    digests = _embedding_digests(store)
    file = _numbered([row if known is None else known for row, known in enumerate(_cells(table, HASH_COLUMN, rows))])
    image = _united(file, _numbered([digests[row] for row in rows.tolist()]))
    conflicts = _conflicts(table, rows, image, f"the store {store.path}")
    if conflicts and disputed == "error":
        told = [", ".join(f"{name} ({label})" for name, label in each) for each in conflicts.values()]
        raise DataError(
            f"In the store {store.path} {len(told):,} image{'s have' if len(told) > 1 else ' has'} two labels: "
            + "; ".join(told[:3])
            + (f" and {len(told) - 3:,} more. " if len(told) > 3 else ". ")
            + ways_out("the first row's counts", "the last row's", "neither, nor the other halves of their pairs")
        )
    contradicting = np.isin(image, list(conflicts))
    place = np.arange(len(rows))
    order = np.lexsort((np.where(contradicting & (disputed == "last"), -place, place), ~paired, image))
    kept = paired.copy()
    kept[order[np.unique(image[order], return_index=True)[1]]] = True
    if disputed == "drop":
        broken = {pair for pair, lost in zip(pairs, contradicting, strict=True) if lost} - {None, ""}
        kept &= ~contradicting & ~np.array([pair in broken for pair in pairs], dtype=bool)
    return Duplicates(
        rows[kept],
        len(table) - int(kept.sum()),
        int(kept.sum()) - len(np.unique(image[kept])),
        len(rows) - len(np.unique(file)),
        len(np.unique(file)) - len(np.unique(image)),
        tuple(conflicts.values()),
    )


def _cells(table: pa.Table, name: str, rows: np.ndarray) -> list[Any]:
    """A column's values in `rows`; None where there is no such column."""
    if name not in table.column_names:
        return [None] * len(rows)
    cells: list[Any] = table[name].take(pa.array(rows)).to_pylist()
    return cells


def _numbered(values: Sequence[Hashable]) -> np.ndarray:
    """`(n,)` int64: the same number for the same value."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _united(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`(n,)`: the same number for rows that either of `a` and `b` `(n,)` gives the same, and for those in between."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.arange(len(a))
    first = [np.unique(numbers, return_index=True)[1][numbers] for numbers in (a, b)]
    edges = np.concatenate(first), np.tile(rows, 2)
    graph = coo_array((np.ones(2 * len(a), dtype=bool), edges), shape=(len(a), len(a)))
    numbers: np.ndarray = connected_components(graph, directed=False)[1]
    return numbers


def _conflicts(
    table: pa.Table, rows: np.ndarray, image: np.ndarray, origin: str
) -> dict[int, tuple[tuple[str, Any], ...]]:
    """Return the ids and labels of rows whose image has more than one label."""
    labels, names = _cells(table, "label", rows), row_ids(table, origin)
    found: dict[int, dict[Any, tuple[str, Any]]] = {}
    for row, number, label in zip(rows.tolist(), image.tolist(), labels, strict=True):
        if label is not None:
            found.setdefault(number, {}).setdefault(label, (names[row], label))
    return {number: tuple(each.values()) for number, each in found.items() if len(each) > 1}


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
            lines = decoded(Path(path).read_bytes(), path).splitlines()
        except OSError as error:
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
