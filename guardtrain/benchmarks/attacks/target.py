"""A guard as an attack sees it: margins of pixels, differentiable; and what it says of files, by its own path."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from guardtrain.encoders.spec import LOADABLE
from guardtrain.errors import GuardError
from guardtrain.guards.operating_points import OperatingPoint
from guardtrain.guards.predicting import ImageJudge
from guardtrain.guards.torch_modules import HeadModule, WholeModule

if TYPE_CHECKING:
    from guardtrain.guards.guard import Guard


class Target:
    """A guard at one of its operating points.

    Args:
        guard: the guard; its encoder is loaded now.
        point: the operating point; None for the guard's default.

    Raises:
        GuardError: a guard whose encoder guardtrain cannot run, or not in float32; an operating point with review.
        ConfigError: no such operating point.
        EncoderError: the encoder's weights cannot be had.
    """

    def __init__(self, guard: Guard, point: str | None = None) -> None:
        require_attackable(guard, point)
        chosen = guard.points[point or guard.default_point]
        assert isinstance(chosen, OperatingPoint)
        self.guard, self.point = guard, chosen
        self.judge = ImageJudge(guard)
        self.encoder = guard.encoder
        if self.encoder.arithmetic != "float32":
            raise GuardError(
                f"The guard {guard.name} runs its encoder in {self.encoder.arithmetic}: gradients of so few bits are "
                "mostly rounding, and make a guard look robust. Attack one whose encoder runs in float32."
            )
        self.device = self.encoder.device
        self._whole = WholeModule(self.encoder, HeadModule(guard.bank, guard.calibrator)).to(self.device)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(self.encoder.spec.mean, dtype=torch.float32, device=self.device).view(shape)
        self._std = torch.tensor(self.encoder.spec.std, dtype=torch.float32, device=self.device).view(shape)

    def margins(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """(B,) how far each image is on its label's side of the threshold, in logits; below 0 the guard is wrong.

        Args:
            pixels: (B, 3, H, W) float32 in [0, 1], of the encoder's input size; differentiable.
            labels: (B,) int64, 1 is unsafe.
        """
        inputs = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        logits, _ = self._whole(inputs)
        return torch.where(labels == 1, 1.0, -1.0).to(logits) * (logits - self.point.threshold)

    def gives_gradient(self) -> bool:
        """Whether the head can be differentiated at all."""
        height, width = self.encoder.spec.image_size or (1, 1)
        grey = torch.full((1, 3, height, width), 0.5, device=self.device, requires_grad=True)
        try:
            return bool(self.margins(grey, torch.ones(1, dtype=torch.int64, device=self.device)).requires_grad)
        except RuntimeError:  # torch's, of an operation without a derivative
            return False

    def pixels(self, contents: Sequence[bytes]) -> np.ndarray:
        """(B, H, W, 3) uint8: the encoder's input for image files.

        Raises:
            UnreadableImage: bytes that are no image.
        """
        return np.stack([self.judge.pixels(content) for content in contents])

    def logits(self, contents: Sequence[bytes]) -> np.ndarray:
        """(B,) float64 logits of image files, by the path of `guardtrain predict`: decoded, resized, embedded."""
        return self.guard.logits(self.embeddings(contents))

    def embeddings(self, contents: Sequence[bytes]) -> np.ndarray:
        """(B, D) float32 embeddings of image files, by the path of `guardtrain predict`."""
        parts = [np.zeros((0, self.guard.dim), dtype=np.float32)]
        rows = self.encoder.rows_a_pass
        for start in range(0, len(contents), rows):
            parts.append(self.judge.embed(list(self.pixels(contents[start : start + rows]))))
        return np.concatenate(parts)

    def right(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(B,) bool: whether the operating point decides as the labels say."""
        return np.asarray(self.point.decide(logits) == labels)

    def file_of(self, pixels: np.ndarray) -> bytes:
        """A PNG file that the guard's preprocessing turns into these very pixels, (H, W, 3) uint8.

        Encoders that resize to more than they then crop get a border that the crop takes away again.
        """
        from PIL import Image

        height, width = pixels.shape[:2]
        more = [max(0, n - m) for n, m in zip(self.encoder.needed, (height, width), strict=True)]
        before = [round(n / 2) for n in more]  # as torchvision's CenterCrop rounds
        border = [(b, n - b) for b, n in zip(before, more, strict=True)]
        file = io.BytesIO()
        Image.fromarray(np.pad(pixels, [*border, (0, 0)], mode="edge")).save(file, "PNG", compress_level=1)
        return file.getvalue()


def require_attackable(guard: Guard, point: str | None = None) -> None:
    """See `Target`; without loading the encoder.

    Raises:
        GuardError, ConfigError: as of `Target`.
    """
    if guard.spec.family not in LOADABLE:
        raise GuardError(
            f"The guard {guard.name} cannot be attacked: attacks change images, and its encoder ({guard.spec.label}) "
            "is not one that guardtrain can run; only its embeddings are known. Make a guard on embeddings of an "
            "open_clip or timm encoder."
        )
    chosen = guard.points[point or guard.default_point]
    if not isinstance(chosen, OperatingPoint):
        raise GuardError(
            f"The operating point '{chosen.name}' of the guard {guard.name} leaves images to people, so that an attack "
            "has no one boundary to cross. Give another with point=…: "
            + ", ".join(name for name, one in guard.points.items() if isinstance(one, OperatingPoint))
            + "."
        )
