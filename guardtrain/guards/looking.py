"""What a guard looks at of an image file: the picture, or of an animation the frame that is likeliest to be unsafe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.sources.frames import Frame

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder

# Of frames that show the same the first is named, whatever the last bits of its embedding are in another batch.
_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Seen:
    """What is judged of an image file.

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
        """What predictions say of it."""
        return {"frame": self.frame, "frames": self.frames, "frames_judged": self.judged}


UNSEEN: dict[str, int | None] = {"frame": None, "frames": None, "frames_judged": None}  # where nothing could be read


def likeliest(frames: Iterable[Frame], encoder: Encoder, logits: Callable[[np.ndarray], np.ndarray]) -> Seen:
    """The frame with the highest probability of being unsafe; as many frames are held as go through the model at once.

    Args:
        frames: at least one.
        encoder: of the guard.
        logits: (B, D) embeddings -> (B,) logits.

    Raises:
        OSError: as going through `frames` does.
    """
    best: tuple[float, Frame, np.ndarray] | None = None
    waiting: list[tuple[Frame, np.ndarray]] = []
    judged = 0
    for frame in frames:
        waiting.append((frame, encoder.pixels(frame.image)))
        judged += 1
        if frame.count > 1 and len(waiting) >= encoder.rows_a_pass:
            best, waiting = _better(best, waiting, encoder, logits), []
    if best is None and judged == 1:
        ((frame, pixels),) = waiting
        return Seen(pixels, frame.number if frame.count > 1 else None, frame.count)
    if waiting:
        best = _better(best, waiting, encoder, logits)
    assert best is not None, "an image has a frame"
    return Seen(best[2], best[1].number, frame.count, judged)


def _better(
    best: tuple[float, Frame, np.ndarray] | None,
    waiting: Sequence[tuple[Frame, np.ndarray]],
    encoder: Encoder,
    logits: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, Frame, np.ndarray] | None:
    """The best so far, or one of those waiting that is likelier."""
    import torch

    embeddings = encoder.forward(torch.from_numpy(np.stack([pixels for _, pixels in waiting])))
    for logit, (frame, pixels) in zip(logits(embeddings.float().cpu().numpy()).tolist(), waiting, strict=True):
        if best is None or logit > best[0] + _ROUNDING:
            best = (logit, frame, pixels)
    return best
