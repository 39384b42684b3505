"""An encoder and sources without a model: quick, exact, and able to fail where a test wants it to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from guardtrain.encoders import EncoderSpec
from guardtrain.records import Records

SPEC = EncoderSpec(family="open_clip", model="fake", pretrained="v1", image_size=(4, 4), normalize=False, name="fake")


class FakeEncoder:
    """(3, 4, 4) pixels -> (6,): means and differences of each channel, so that every pixel matters."""

    def __init__(self, batch_size: int = 3) -> None:
        self.spec = replace(SPEC, dim=6)
        self.batch_size = batch_size
        self.batches: list[int] = []

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image.convert("RGB").resize((4, 4)))).permute(2, 0, 1).float() / 255

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        return torch.stack([self.preprocess(Image.fromarray(image)) for image in images])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(inputs))
        return torch.cat([inputs.mean((2, 3)), inputs[:, :, 0, 0] - inputs[:, :, 3, 3]], dim=1)


class Pictures:
    """An image source of `n` random pictures; `at` is called with each index before its image is given."""

    def __init__(self, n: int, at: Any = None, delay: float = 0.0) -> None:
        self.n, self.at, self.delay = n, at, delay

    def pixels(self, i: int) -> np.ndarray:
        return np.random.default_rng(i).integers(0, 255, (4, 4, 3), dtype=np.uint8)

    def records(self) -> Records:
        return Records.from_columns(id=[f"r{i}" for i in range(self.n)], label=[i % 2 for i in range(self.n)])

    def content_key(self) -> str:
        return f"pictures-{self.n}"

    def image(self, i: int) -> Image.Image:
        time.sleep(self.delay)
        if self.at is not None:
            self.at(i)
        return Image.fromarray(self.pixels(i))


class BatchedPictures(Pictures):
    """The same with the fast path; its `image` is never to be called."""

    def image(self, i: int) -> Image.Image:
        raise AssertionError("the fast path was there")

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.stack([self.pixels(int(i)) for i in indices])


def expected(n: int) -> np.ndarray:
    """The embeddings of `Pictures(n)`, computed one at a time."""
    encoder, source = FakeEncoder(), Pictures(n)
    return torch.cat([encoder.forward(encoder.preprocess(source.image(i))[None]) for i in range(n)]).numpy()
