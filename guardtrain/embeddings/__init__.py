"""Embedding stores on disk, extraction into them, and the cache that decides when to extract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door

if TYPE_CHECKING:
    from guardtrain.embeddings.cache import embed
    from guardtrain.embeddings.store import Embeddings, EmbeddingStore
    from guardtrain.embeddings.store_source import StoreSource

__all__ = ["EmbeddingStore", "Embeddings", "StoreSource", "embed"]

# Settings of this package are read at the start of every command.
__getattr__, __dir__ = door(
    __name__,
    {
        "EmbeddingStore": "store",
        "Embeddings": "store",
        "StoreSource": "store_source",
        "embed": "cache",
    },
)
