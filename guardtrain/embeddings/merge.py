"""Several stores of one encoder joined to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from guardtrain.embeddings.build import build_store
from guardtrain.embeddings.selection import row_ids
from guardtrain.embeddings.store import EmbeddingStore
from guardtrain.encoders.spec import require_same
from guardtrain.errors import ConfigError, DataError
from guardtrain.sources.tables import listed

DUPLICATES = ("error", "first")


def merge_stores(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    duplicates: str = "error",
    advance: Callable[[int], None] = lambda rows: None,
) -> EmbeddingStore:
    """The rows of all stores in order, as a new store at `out`; shards that are taken whole are linked, not copied.

    Args:
        paths: two or more stores.
        out: the new store's folder.
        duplicates: of an id that is in several: `error`, or keep the `first`.
        advance: told how many rows each step was.

    Raises:
        ConfigError: fewer than two stores, or a value of `duplicates` that is not allowed.
        EncoderError: they come from different encoders, with the fields that differ.
        DataError: ids that are in several, named; metadata without ids.
        StoreError: see `EmbeddingStore.open` and `build_store`.
    """
    if duplicates not in DUPLICATES:
        raise ConfigError(f"duplicates is '{duplicates}'; allowed: {', '.join(DUPLICATES)}.")
    if len(paths) < 2:
        raise ConfigError(f"To merge takes two stores or more; got {len(paths)}.")
    stores = [EmbeddingStore.open(path) for path in paths]
    for store in stores[1:]:
        require_same(store.spec, stores[0].spec, f"the store {store.path}")
    home: dict[str, int] = {}
    kept: list[int] = []
    repeated: dict[str, list[str]] = {}
    row = 0
    for number, store in enumerate(stores):
        for name in row_ids(store.metadata(), f"the store {store.path}"):
            if name not in home:
                home[name] = number
                kept.append(row)
            else:
                repeated.setdefault(name, [str(stores[home[name]].path)]).append(str(store.path))
            row += 1
    if repeated and duplicates == "error":
        shown = [f"{name} ({' and '.join(places)})" for name, places in repeated.items()]
        raise DataError(
            f"{len(repeated)} ids are in the stores more than once: {listed(shown, 3)}. Say duplicates=first to keep "
            "the first of each."
        )
    return build_store(out, stores, np.array(kept, dtype=np.int64), "merge", advance)
