"""Records from outside: a manifest, an image folder, embeddings in arrays."""

from guardtrain.sources.arrays import ArraysSource
from guardtrain.sources.base import BatchImageSource, EmbeddingSource, ImageSource, Source
from guardtrain.sources.image_folder import ImageFolderSource
from guardtrain.sources.manifest import ManifestSource

__all__ = [
    "ArraysSource",
    "BatchImageSource",
    "EmbeddingSource",
    "ImageFolderSource",
    "ImageSource",
    "ManifestSource",
    "Source",
]
