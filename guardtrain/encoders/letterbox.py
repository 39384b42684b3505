"""The preprocessing of detectors that OpenCV prepares images for: padded to a square right and below, then resized."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


class CornerPad:
    """The image in the upper left corner of a black square."""

    def __call__(self, image: Image.Image) -> Image.Image:
        side = max(image.size)
        if image.size == (side, side):
            return image
        square = Image.new("RGB", (side, side))
        square.paste(image)
        return square


class PointResize:
    """Bilinear interpolation at the new pixels' centres, without smoothing first: OpenCV's `INTER_LINEAR`.

    PIL's and torchvision's bilinear filters widen with the reduction; a detector that learned from OpenCV's images
    has learned their aliasing, too.

    Args:
        height, width: of the output.
    """

    def __init__(self, height: int, width: int) -> None:
        self.size = (height, width)

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size == self.size[::-1]:
            return image
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, self.size, mode="bilinear", align_corners=False, antialias=False)
        return Image.fromarray(resized[0].permute(1, 2, 0).round().to(torch.uint8).numpy())


def letterbox(height: int, width: int) -> Any:
    """The transform: an RGB image of any size to (3, height, width) float32 in 0..1."""
    from torchvision.transforms import Compose, ToTensor

    return Compose([CornerPad(), PointResize(height, width), ToTensor()])
