"""A guard at work on images: bytes → pixels → embeddings → probabilities, decisions and neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardtrain.encoders.spec import LOADABLE
from guardtrain.guards.category_head import named_categories
from guardtrain.guards.guard import Guard
from guardtrain.guards.looking import EncoderSight, Seen, seen_in
from guardtrain.guards.operating_points import DECISIONS, Point
from guardtrain.guards.predictions import Neighbour
from guardtrain.sources.decoding import MAX_PIXELS
from guardtrain.sources.frames import DEFAULT_FRAMES, decoded_pixels, most_frames


@dataclass(frozen=True)
class Verdicts:
    """A guard's answers about N images, at every operating point at once.

    Args:
        probabilities: (N,) float64, of being unsafe.
        decisions: of each operating point, N of `safe`, `unsafe`, `review`.
        categories: of each image, the decision in each category that has a threshold of its own; {} without such.
        neighbours: of each image the nearest training images, nearest first; () unless asked for.
        category_names: C categories that the guard names; none where it does not.
        category_probabilities: (N, C) float64 `P(category | unsafe)`.
    """

    probabilities: np.ndarray
    decisions: Mapping[str, Sequence[str]]
    categories: Sequence[Mapping[str, str]]
    neighbours: Sequence[Sequence[Neighbour]]
    category_names: tuple[str, ...]
    category_probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.probabilities)

    def of(self, i: int) -> Verdicts:
        """Return what is said of one of the images."""
        decisions = {name: values[i : i + 1] for name, values in self.decisions.items()}
        return Verdicts(
            self.probabilities[i : i + 1],
            decisions,
            self.categories[i : i + 1],
            self.neighbours[i : i + 1],
            self.category_names,
            self.category_probabilities[i : i + 1],
        )

    def category(self, point: str) -> tuple[str | None, ...]:
        """Return each image's likeliest category; None where it is safe at this operating point, or none is named."""
        if not self.category_names:
            return (None,) * len(self)
        return named_categories(self.category_names, self.category_probabilities, self.decisions[point])


class ImageJudge:
    """A guard in steps, for pipelines: `pixels` may run in several threads while one runs `embed` and `judge`.

    `Guard.predict` does the same for inputs that are all there.

    Args:
        guard: the guard. Its encoder is loaded now, if guardtrain can run it.
        max_pixels: of an image, before it is scaled down.
        frames: of an animation that are looked at; see `Guard.predict`.

    Raises:
        EncoderError: the encoder's weights cannot be had, or are others than those of the guard's spec.
    """

    def __init__(self, guard: Guard, max_pixels: int = MAX_PIXELS, frames: str | int = DEFAULT_FRAMES) -> None:
        self.guard = guard
        self._frames = most_frames(frames)
        self.max_pixels = min(max_pixels, MAX_PIXELS)
        self.reads_images = guard.spec.family in LOADABLE
        if self.reads_images:
            guard.encoder  # noqa: B018  (now, and not when the first image has come)

    def warm_up(self) -> None:
        """Judge nothing in particular, so that the first image does not wait for what the first pass sets up."""
        if self.reads_images:
            height, width = self.guard.spec.image_size or (1, 1)
            self.judge(self.embed([np.zeros((height, width, 3), dtype=np.uint8)]))

    def pixels(self, content: bytes) -> np.ndarray:
        """(H, W, 3) uint8: the model's input for an image file; of an animation the first frame. See `look`."""
        return self._seen(content, 1).pixels

    def look(self, content: bytes) -> Seen:
        """Return what is judged of an image file: of an animation the frame that is likeliest to be unsafe.

        Args:
            content: the bytes of a JPEG, PNG, WebP, … file.

        Raises:
            UnreadableImage: no image, a damaged one, or one that is too large, with the reason.
            EncoderError: the guard reads embeddings of an encoder that guardtrain cannot run.
        """
        return self._seen(content, self._frames)

    def _seen(self, content: bytes, most: int | None) -> Seen:
        return seen_in(content, EncoderSight(self.guard.encoder, self.guard.logits), most, self.max_pixels)

    def size(self, content: bytes) -> int:
        """How many pixels of an image file `look` would decode, by its headers; 0 for a file that it refuses."""
        return decoded_pixels(content, self._frames, self.max_pixels)

    def embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(B, D) float32 embeddings of B inputs that `pixels` gave."""
        import torch

        return self.guard.encoder.forward(torch.from_numpy(np.stack(pixels))).cpu().numpy()

    def judge(self, embeddings: np.ndarray, explain: int = 0) -> Verdicts:
        """Return what the guard says of embeddings.

        Args:
            embeddings: (N, D), of the guard's encoder.
            explain: how many nearest training images to name.

        Raises:
            GuardError: embeddings of another dimension, not normalised, or not finite; no training images to name.
        """
        guard = self.guard
        near = guard.neighbours if explain else None
        logits, head = guard.logits(embeddings), guard.category_head
        points = {name: _decided(point, logits) for name, point in guard.points.items()}
        columns = {name: _decided(point, logits) for name, point in guard.category_points.items()}
        return Verdicts(
            guard.calibrator.probabilities(logits),
            points,
            [{name: values[i] for name, values in columns.items()} for i in range(len(logits))],
            near.nearest(embeddings, explain) if near is not None else [()] * len(logits),
            head.names if head is not None else (),
            head.probabilities(embeddings) if head is not None else np.zeros((len(logits), 0)),
        )


def _decided(point: Point, logits: np.ndarray) -> list[str]:
    return [DECISIONS[number] for number in point.decide(logits).tolist()]
