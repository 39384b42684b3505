"""An image looked at five times, whole and in its four corners: its embedding is the mean of the five."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class MeanOfCrops:
    """`(B, 3, H, W) float32 -> (B, D)`: the mean of the embeddings of an image and of its four corners.

    Args:
        features: of the model, `(B, 3, H, W) -> (B, D)`.
        share: of the image's height and width that a corner keeps, in (0, 1).
        normalize: the embeddings are scaled to unit norm before their mean is taken.
    """

    features: Callable[[torch.Tensor], torch.Tensor]
    share: float
    normalize: bool

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        seen = self.features(with_corners(inputs, self.share)).float()
        if self.normalize:
            seen = F.normalize(seen, dim=-1)
        return seen.unflatten(0, (5, -1)).mean(0)


def with_corners(inputs: torch.Tensor, share: float) -> torch.Tensor:
    """(5 · B, 3, H, W): all images, then their upper left, upper right, lower left and lower right corners.

    A corner is enlarged to the image's size by bilinear interpolation. That can be differentiated and exported, and as
    it takes weighted means, it is the same before and after the mean and deviation of colours are taken away.

    Args:
        inputs: (B, 3, H, W) float.
        share: of height and width that a corner keeps.
    """
    height, width = inputs.shape[-2:]
    h, w = max(1, round(height * share)), max(1, round(width * share))
    corners = [inputs[..., top : top + h, left : left + w] for top in (0, height - h) for left in (0, width - w)]
    enlarged = [F.interpolate(c, size=(height, width), mode="bilinear", align_corners=False) for c in corners]
    return torch.cat([inputs, *enlarged])
