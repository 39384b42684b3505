"""Several stores of one encoder joined to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from guardtrain.embeddings.arithmetic import cosines
from guardtrain.embeddings.build import build_store
from guardtrain.embeddings.differences import Difference, differences
from guardtrain.embeddings.disputes import check_disputed, examples, ways_out
from guardtrain.embeddings.quarantine import still_set_aside
from guardtrain.embeddings.renewal import HASH_COLUMN
from guardtrain.embeddings.rows import MatrixFile, StoredRows
from guardtrain.embeddings.selection import row_ids
from guardtrain.embeddings.store import PATH_COLUMN, EmbeddingStore, usable_records
from guardtrain.encoders.spec import require_same
from guardtrain.errors import ConfigError, DataError
from guardtrain.sources.stacking import stacked
from guardtrain.words import listed

DUPLICATES = ("error", "first")
_BLOCK_ROWS = 8192
_SAME_IMAGE = 1e-3  # 1 - cosine: what float16 and bfloat16 make of one image stays far below


def merge_stores(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    duplicates: str = "error",
    disputed: str = "error",
    advance: Callable[[int], None] = lambda rows: None,
    say: Callable[[str], None] = lambda text: None,
) -> EmbeddingStore:
    """The rows of all stores in order, as a new store at `out`; shards that are taken whole are linked, not copied.

    An id that is in several stores must name one image with one label. Where the labels differ, or the embeddings are
    not those of one image, its rows contradict each other, and that is an error unless `disputed` says which counts. Of
    other columns the kept row's counts, and a line says how many differ.

    Args:
        paths: two or more stores.
        out: the new store's folder.
        duplicates: of an id that is in several: `error`, or keep the `first`.
        disputed: of rows of one id that contradict each other: `error`, keep the `first` or the `last`, or `drop` all
            of them, and with them the other halves of their pairs.
        advance: told how many rows each step was.
        say: told what differs.

    Raises:
        ConfigError: fewer than two stores, or a value of `duplicates` or `disputed` that is not allowed.
        EncoderError: they come from different encoders, with the fields that differ.
        DataError: ids that are in several, named; rows that contradict each other; stores whose pairs or groups do not
            go together; metadata without ids.
        StoreError: see `EmbeddingStore.open` and `build_store`.
    """
    if duplicates not in DUPLICATES:
        raise ConfigError(f"duplicates is '{duplicates}'; allowed: {', '.join(DUPLICATES)}.")
    check_disputed(disputed)
    if len(paths) < 2:
        raise ConfigError(f"To merge takes two stores or more; got {len(paths)}.")
    stores = [EmbeddingStore.open(path) for path in paths]
    for store in stores[1:]:
        require_same(store.spec, stores[0].spec, f"the store {store.path}")
    tables = [store.metadata() for store in stores]
    names = [name for s, t in zip(stores, tables, strict=True) for name in row_ids(t, f"the store {s.path}")]
    home = np.repeat(np.arange(len(stores)), [len(store) for store in stores])
    first: dict[str, int] = {}
    again = [(first[name], row) for row, name in enumerate(names) if first.setdefault(name, row) != row]
    kept = np.array(sorted(first.values()), dtype=np.int64)
    if again:
        if duplicates == "error":
            places: dict[str, list[str]] = {}
            for one, other in again:
                places.setdefault(names[one], [str(stores[home[one]].path)]).append(str(stores[home[other]].path))
            told = [f"{name} ({' and '.join(where)})" for name, where in places.items()]
            raise DataError(
                f"{len(told)} ids are in the stores more than once: {listed(told, 3)}. Say duplicates=first to keep "
                "the first of each."
            )
        kept = _settled(stores, stacked(tables), names, np.array(again, dtype=np.int64), kept, disputed, say)
    _check_whole(stores, tables, kept)
    return build_store(out, stores, kept, "merge", advance)


def _settled(
    stores: Sequence[EmbeddingStore],
    table: pa.Table,
    names: Sequence[str],
    again: np.ndarray,
    kept: np.ndarray,
    disputed: str,
    say: Callable[[str], None],
) -> np.ndarray:
    """The rows to keep where ids are there more than once.

    Args:
        again: `(k, 2)` the first row of an id, and a further one.
        kept: the first row of every id.
    """
    ids = [names[row] for row in again[:, 0]]
    before, now = (table.take(pa.array(rows)) for rows in again.T)
    ignored = {"image", PATH_COLUMN, HASH_COLUMN}
    labels = [each for each in differences(ids, before, now, ignored) if each.column == "label"]
    images = _other_images(stores, again)
    contradicting = np.union1d(labels[0].rows if labels else [], images).astype(np.int64)
    if len(contradicting) and disputed == "error":
        raise DataError(_contradiction(labels, [ids[i] for i in images]))
    agreeing = np.setdiff1d(np.arange(len(again)), contradicting)
    same = [part.take(pa.array(agreeing)) for part in (before, now)]
    if others := differences([ids[i] for i in agreeing], same[0], same[1], ignored):
        text = "; ".join(each.text(("first ", "later ")) for each in others)
        say(f"of ids that are there more than once the first row counts: {text}")
    if len(contradicting) and disputed != "first":
        ends = {int(one): int(other) for one, other in again}  # the last row of each id
        dropped = sorted({int(again[i, 0]) for i in contradicting})
        kept = np.setdiff1d(kept, dropped)
        if disputed == "last":
            return np.union1d(kept, [ends[row] for row in dropped])
        return _without_pairs_of(table, kept, dropped)
    return kept


def _other_images(stores: Sequence[EmbeddingStore], again: np.ndarray) -> np.ndarray:
    """Which of `again` are two images."""
    files = [MatrixFile(shard.matrix, shard.rows) for store in stores for shard in store.shards]
    matrix = StoredRows(files, stores[0].dim, np.float32)
    blocks = (again[start : start + _BLOCK_ROWS] for start in range(0, len(again), _BLOCK_ROWS))
    apart = [1 - cosines(matrix[block[:, 0]], matrix[block[:, 1]]) > _SAME_IMAGE for block in blocks]
    return np.flatnonzero(np.concatenate(apart))


def _contradiction(labels: Sequence[Difference], images: Sequence[str]) -> str:
    said = [f"{len(each.rows):,} have two labels: {examples(each, 'first', 'later')}" for each in labels]
    if images:
        said.append(f"{len(images):,} name two images, whose embeddings differ: {listed(images, 3)}")
    ways = ways_out("the first store's", "the last store's", "neither, nor the other halves of their pairs")
    return f"Ids that are in several stores contradict each other: {'; '.join(said)}. {ways}"


def _without_pairs_of(table: pa.Table, kept: np.ndarray, dropped: Sequence[int]) -> np.ndarray:
    """`kept` without the rows that are of a pair which one of `dropped` is of."""
    if "pair_id" not in table.column_names:
        return kept
    pairs = table["pair_id"].to_pylist()
    broken = {pairs[row] for row in dropped} - {None, ""}
    return kept[[pairs[row] not in broken for row in kept.tolist()]]


def _check_whole(stores: Sequence[EmbeddingStore], tables: Sequence[pa.Table], kept: np.ndarray) -> None:
    """Refuse to join record tables that together are none: a pair of one id in two stores, a group in two splits."""
    aside = [store.set_aside(table) for store, table in zip(stores, tables, strict=True)]
    whole = stacked(tables).take(pa.array(kept))
    try:
        usable_records(whole, still_set_aside(chain(*aside), whole), "the merged store")
    except DataError:
        for store, table, lost in zip(stores, tables, aside, strict=True):
            try:
                usable_records(table, lost, f"the store {store.path}")
            except DataError:
                return  # it was none before
        raise
