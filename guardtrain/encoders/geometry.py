"""Resizing and cropping an image for a model, with Pillow and numpy alone: no torch, which takes seconds to import.

The arithmetic is that of open_clip's and timm's own transforms (which call Pillow, too), to the last bit: tests compare
them for every mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from guardtrain.encoders.spec import EncoderSpec

WITHOUT_TORCH = ("open_clip", "timm")  # families whose images are prepared so
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}


def image_geometry(spec: EncoderSpec) -> Callable[[Image.Image], np.ndarray]:
    """A function from an RGB image to the model's pixels, (H, W, 3) uint8.

    What is left to do is `scaled`, for a batch at once: a quarter of the bytes go where the model is.
    """
    if spec.family not in WITHOUT_TORCH:
        from guardtrain.encoders.letterbox import CornerPad, PointResize

        pad, resize = CornerPad(), PointResize(*_size(spec))
        return lambda image: np.asarray(resize(pad(image)))
    size, target = _size(spec), resized_size(spec)
    resampling = _FILTERS[spec.interpolation or "bicubic"]
    if spec.resize_mode == "squash":
        return lambda image: np.asarray(_centred(_resized(image, *target, resampling), size))
    if spec.resize_mode == "longest":
        fill = border(spec)
        return lambda image: np.asarray(_centred(_kept_ratio(image, target, resampling, max), size, fill))
    if target[0] == target[1]:
        return lambda image: np.asarray(_centred(_shortest(image, target[0], resampling), size))
    if spec.family == "open_clip":  # which forgets the interpolation here
        resampling = Image.Resampling.BICUBIC
    return lambda image: np.asarray(_centred(_kept_ratio(image, target, resampling, min), size))


def scaled(spec: EncoderSpec, pixels: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) uint8 to the model's input, (B, 3, H, W) float32: scaled to 0..1, less the mean, divided by std."""
    mean, std = (np.asarray(values, dtype=np.float32) for values in (spec.mean, spec.std))
    found = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(found.transpose(0, 3, 1, 2))


def resized_size(spec: EncoderSpec) -> tuple[int, int]:
    """(height, width) that an image is resized to before it is cropped; of the shorter side where it is that."""
    height, width = _size(spec)
    if spec.family != "timm":
        return height, width
    return math.floor(height / (spec.crop_pct or 1.0)), math.floor(width / (spec.crop_pct or 1.0))


def _size(spec: EncoderSpec) -> tuple[int, int]:
    assert spec.image_size is not None, "only specs of loadable families preprocess images"
    return spec.image_size


def border(spec: EncoderSpec) -> tuple[int, ...]:
    """The colour of a border: timm's is the mean."""
    if spec.family == "timm":
        assert spec.mean is not None, "timm's specs have a mean"
        return tuple(round(255 * value) for value in spec.mean)
    return (spec.fill_color or 0,) * 3


def _resized(image: Image.Image, height: int, width: int, resampling: Image.Resampling) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), resampling)


def _shortest(image: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    """The shorter side becomes `side`, the other is cut off to whole pixels, as torchvision does."""
    width, height = image.size
    longer = int(side * max(image.size) / min(image.size))
    return _resized(image, *((longer, side) if width <= height else (side, longer)), resampling)


def _kept_ratio(
    image: Image.Image, target: tuple[int, int], resampling: Image.Resampling, which: Callable[[float, float], float]
) -> Image.Image:
    """One side becomes the target's (`min`: the image covers it; `max`: it lies inside), the other is rounded."""
    width, height = image.size
    ratio = which(height / target[0], width / target[1])
    return _resized(image, round(height / ratio), round(width / ratio), resampling)


def _centred(image: Image.Image, size: tuple[int, int], fill: tuple[int, ...] = (0, 0, 0)) -> Image.Image:
    """The middle of an image, with a border where it is too small."""
    height, width = size
    if width > image.width or height > image.height:
        wider, higher = max(0, width - image.width), max(0, height - image.height)
        image = ImageOps.expand(image, (wider // 2, higher // 2, (wider + 1) // 2, (higher + 1) // 2), fill)
    if image.size == (width, height):
        return image
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
