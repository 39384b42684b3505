"""The pixels that an encoder is tuned on: read once, kept as the model's input size in uint8, augmented on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from guardtrain.embeddings.forwarding import processors
from guardtrain.embeddings.reading import Inputs, make_reader
from guardtrain.errors import DataError
from guardtrain.records import Records
from guardtrain.sources.base import ImageSource
from guardtrain.sources.frames import by_first_frame

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder

log = logging.getLogger(__name__)
_READ_AT_ONCE = 32  # images a thread reads and decodes at a time


def read_pixels(
    parts: Sequence[tuple[ImageSource, Sequence[str]]],
    encoder: Encoder,
    *,
    memory_gb: float,
    folder: Path,
    progress: bool = True,
) -> np.ndarray:
    """The images of some records as the model's pixels.

    Args:
        parts: sources, and the ids of the records wanted of each.
        encoder: resizes and crops them.
        memory_gb: more than this lies in a file in `folder`, and is read through a memory map.
        folder: for that file.
        progress: show a bar where the output is a terminal.

    Returns:
        `(N, H, W, 3)` uint8 in the order of the parts.

    Raises:
        DataError: an image that cannot be read any more.
    """
    height, width = encoder.spec.image_size or (0, 0)
    shape = (sum(len(ids) for _, ids in parts), height, width, 3)
    pixels: np.ndarray
    if np.prod(shape, dtype=np.int64) > memory_gb * 2**30:
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    else:
        pixels = np.empty(shape, dtype=np.uint8)
    first = 0
    animations: list[str] = []
    with _reading(progress, shape[0]) as advance:
        for source, ids in parts:
            records = source.records()
            rows = _rows(records, ids)
            for chunk, inputs in _read(source, records, encoder, rows):
                assert isinstance(inputs.batch, torch.Tensor)
                place = first + np.searchsorted(np.sort(rows), chunk)
                pixels[place] = inputs.batch.numpy()
                animations += records.ids[inputs.animations].tolist()
                advance(len(chunk))
            # read in the source's order, which is quickest where images lie in tars; now in the order asked for
            block = pixels[first : first + len(rows)]
            if (np.diff(rows) < 0).any():
                block[:] = block[np.argsort(np.argsort(rows))]
            first += len(rows)
    if animations:
        log.warning("%s", by_first_frame("the images", "learnt from", animations))
    return pixels


@contextmanager
def _reading(progress: bool, images: int) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task("reading the images", total=images)
        yield lambda number: bar.advance(task, number)


def _rows(records: Records, ids: Sequence[str]) -> np.ndarray:
    order = np.argsort(records.ids)
    wanted = np.asarray(ids)
    place = np.searchsorted(records.ids[order], wanted).clip(max=len(order) - 1)
    rows = order[place]
    if not len(rows) or not (records.ids[rows] == wanted).all():
        raise DataError("The records changed while the command ran: some of those drawn are not there any more.")
    return np.asarray(rows, dtype=np.int64)


def _read(
    source: ImageSource, records: Records, encoder: Encoder, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, Inputs]]:
    """Chunks of ascending rows with their pixels."""
    reader = make_reader(source, records, encoder)

    def contents(row: int) -> Any:
        try:
            return reader.read(row)
        except Exception as error:  # told below, with the record's id
            return error

    def work(chunk: np.ndarray) -> Inputs:
        return reader.inputs(chunk.tolist(), [contents(row) for row in chunk.tolist()])

    ascending = np.sort(rows)
    chunks = [ascending[start : start + _READ_AT_ONCE] for start in range(0, len(rows), _READ_AT_ONCE)]
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(processors(), thread_name_prefix="read"))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for chunk, inputs in zip(chunks, pool.map(work, chunks), strict=True):
            if inputs.failures:
                failure = inputs.failures[0]
                raise DataError(
                    f"The image of record {records.ids[failure.row]} cannot be read any more: {failure.reason}. Mend "
                    "the file, or leave the record out."
                )
            yield chunk, inputs


def augmentation(kind: str, height: int, width: int) -> Callable[[Tensor], Tensor] | None:
    """A function of pixels `(B, H, W, 3)` uint8 that alters each image at random (torch's generator); None for `none`.

    Args:
        kind: see `LoraSettings.augment`.
        height, width: of the pixels.
    """
    if kind == "none":
        return None
    from torchvision.transforms import v2

    steps: list[Any] = [v2.RandomHorizontalFlip()]
    if kind == "crop":
        # no less than half of the image: what makes it unsafe may be a small part of it
        steps.append(v2.RandomResizedCrop((height, width), scale=(0.5, 1.0), antialias=True))
    altered = v2.Compose(steps)

    def apply(pixels: Tensor) -> Tensor:
        return torch.stack([altered(image) for image in pixels.permute(0, 3, 1, 2)]).permute(0, 2, 3, 1)

    return apply
