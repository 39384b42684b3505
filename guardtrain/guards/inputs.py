"""Whatever holds an image, batch by batch, to embeddings; what cannot be read becomes an error beside the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.errors import GuardError
from guardtrain.file_names import path_text
from guardtrain.guards.looking import EncoderSight, Seen, likeliest

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.sources.frames import Frame


@dataclass(frozen=True, eq=False)
class Batch:
    """Some inputs.

    Args:
        ids: what they are called.
        errors: why an image could not be read; None where it could.
        embeddings: (M, D) of those that could.
        seen: what was looked at of each; None where it could not be read, and for embeddings.
    """

    ids: list[str]
    errors: list[str | None]
    embeddings: np.ndarray
    seen: list[Seen | None]


def is_embeddings(inputs: Any) -> bool:
    """Whether `inputs` are an array (or a torch tensor) of numbers, and not of pixels."""
    array = isinstance(inputs, np.ndarray) or hasattr(inputs, "detach")
    return array and not (isinstance(inputs, np.ndarray) and inputs.dtype == np.uint8 and inputs.ndim == 4)


def batches(
    inputs: Any, encoder: Callable[[], Encoder], most: int | None, logits: Callable[[np.ndarray], np.ndarray]
) -> Iterator[Batch]:
    """Embed images of any form, `encoder().batch_size` at a time; see `Guard.predict`.

    Args:
        inputs: the images.
        encoder: loads the encoder.
        most: frames of an animation that are looked at; None for all.
        logits: of (B, D) embeddings; the frame with the highest stands for its animation.

    Raises:
        GuardError: an input that is no image in any form.
    """
    listed = _listed(inputs)
    if not len(listed):
        return
    for item in listed[:1]:
        _described(item, 0)  # refused before an encoder is loaded
    model = encoder()
    sight = EncoderSight(model, logits)
    for start in range(0, len(listed), model.batch_size):
        ids, errors, seen = list[str](), list[str | None](), list[Seen | None]()
        for i, item in enumerate(listed[start : start + model.batch_size], start):
            ids.append(_described(item, i))
            try:
                seen.append(likeliest(_frames(item, model.needed, most), sight))
                errors.append(None)
            except Exception as error:  # of the disk, of a URL's file system, of what is no image
                seen.append(None)
                errors.append(_reason(error))
        yield Batch(ids, errors, _embedded(model, [one.pixels for one in seen if one is not None]), seen)


def _embedded(model: Encoder, pixels: list[np.ndarray]) -> np.ndarray:
    """(M, D) float32, by the very path that stores are made by."""
    import torch

    if not pixels:
        return np.zeros((0, model.dim), dtype=np.float32)
    return model.forward(torch.from_numpy(np.stack(pixels))).float().cpu().numpy()


def _listed(inputs: Any) -> Any:
    if isinstance(inputs, (str, Path, bytes)) or hasattr(inputs, "getbands"):
        return [inputs]
    return inputs if isinstance(inputs, np.ndarray) else list(inputs)


def _described(item: Any, place: int) -> str:
    """Return what an input is called."""
    if isinstance(item, (str, Path)):
        return path_text(item)
    if isinstance(item, bytes) or hasattr(item, "getbands") or (isinstance(item, np.ndarray) and item.ndim == 3):
        return str(place)
    raise GuardError(
        f"Input {place} is a {type(item).__name__}; a guard judges paths, URLs, PIL images, bytes of image files, "
        "(N, H, W, 3) uint8, or (N, D) embeddings as one array."
    )


def _frames(item: Any, needed: tuple[int, int], most: int | None) -> Iterator[Frame]:
    from PIL import Image

    from guardtrain.sources.decoding import is_animation, rgb
    from guardtrain.sources.frames import Frame, frames_in, frames_of
    from guardtrain.sources.images import read_encoded

    if isinstance(item, (str, Path)):
        yield from frames_of(read_encoded(str(item)), needed, most)
    elif isinstance(item, bytes):
        yield from frames_of(item, needed, most)
    elif isinstance(item, np.ndarray):
        yield Frame(0, 1, rgb(Image.fromarray(item)))
    else:
        unmoved = False
        with suppress(Exception):  # of a file that was closed, after the frame it stands at was loaded
            unmoved = is_animation(item) and item.tell() == 0
        if not unmoved:  # the caller has chosen this frame
            yield Frame(0, 1, rgb(item))
            return
        try:
            yield from frames_in(item, most)
        finally:
            item.seek(0)


def _reason(error: Exception) -> str:
    """One line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
