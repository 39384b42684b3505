"""Many images judged by a guard, part by part: read, decoded and embedded at once, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from guardtrain.embeddings.forwarding import EmbeddedRows, Forwarder, torch_threads
from guardtrain.embeddings.reading import Failure, Inputs
from guardtrain.guards.looking import UNSEEN
from guardtrain.guards.predicting import ImageJudge
from guardtrain.guards.prediction_inputs import UNREADABLE, InputImage, reason


class ImageFiles:
    """Images by their files, for a `Forwarder`; see `guardtrain.embeddings.reading.Reader`."""

    files = True

    def __init__(self, images: Sequence[InputImage], judge: ImageJudge) -> None:
        self._images, self._judge = images, judge
        self.seen: dict[int, dict[str, int | None]] = {}  # by row: which frame, of how many

    def read(self, row: int) -> bytes:
        """The bytes of the image's file."""
        return self._images[row].read()

    def inputs(self, rows: Sequence[int], contents: Sequence[Any]) -> Inputs:
        """Pixels at the model's size; a content that is an exception is one that `read` raised."""
        import torch

        read: list[int] = []
        pixels: list[np.ndarray] = []
        failures: list[Failure] = []
        for row, content in zip(rows, contents, strict=True):
            try:
                if isinstance(content, Exception):
                    raise content
                seen = self._judge.look(content)
                self.seen[row] = seen.columns()
                pixels.append(seen.pixels)
                read.append(row)
            except UNREADABLE as error:
                failures.append(Failure(row, reason(error)))
        return Inputs(read, torch.from_numpy(np.stack(pixels)) if pixels else None, [], failures)


def judged(
    judge: ImageJudge,
    images: Sequence[InputImage],
    *,
    point: str,
    explain: int = 0,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """A row an image, in order, as of `Predictions.rows`; of an image that cannot be read its error.

    Args:
        judge: the guard in steps.
        images: that fit into memory as embeddings.
        point: the operating point's name.
        explain: how many of the nearest training images to name.
        workers: threads; None for the processors there are.
        advance: told how many images each step was.
    """
    reader = ImageFiles(images, judge)
    forwarder = Forwarder(reader, judge.guard.encoder, workers)
    with torch_threads(forwarder.threads), closing(forwarder.run([range(len(images))], advance)) as results:
        return rows_of(judge, images, next(results), reader.seen, point, explain)


def rows_of(
    judge: ImageJudge,
    images: Sequence[InputImage],
    embedded: EmbeddedRows,
    seen: Mapping[int, Mapping[str, int | None]],
    point: str,
    explain: int,
) -> list[dict[str, Any]]:
    """A row an image: what the guard says of its embedding, or why there is none."""
    ids = [images[row].id for row in embedded.rows]
    found = judge.guard.predict(embedded.matrix, point=point, explain=explain, ids=ids)
    found = replace(found, seen=tuple(seen[row] for row in embedded.rows))
    unread = {"probability": None, "decision": None, "point": found.point}
    rows: list[dict[str, Any]] = [{"id": image.id, **unread} for image in images]
    for row, said in zip(embedded.rows, found.rows(), strict=True):
        rows[row] = said
    for failure in embedded.failures:
        rows[failure.row] |= {"error": failure.reason, **UNSEEN}
        if found.categories is not None:
            rows[failure.row]["categories"] = {}
        if found.category is not None:
            rows[failure.row] |= {"category": None, "category_probabilities": {}}
        if found.neighbours is not None:
            rows[failure.row]["neighbours"] = []
    return rows
