"""Images to model input, built from a spec with the encoder library's own transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from guardtrain.encoders.geometry import resized_size
from guardtrain.encoders.spec import EncoderSpec

_CROP_MODE = {"shortest": "center", "squash": "squash", "longest": "border"}


def image_transform(spec: EncoderSpec) -> Callable[[Image.Image], torch.Tensor]:
    """A function from a PIL image to the model's input, (3, H, W) float32.

    It is open_clip's `image_transform_v2` or timm's `create_transform` with the spec's values, so that it equals
    what the library itself does with that model; images of other modes become RGB first.
    """
    transform = _transform(spec)
    if spec.family == "open_clip":
        return lambda image: transform(image)  # converts to RGB itself
    return lambda image: transform(image.convert("RGB"))


def _transform(spec: EncoderSpec) -> Any:
    if spec.family == "open_clip":
        from open_clip.transform import PreprocessCfg, image_transform_v2

        height, width = _size(spec)
        return image_transform_v2(
            PreprocessCfg(
                size=height if height == width else (height, width),
                mean=spec.mean,
                std=spec.std,
                interpolation=spec.interpolation,
                resize_mode=spec.resize_mode,
                fill_color=spec.fill_color or 0,
            ),
            is_train=False,
        )
    if spec.family == "nudenet":
        from guardtrain.encoders.letterbox import letterbox

        return letterbox(*_size(spec))
    from timm.data import create_transform

    return create_transform(
        input_size=(3, *_size(spec)),
        is_training=False,
        interpolation=spec.interpolation or "bicubic",
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_pct,
        crop_mode=_CROP_MODE[spec.resize_mode or "shortest"],
    )


def needs_no_resampling(spec: EncoderSpec, height: int, width: int) -> bool:
    """Whether an image of this size passes the spec's resizing and cropping unchanged."""
    return (height, width) == _size(spec) == resized_size(spec)


def batch_input(
    spec: EncoderSpec, images: np.ndarray | torch.Tensor, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Equally large images to the model's input, without PIL; see `needs_no_resampling`.

    Args:
        images: (B, H, W, 3) uint8, an array or a tensor.
        device: where the arithmetic is done; the uint8 batch is what travels there.

    Returns:
        (B, 3, H, W) float32, the same arithmetic as `image_transform`'s (scale to 0..1, subtract, divide).
    """
    tensor = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images
    pixels = tensor.to(device, non_blocking=True).permute(0, 3, 1, 2)
    scaled = pixels.to(torch.float32).div_(255)  # channels last, as the images are
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, dtype=torch.float32, device=device).view(1, 3, 1, 1)
    return scaled.sub_(mean).div_(std)


def _size(spec: EncoderSpec) -> tuple[int, int]:
    assert spec.image_size is not None, "only specs of loadable families preprocess images"
    return spec.image_size
