"""What a guard looks at of an image file: the picture, or of an animation the frame that is likeliest to be unsafe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from guardtrain.errors import DataError
from guardtrain.sources.decoding import MAX_PIXELS
from guardtrain.sources.frames import Frame, frames_of

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder

# Each scan of a progressive JPEG decodes the whole picture again, and a scan can be ten bytes long: of more scans than
# any camera or editor writes, a small file keeps a processor busy for minutes.
_MAX_SCANS = 64
_JPEG = b"\xff\xd8"
_SCAN = b"\xff\xda"  # in compressed data a byte 0xff is followed by 0, so it counts scans (and those of a thumbnail)
# Of frames that show the same the first is named, whatever the last bits of its embedding are in another batch.
_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Seen:
    """The frame of an image file that is judged.

    Args:
        pixels: (H, W, 3) uint8, the model's input.
        frame: of an animation which frame this is, from 0; None for a still image.
        frames: how many the file has.
        judged: how many of them were looked at.
    """

    pixels: np.ndarray
    frame: int | None = None
    frames: int = 1
    judged: int = 1

    def columns(self) -> dict[str, int | None]:
        """Return what predictions say of it."""
        return {"frame": self.frame, "frames": self.frames, "frames_judged": self.judged}


UNSEEN: dict[str, int | None] = {"frame": None, "frames": None, "frames_judged": None}  # where nothing could be read


class UnreadableImage(DataError):
    """Bytes that are no image this guard can look at; the message says why."""


class Sight(Protocol):
    """A guard's eyes: its encoder and head, or a program of both."""

    @property
    def needed(self) -> tuple[int, int]:
        """(height, width) that images are resized to: more pixels than that are of no use."""

    @property
    def rows_a_pass(self) -> int:
        """Images that are looked at at once."""

    def pixels(self, image: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8: an RGB image resized and cropped for the model."""

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """(B,) logits of (B, H, W, 3) uint8."""


@dataclass(frozen=True, eq=False)
class EncoderSight:
    """An encoder, and what a head makes of its embeddings.

    Args:
        encoder: of the guard.
        head: (B, D) embeddings -> (B,) logits.
    """

    encoder: Encoder
    head: Callable[[np.ndarray], np.ndarray]

    @property
    def needed(self) -> tuple[int, int]:
        """See `Sight`."""
        return self.encoder.needed

    @property
    def rows_a_pass(self) -> int:
        """See `Sight`."""
        return self.encoder.rows_a_pass

    def pixels(self, image: Image.Image) -> np.ndarray:
        """See `Sight`."""
        return self.encoder.pixels(image)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """See `Sight`."""
        import torch

        return self.head(self.encoder.forward(torch.from_numpy(pixels)).float().cpu().numpy())


def seen_in(content: bytes, sight: Sight, most: int | None, max_pixels: int = MAX_PIXELS) -> Seen:
    """Return what is judged of an image file.

    Args:
        content: the bytes of a JPEG, PNG, WebP, … file.
        sight: what looks at it.
        most: frames of an animation that are looked at; None for all.
        max_pixels: of an image, or of a frame.

    Raises:
        UnreadableImage: no image, a damaged one, or one that is too large, with the reason.
    """
    try:
        _refuse_scans(content)
        return likeliest(frames_of(content, sight.needed, most, max_pixels), sight)
    except OSError as error:
        raise UnreadableImage(str(error)) from error
    except (ValueError, MemoryError, OverflowError, ZeroDivisionError) as error:
        reason = str(error) or type(error).__name__
        raise UnreadableImage(f"it cannot be scaled to the model's size: {reason}") from error


def likeliest(frames: Iterable[Frame], sight: Sight) -> Seen:
    """The frame with the highest probability of being unsafe; as many frames are held as go through the model at once.

    Args:
        frames: at least one.
        sight: what looks at them.

    Raises:
        OSError: as going through `frames` does.
    """
    best: tuple[float, Frame, np.ndarray] | None = None
    waiting: list[tuple[Frame, np.ndarray]] = []
    judged = 0
    for frame in frames:
        waiting.append((frame, sight.pixels(frame.image)))
        judged += 1
        if frame.count > 1 and len(waiting) >= sight.rows_a_pass:
            best, waiting = _better(best, waiting, sight), []
    if best is None and judged == 1:
        ((frame, pixels),) = waiting
        return Seen(pixels, frame.number if frame.count > 1 else None, frame.count)
    if waiting:
        best = _better(best, waiting, sight)
    assert best is not None, "an image has a frame"
    return Seen(best[2], best[1].number, frame.count, judged)


def _better(
    best: tuple[float, Frame, np.ndarray] | None, waiting: Sequence[tuple[Frame, np.ndarray]], sight: Sight
) -> tuple[float, Frame, np.ndarray] | None:
    """The best so far, or one of those waiting that is likelier."""
    logits = sight.logits(np.stack([pixels for _, pixels in waiting]))
    for logit, (frame, pixels) in zip(logits.tolist(), waiting, strict=True):
        if best is None or logit > best[0] + _ROUNDING:
            best = (logit, frame, pixels)
    return best


def _refuse_scans(content: bytes) -> None:
    """Raise OSError for a JPEG that would take minutes to decode; nothing is decoded."""
    if content.startswith(_JPEG) and (scans := content.count(_SCAN)) > _MAX_SCANS:
        raise OSError(f"a JPEG of {scans} scans; the limit is {_MAX_SCANS}")
