"""A guard that others published: its head, the encoder it was made for, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from guardtrain.benchmarks.scoring import Scorer
from guardtrain.embeddings.norms import NORM_TOLERANCE
from guardtrain.encoders.spec import EncoderSettings, EncoderSpec, require_same
from guardtrain.errors import EncoderError, GuardError

OPENAI_BY_DIM = {512: "ViT-B-32", 768: "ViT-L-14"}
_EXACTLY_UNIT = 1e-3  # of all rows: nobody's raw features are that close to unit norm


@dataclass(frozen=True)
class Origin:
    """Where a published guard comes from.

    Args:
        paper: the publication.
        url: of its files.
        licence: as its authors state it, as Hugging Face names it; None where they state none.
        judges: what it calls unsafe, in words.
        categories: of UnsafeBench's taxonomy that the paper judges it on; () for all.
        notes: what differs from what its authors ran.
    """

    paper: str
    url: str
    licence: str | None
    judges: str
    categories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Original:
    """The original program of a guard, where it is at hand: what the import is compared with.

    Args:
        probabilities: (N, D) float64 embeddings to (N,) probabilities of unsafe.
        what: that computes them.
    """

    probabilities: Callable[[np.ndarray], np.ndarray]
    what: str


@dataclass(frozen=True, eq=False)
class PublishedGuard:
    """A published head on the embeddings of one encoder.

    Args:
        name: what it is called.
        spec: the encoder.
        scorer: the head; its logit is 0 where its authors begin to call an image unsafe.
        origin: where it comes from.
        files: sha256 of each file it was read from, by name.
        classes: what is taken as unsafe, in words.
        assumed: what the files do not say, and was taken for granted.
        original: its own program; None where that is not at hand.
    """

    name: str
    spec: EncoderSpec
    scorer: Scorer
    origin: Origin
    files: Mapping[str, str] = field(default_factory=dict)
    classes: str = ""
    assumed: tuple[str, ...] = ()
    original: Original | None = None

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self.scorer.dim

    def logits(self, embeddings: Any, spec: EncoderSpec | None = None) -> np.ndarray:
        """(N,) float64 logits; unsafe from 0 on.

        Args:
            embeddings: (N, D) floating, made by the guard's encoder.
            spec: the encoder that made them, to be compared; None trusts the caller.

        Raises:
            GuardError: another dimension, NaN or infinity, of unit norm where the guard reads raw features or the
                other way round.
            EncoderError: another encoder, with the fields that differ.
        """
        if spec is not None:
            require_same(spec, self.spec, what="the embeddings")
        return self.scorer.logits(self._checked(embeddings))

    def probabilities(self, embeddings: Any, spec: EncoderSpec | None = None) -> np.ndarray:
        """(N,) float64 scores in [0, 1], as published: the sigmoid of the logits; they are not calibrated."""
        from guardtrain.guards.calibration import sigmoid

        return sigmoid(self.logits(embeddings, spec))

    def flags(self, embeddings: Any, spec: EncoderSpec | None = None) -> np.ndarray:
        """(N,) bool: unsafe, at the published threshold."""
        return self.logits(embeddings, spec) >= 0

    def _checked(self, embeddings: Any) -> np.ndarray:
        """(N, D) float64, refused where it cannot be this encoder's."""
        if hasattr(embeddings, "detach"):
            embeddings = embeddings.detach().cpu().numpy()
        rows = np.asarray(embeddings)
        if rows.ndim != 2 or rows.shape[1] != self.dim or rows.dtype.kind != "f":
            raise GuardError(
                f"The guard {self.name} reads floating embeddings (N, {self.dim}) of {self.spec.label}; these are "
                f"{rows.dtype} of shape {rows.shape}."
            )
        rows = rows.astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        if not np.isfinite(norms).all():
            raise GuardError(f"Row {int((~np.isfinite(norms)).argmax())} of the embeddings holds NaN or infinity.")
        strays = np.abs(norms - 1)
        if self.spec.normalize and (strays > NORM_TOLERANCE).any():
            row = int(strays.argmax())
            raise GuardError(
                f"The guard {self.name} reads embeddings of unit norm; row {row} has norm {norms[row]:.4g}. Divide "
                "each by its norm, if they are its encoder's."
            )
        if self.spec.normalize is False and len(rows) and (strays < _EXACTLY_UNIT).all():
            raise GuardError(
                f"The guard {self.name} reads the encoder's features as they are; these were scaled to unit norm, and "
                "the length that it needs is gone. Embed the images again with encoder.normalize=false."
            )
        return rows


def spec_for(scorer: Scorer, normalize: bool, encoder: EncoderSettings | None = None, hint: str = "") -> EncoderSpec:
    """The spec of the encoder that a published head reads.

    Args:
        scorer: the head.
        normalize: whether it reads embeddings of unit norm.
        encoder: the encoder in other words, for instance with its weights in a file; its `normalize` is not asked.
            None, or one without a model, for OpenAI's CLIP of this dimension, through open_clip.
        hint: a text that may name the model (`ViT-B-16`), such as the file's name.

    Raises:
        EncoderError: no such encoder, or one whose embeddings have another length.
    """
    from guardtrain.encoders.resolve import resolve_spec

    if encoder is None or not (encoder.model or encoder.checkpoint):
        named = [model for model in ("ViT-B-32", "ViT-B-16", "ViT-L-14") if model in hint]
        model = named[0] if named else OPENAI_BY_DIM.get(scorer.dim)
        if model is None:
            raise EncoderError(
                f"The guard reads embeddings of {scorer.dim} numbers, which could be many an encoder's: say which "
                "(encoder=openai_vit_l14, or another of conf/encoder)."
            )
        encoder = EncoderSettings(
            name=f"openai_vit_{model[4:].replace('-', '').lower()}", model=model, pretrained="openai"
        )
    spec = resolve_spec(replace(encoder, normalize=normalize))
    if spec.dim is not None and spec.dim != scorer.dim:
        raise EncoderError(f"The guard reads embeddings of {scorer.dim} numbers; {spec.label} gives {spec.dim}.")
    return spec
