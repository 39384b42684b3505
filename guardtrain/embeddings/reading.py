"""Records to model inputs: files are read and decoded, and what cannot be is given back with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from guardtrain.errors import DataError
from guardtrain.records import Records
from guardtrain.sources.base import BatchImageSource, EncodedImageSource, ImageSource
from guardtrain.sources.decoding import rgb
from guardtrain.sources.frames import first_frame

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from guardtrain.encoders.encoder import Encoder


@dataclass(frozen=True)
class Failure:
    """A record that could not be embedded.

    Args:
        row: its number in the source.
        reason: for people.
    """

    row: int
    reason: str


@dataclass(frozen=True)
class Inputs:
    """Some rows as the model takes them.

    Args:
        rows: those that could be read, ascending.
        batch: (len(rows), H, W, 3) uint8 or (len(rows), 3, H, W) float32; texts as a list.
        digests: hex sha256 of each row's file; empty where the source gives no files.
        failures: the other rows.
        animations: those that could be read, of which there is the first frame.
    """

    rows: list[int]
    batch: torch.Tensor | list[str] | None
    digests: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    animations: list[int] = field(default_factory=list)


class Reader(Protocol):
    """Makes model inputs of records; both methods are called from several threads at once."""

    files: bool

    def read(self, row: int) -> Any:
        """Return what has to be waited for (`files`: the bytes of the row's file), or None."""
        ...

    def inputs(self, rows: Sequence[int], contents: Sequence[Any]) -> Inputs:
        """The model's input for `rows`; a content that is an exception is one that `read` raised."""
        ...


def make_reader(source: ImageSource, records: Records, model: Encoder, text: str | None = None) -> Reader:
    """The quickest way from this source to this model.

    Args:
        text: embed this column of the records, with the model's text tower, in place of images.

    Raises:
        DataError: no such column.
    """
    if text is not None:
        return TextReader(records, text)
    if isinstance(source, BatchImageSource):
        return BatchReader(source, model)
    return ImageReader(source, model)


class ImageReader:
    """One image at a time: its file's bytes where the source gives them, else the image itself."""

    def __init__(self, source: ImageSource, model: Encoder) -> None:
        self._source, self._model = source, model
        self.files = isinstance(source, EncodedImageSource)

    def read(self, row: int) -> bytes | None:
        """The bytes of the row's file."""
        return self._source.encoded(row) if isinstance(self._source, EncodedImageSource) else None

    def inputs(self, rows: Sequence[int], contents: Sequence[Any]) -> Inputs:
        """Pixels at the model's size; see `Reader.inputs`."""
        import torch

        read: list[int] = []
        pixels: list[np.ndarray] = []
        digests: list[str] = []
        failures: list[Failure] = []
        animations: list[int] = []
        for row, content in zip(rows, contents, strict=True):
            try:
                if isinstance(content, Exception):
                    raise content
                pixels.append(self._model.pixels(self._image(row, content, animations)))
            except MemoryError:
                raise
            except Exception as error:  # Pillow's plugins, fsspec's file systems and users' sources raise all kinds
                failures.append(Failure(row, _reason(error)))
                continue
            read.append(row)
            if self.files:
                digests.append(hashlib.sha256(content).hexdigest())
        return Inputs(read, torch.from_numpy(np.stack(pixels)) if pixels else None, digests, failures, animations)

    def _image(self, row: int, content: Any, animations: list[int]) -> Image.Image:
        """The image of a row, or its first frame; then the row is noted."""
        if not self.files:
            return rgb(self._source.image(row))
        picture, moves = first_frame(content, self._model.needed)
        if moves:
            animations.append(row)
        return picture


class BatchReader:
    """Images that the source gives many at a time, all of one size."""

    files = False

    def __init__(self, source: BatchImageSource, model: Encoder) -> None:
        self._source, self._model = source, model

    def read(self, row: int) -> None:
        """Do nothing."""

    def inputs(self, rows: Sequence[int], contents: Sequence[Any]) -> Inputs:
        """See `Reader.inputs`; an error of the source is one of all its images, and ends the run."""
        import torch
        from PIL import Image

        images = self._source.images(np.asarray(rows))
        if not self._model.accepts_batches(*images.shape[1:3]):
            images = np.stack([self._model.pixels(Image.fromarray(image)) for image in images])
        return Inputs(list(rows), torch.from_numpy(np.ascontiguousarray(images)))


class TextReader:
    """A column of texts: prompts, captions."""

    files = False

    def __init__(self, records: Records, column: str) -> None:
        names = records.table.column_names
        if column not in names:
            raise DataError(f"There is no column '{column}' of texts; the records have: {', '.join(names)}.")
        self._texts = records.column(column)

    def read(self, row: int) -> None:
        """Do nothing."""

    def inputs(self, rows: Sequence[int], contents: Sequence[Any]) -> Inputs:
        """Texts as they are; see `Reader.inputs`."""
        read = [row for row in rows if isinstance(self._texts[row], str) and self._texts[row].strip()]
        failures = [Failure(row, "no text") for row in rows if row not in set(read)]
        return Inputs(read, [self._texts[row] for row in read] or None, [], failures)

    def content_key(self) -> str:
        """Hex sha256 over the texts, in order."""
        digest = hashlib.sha256(b"text\0")
        for text in self._texts:
            digest.update(str(text).encode() + b"\0")
        return digest.hexdigest()


def _reason(error: Exception) -> str:
    """One line that says what was wrong."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        text = "no such file"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror[0].lower() + error.strerror[1:]  # the path is beside it
    return text[:500]
