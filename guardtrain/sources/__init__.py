"""Records from outside: manifests, image folders, tars, Parquet, the Hugging Face hub, embeddings in arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door

if TYPE_CHECKING:
    from guardtrain.sources.arrays import ArraysSource
    from guardtrain.sources.base import BatchImageSource, EmbeddingSource, EncodedImageSource, ImageSource, Source
    from guardtrain.sources.derived import Derived
    from guardtrain.sources.hugging_face import HuggingFaceSource
    from guardtrain.sources.image_folder import ImageFolderSource
    from guardtrain.sources.manifest import ManifestSource
    from guardtrain.sources.mapping import PairColumns
    from guardtrain.sources.parquet_images import ParquetImagesSource
    from guardtrain.sources.webdataset import WebDatasetSource

__all__ = [
    "ArraysSource",
    "BatchImageSource",
    "Derived",
    "EmbeddingSource",
    "EncodedImageSource",
    "HuggingFaceSource",
    "ImageFolderSource",
    "ImageSource",
    "ManifestSource",
    "PairColumns",
    "ParquetImagesSource",
    "Source",
    "WebDatasetSource",
]

# One source needs none of the others, and a guard that judges a file needs none of them.
__getattr__, __dir__ = door(
    __name__,
    {
        "ArraysSource": "arrays",
        "BatchImageSource": "base",
        "Derived": "derived",
        "EmbeddingSource": "base",
        "EncodedImageSource": "base",
        "HuggingFaceSource": "hugging_face",
        "ImageFolderSource": "image_folder",
        "ImageSource": "base",
        "ManifestSource": "manifest",
        "PairColumns": "mapping",
        "ParquetImagesSource": "parquet_images",
        "Source": "base",
        "WebDatasetSource": "webdataset",
    },
)
