"""An encoder and sources without a model: quick, exact, and able to fail where a test wants it to."""

from __future__ import annotations

import io
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
        self.rows_a_pass = batch_size
        self.dim, self.needed, self.arithmetic = 6, (4, 4), "float32"
        self.device = torch.device("cpu")
        self.batches: list[int] = []

    def pixels(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((4, 4)))

    def accepts_batches(self, height: int, width: int) -> bool:
        return (height, width) == (4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        inputs = images.permute(0, 3, 1, 2).float() / 255
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


class EncodedPictures(Pictures):
    """The same as PNG files; `damaged` maps records to the bytes they have instead."""

    def __init__(self, n: int, at: Any = None, delay: float = 0.0, damaged: dict[int, bytes] | None = None) -> None:
        super().__init__(n, at, delay)
        self.damaged = damaged or {}

    def image(self, i: int) -> Image.Image:
        raise AssertionError("the bytes were there")

    def encoded(self, i: int) -> bytes:
        time.sleep(self.delay)
        if self.at is not None:
            self.at(i)
        file = io.BytesIO()
        Image.fromarray(self.pixels(i)).save(file, "PNG")
        return self.damaged.get(i, file.getvalue())


class BatchedPictures(Pictures):
    """The same with the fast path; its `image` is never to be called."""

    def image(self, i: int) -> Image.Image:
        raise AssertionError("the fast path was there")

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.stack([self.pixels(int(i)) for i in indices])


def expected(n: int) -> np.ndarray:
    """The embeddings of `Pictures(n)`, computed one at a time."""
    encoder, source = FakeEncoder(), Pictures(n)
    return torch.cat([encoder.forward(torch.from_numpy(source.pixels(i))[None]) for i in range(n)]).numpy()
