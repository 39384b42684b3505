"""Whatever holds an image, batch by batch, to embeddings; what cannot be read becomes an error beside the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.errors import GuardError

if TYPE_CHECKING:
    from PIL import Image

    from guardtrain.encoders.encoder import Encoder


@dataclass(frozen=True, eq=False)
class Batch:
    """Some inputs.

    Args:
        ids: what they are called.
        errors: why an image could not be read; None where it could.
        embeddings: (M, D) of those that could.
    """

    ids: list[str]
    errors: list[str | None]
    embeddings: np.ndarray


def is_embeddings(inputs: Any) -> bool:
    """Whether `inputs` are an array (or a torch tensor) of numbers, and not of pixels."""
    array = isinstance(inputs, np.ndarray) or hasattr(inputs, "detach")
    return array and not (isinstance(inputs, np.ndarray) and inputs.dtype == np.uint8 and inputs.ndim == 4)


def batches(inputs: Any, encoder: Callable[[], Encoder]) -> Iterator[Batch]:
    """Embed images of any form, `encoder().batch_size` at a time; see `Guard.predict`.

    Raises:
        GuardError: an input that is no image in any form.
    """
    listed = _listed(inputs)
    if not len(listed):
        return
    for item in listed[:1]:
        _described(item, 0)  # refused before an encoder is loaded
    model = encoder()
    for start in range(0, len(listed), model.batch_size):
        ids, errors, images = list[str](), list[str | None](), list[Any]()
        for i, item in enumerate(listed[start : start + model.batch_size], start):
            ids.append(_described(item, i))
            try:
                images.append(_opened(item, model.needed))
                errors.append(None)
            except Exception as error:  # of the disk, of a URL's file system, of what is no image
                errors.append(_reason(error))
        yield Batch(ids, errors, _embedded(model, images))


def _embedded(model: Encoder, images: list[Image.Image]) -> np.ndarray:
    """(M, D) float32, by the very path that stores are made by."""
    import torch

    if not images:
        return np.zeros((0, model.dim), dtype=np.float32)
    pixels = torch.from_numpy(np.stack([model.pixels(image) for image in images]))
    return model.forward(pixels).float().cpu().numpy()


def _listed(inputs: Any) -> Any:
    if isinstance(inputs, (str, Path, bytes)) or hasattr(inputs, "getbands"):
        return [inputs]
    return inputs if isinstance(inputs, np.ndarray) else list(inputs)


def _described(item: Any, place: int) -> str:
    """What an input is called."""
    if isinstance(item, (str, Path)):
        return str(item)
    if isinstance(item, bytes) or hasattr(item, "getbands") or (isinstance(item, np.ndarray) and item.ndim == 3):
        return str(place)
    raise GuardError(
        f"Input {place} is a {type(item).__name__}; a guard judges paths, URLs, PIL images, bytes of image files, "
        "(N, H, W, 3) uint8, or (N, D) embeddings as one array."
    )


def _opened(item: Any, needed: tuple[int, int]) -> Image.Image:
    from PIL import Image

    from guardtrain.sources.decoding import decode, rgb
    from guardtrain.sources.images import read_encoded

    if isinstance(item, (str, Path)):
        return decode(read_encoded(str(item)), needed)
    if isinstance(item, bytes):
        return decode(item, needed)
    return rgb(Image.fromarray(item) if isinstance(item, np.ndarray) else item)


def _reason(error: Exception) -> str:
    """One line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
