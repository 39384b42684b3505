"""Text anchors: one direction a class in the space that an encoder's images and texts share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from guardtrain.errors import ConfigError, EncoderError

H = TypeVar("H", bound="TextAnchored")


@dataclass
class TextAnchors:
    """Where a head's text anchors come from: prompts for the run's encoder, or an array of embeddings.

    Args:
        safe: prompts of what is safe.
        unsafe: prompts of what is unsafe.
        file: instead of prompts, a `.npy` file `(2, D)`: row 0 safe, row 1 unsafe, as the prompts of Q16 are published.
    """

    safe: list[str] = field(default_factory=list)
    unsafe: list[str] = field(default_factory=list)
    file: str | None = None

    def __post_init__(self) -> None:
        if self.file is not None and (self.safe or self.unsafe):
            raise ConfigError(
                "head.text has prompts and a file; give one of them (head.text.file=null, or no prompts)."
            )
        if bool(self.safe) != bool(self.unsafe):
            missing = "unsafe" if self.safe else "safe"
            raise ConfigError(f"head.text.{missing} has no prompts; a head needs some of both classes.")

    @property
    def given(self) -> bool:
        """Whether there are prompts or a file."""
        return bool(self.safe) or self.file is not None


class TextAnchored:
    """Base of head definitions with a field `text: TextAnchors`."""

    text: TextAnchors

    @property
    def prompts(self) -> dict[str, list[str]] | None:
        """Prompts to be encoded and handed to `anchored`, by class; None where there is nothing to encode."""
        return {"safe": list(self.text.safe), "unsafe": list(self.text.unsafe)} if self.text.safe else None

    def anchored(self: H, anchors: np.ndarray) -> H:
        """A copy of the head with these anchors `(2, D)`, row 0 safe; they are normalised.

        Raises:
            ConfigError: another shape, or values that are not finite.
        """
        head = copy.copy(self)
        head.__dict__["_anchors"] = checked_anchors(anchors, "the text anchors")
        return head

    def anchors(self, dim: int) -> np.ndarray:
        """`(2, D)` float32 unit-norm anchors, row 0 safe.

        Raises:
            ConfigError: there are none, or of another dimension than the embeddings.
        """
        anchors: np.ndarray | None = self.__dict__.get("_anchors")
        where = "the text anchors"
        if anchors is None and self.text.file is not None:
            where = f"head.text.file ({self.text.file})"
            anchors = checked_anchors(_read(Path(self.text.file)), where)
        if anchors is None:
            name = getattr(self, "name", type(self).__name__)
            raise ConfigError(
                f"The prompts of the head '{name}' have not been encoded: hand it the anchors that text_anchors makes "
                "of them with the run's encoder."
                if self.text.given
                else f"The head '{name}' needs text anchors: give prompts (head.text.safe=[...] "
                "head.text.unsafe=[...]) or a .npy array of shape (2, D) (head.text.file=...)."
            )
        if anchors.shape[1] != dim:
            raise ConfigError(
                f"{where[0].upper()}{where[1:]} have dimension {anchors.shape[1]}, the embeddings {dim}: they come "
                "from different encoders. Use anchors of the encoder that made the embeddings."
            )
        return anchors


def text_anchors(
    encode_text: Callable[[Sequence[str]], np.ndarray], prompts: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """The anchors of prompts, made as open_clip's zero-shot classifier makes class weights.

    Each prompt's embedding is normalised, a class's are averaged, and the average is normalised.

    Args:
        encode_text: `Encoder.encode_text`: B texts to `(B, D)`.
        prompts: the prompts of `safe` and of `unsafe`, one or more each.

    Returns:
        `(2, D)` float32, unit norm; row 0 is safe.

    Raises:
        EncoderError: the encoder reads no text.
        ConfigError: a class without prompts.

    >>> text_anchors(lambda texts: np.eye(2)[[len(t) % 2 for t in texts]], {"safe": ["a"], "unsafe": ["ab"]})
    array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    for name in ("safe", "unsafe"):
        if not prompts.get(name):
            raise ConfigError(f"head.text.{name} has no prompts; give one or more.")
    try:
        parts = [np.asarray(encode_text(list(prompts[name])), dtype=np.float64) for name in ("safe", "unsafe")]
    except EncoderError as error:
        raise EncoderError(
            f"The head's prompts cannot be encoded. {error} Or take a head without text (head=linear), or give anchors "
            "of this encoder as an array: head.text.file=ANCHORS.npy with empty head.text.safe and head.text.unsafe."
        ) from error
    means = np.stack([_unit(part).mean(0) for part in parts])
    return checked_anchors(means, "the prompts' embeddings")


def checked_anchors(anchors: np.ndarray, what: str) -> np.ndarray:
    """`anchors` as `(2, D)` float32 of unit norm.

    Raises:
        ConfigError: another shape, values that are not finite, a row of zeros.
    """
    array = np.asarray(anchors)
    if array.ndim != 2 or len(array) != 2 or not np.issubdtype(array.dtype, np.number):
        raise ConfigError(
            f"{what[0].upper()}{what[1:]} must be of shape (2, D), row 0 safe and row 1 unsafe; this is {array.shape}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all() or (np.square(array).sum(1) == 0).any():
        raise ConfigError(f"{what[0].upper()}{what[1:]} have values that are not finite, or a row of zeros.")
    return _unit(array).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True).clip(1e-12)


def _read(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"head.text.file: {path} cannot be read as a .npy array: {error}") from error
    return array
