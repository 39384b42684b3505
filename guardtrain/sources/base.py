"""What a source is: records, plus either images to embed or embeddings that exist already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from guardtrain.records import Records


@runtime_checkable
class Source(Protocol):
    """Anything that yields a checked record table."""

    def records(self) -> Records:
        """The records, the same object or an equal one at every call."""
        ...

    def content_key(self) -> str:
        """Hex sha256 of everything that decides what the images (or embeddings) hold, labels left out.

        Two sources with equal `content_key` and equal ids in the same order have the same embeddings under the
        same encoder; caches are keyed by it.
        """
        ...


@runtime_checkable
class ImageSource(Source, Protocol):
    """A source whose records have images.

    A source may also have `images(indices) -> (B, H, W, 3) uint8`, the fast path: see `BatchImageSource`.
    """

    def image(self, i: int) -> Image.Image:
        """Image of record `i` as RGB.

        Raises:
            OSError: the image cannot be read; the caller knows which record it was.
        """
        ...


@runtime_checkable
class EncodedImageSource(ImageSource, Protocol):
    """An image source that also gives an image's file as it is stored, so that the caller may decode it itself."""

    def encoded(self, i: int) -> bytes:
        """The bytes of the file (JPEG, PNG, …) of record `i`, whole and unchanged; `image(i)` is what they decode to.

        Safe to call from several threads at once. The bytes are not looked into: they may be no image at all.

        Raises:
            OSError: the bytes cannot be read.
            DataError: the record has no image.
        """
        ...


@runtime_checkable
class BatchImageSource(ImageSource, Protocol):
    """An image source that gives many equally large images at once, without PIL in between."""

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8, RGB, in the order of `indices`; equal to `image(i)` for each."""
        ...


@runtime_checkable
class EmbeddingSource(Source, Protocol):
    """A source whose records have embeddings already: nothing is extracted."""

    def embeddings(self) -> np.ndarray:
        """(N, D) float16 or float32, row i belonging to record i."""
        ...

    def encoder_description(self) -> dict[str, Any]:
        """Whatever is known of the encoder that made the embeddings; `{}` where nothing is."""
        ...
