"""Embedding stores on disk, extraction into them, and the cache that decides when to extract."""

from guardtrain.embeddings.cache import embed
from guardtrain.embeddings.store import Embeddings, EmbeddingStore
from guardtrain.embeddings.store_source import StoreSource

__all__ = ["EmbeddingStore", "Embeddings", "StoreSource", "embed"]
