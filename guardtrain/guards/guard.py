"""The guard: load a directory, judge images or embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.encoders.spec import EncoderSpec, require_same, settings_for
from guardtrain.errors import EncoderError, GuardError
from guardtrain.guards.base_rates import base_rate
from guardtrain.guards.calibration import Calibrator
from guardtrain.guards.calibration_choice import Calibration
from guardtrain.guards.category_head import CategoryHead
from guardtrain.guards.described import DescribedGuard
from guardtrain.guards.directory import KNOWN_IMAGES, NEIGHBOURS
from guardtrain.guards.head_file import read_bank
from guardtrain.guards.inputs import Batch, batches, is_embeddings
from guardtrain.guards.known_images import KnownImages
from guardtrain.guards.logits import checked_embeddings, head_function
from guardtrain.guards.looking import UNSEEN, Seen
from guardtrain.guards.neighbours import Neighbours
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints
from guardtrain.guards.predictions import Neighbour, Predictions, predictions_of
from guardtrain.sources.frames import DEFAULT_FRAMES, most_frames

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.heads.bank import HeadBank


@dataclass(eq=False)
class Guard:
    """A calibrated head with its operating points; the encoder is loaded when the first image comes.

    Args:
        path: the directory it was loaded from.
        spec: the encoder whose embeddings it reads.
        bank: the head, a bank of one in eval mode.
        calibration: the calibrator, and how it was come by.
        points: the operating points; their thresholds are logits.
        category_points: thresholds of single categories; empty where there are none.
        categories: the taxonomy's categories among the training images.
        taxonomy: its name; None where the data names none.
        about: all of `config.json`.
        category_head: names the category of an unsafe image; None where the guard does not.
    """

    path: Path
    spec: EncoderSpec
    bank: HeadBank = field(repr=False)
    calibration: Calibration = field(repr=False)
    points: OperatingPoints = field(repr=False)
    category_points: Mapping[str, OperatingPoint] = field(repr=False)
    categories: tuple[str, ...]
    taxonomy: str | None
    about: Mapping[str, Any] = field(repr=False)
    category_head: CategoryHead | None = field(default=None, repr=False)
    _checkpoint: str | None = None
    _device: str = "auto"
    _batch_size: int = 256
    _encoder: Encoder | None = None
    _neighbours: Neighbours | None = field(default=None, repr=False)
    _known: KnownImages | None = field(default=None, repr=False)
    _head: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls,
        path_or_hub_id: str | Path,
        *,
        revision: str | None = None,
        checkpoint: str | None = None,
        device: str = "auto",
        batch_size: int = 256,
        trusted_heads: Sequence[str] = (),
        prior: float | None = None,
    ) -> Guard:
        """Load a guard; nothing of it is run or unpickled, and every file must be the one that was exported.

        Args:
            path_or_hub_id: a directory, or `org/name` on the Hugging Face hub (its cache first; HF_HUB_OFFLINE is
                respected).
            revision: of the hub's repository.
            checkpoint: where the encoder's weights lie on this machine; None for where its spec says.
            device: of the encoder: auto, cpu, cuda, cuda:1, mps.
            batch_size: images a forward pass of the encoder.
            trusted_heads: dotted names of head definitions outside guardtrain that may be imported.
            prior: the share of unsafe images where it works, for which its probabilities then hold; None for the one it
                was made for. No decision changes.

        Raises:
            ConfigError: a prior that is no share.
            GuardError: no such guard, or one that is refused; the message says what differs and what to do.
        """
        described = DescribedGuard.read(path_or_hub_id, revision).at(prior)
        return cls.of(
            described, checkpoint=checkpoint, device=device, batch_size=batch_size, trusted_heads=trusted_heads
        )

    @classmethod
    def of(
        cls,
        described: DescribedGuard,
        *,
        checkpoint: str | None = None,
        device: str = "auto",
        batch_size: int = 256,
        trusted_heads: Sequence[str] = (),
    ) -> Guard:
        """The guard of a description, its head read; see `load`.

        Raises:
            GuardError: a head that is refused, or whose weights do not fit.
        """
        config = described.about
        bank = read_bank(described.path, config, trusted_heads)
        taxonomy = config.get("taxonomy") or {}
        return cls(
            described.path,
            described.spec,
            bank,
            described.calibration,
            described.points,
            described.category_points,
            tuple(taxonomy.get("categories", ())),
            taxonomy.get("name"),
            config,
            CategoryHead.read(described.path, config, bank.dim),
            checkpoint,
            device,
            batch_size,
        )

    @property
    def calibrator(self) -> Calibrator:
        """The map from logits to probabilities."""
        return self.calibration.calibrator

    @property
    def prior(self) -> float | None:
        """The share of unsafe images that its probabilities hold for; None where nothing calibrated it."""
        return base_rate(self.about)

    @property
    def default_point(self) -> str:
        """The operating point that is used where none is asked for."""
        return self.points.default

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self.bank.dim

    @property
    def name(self) -> str:
        """Return what the guard is called."""
        return str(self.about.get("name") or self.path.name)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded now if it was not.

        Raises:
            EncoderError: its weights cannot be had, or are others than those of the spec.
        """
        if self._encoder is None:
            from guardtrain.encoders.load import load_encoder

            settings = settings_for(
                self.spec, checkpoint=self._checkpoint, batch_size=self._batch_size, device=self._device
            )
            try:
                encoder = load_encoder(settings)
            except EncoderError as error:
                raise EncoderError(
                    f"The guard {self.name} needs its encoder for images: {error}\n  If its weights lie elsewhere on "
                    "this machine, say so: Guard.load(..., checkpoint=PATH)."
                ) from error
            require_same(encoder.spec, self.spec, f"the encoder loaded for the guard {self.name}")
            self._encoder = encoder
        return self._encoder

    def logits(self, embeddings: Any, spec: EncoderSpec | None = None) -> np.ndarray:
        """(N,) float64 logits, the units of the operating points' thresholds.

        Args:
            embeddings: (N, D) floating, made by the guard's encoder.
            spec: the encoder that made them, to be compared; None trusts the caller.

        Raises:
            GuardError: another dimension, NaN or infinity, not of unit norm where the encoder normalises.
            EncoderError: another encoder, with the fields that differ.
        """
        if spec is not None:
            require_same(spec, self.spec, what="the embeddings")
        return self._logits(checked_embeddings(embeddings, self.spec, self.dim))

    def probabilities(self, embeddings: Any, spec: EncoderSpec | None = None) -> np.ndarray:
        """(N,) float64 calibrated probabilities of being unsafe, for the share `prior`; see `logits` for the rest."""
        return self.calibrator.probabilities(self.logits(embeddings, spec))

    def category_probabilities(self, embeddings: Any) -> np.ndarray | None:
        """(N, C) float64 `P(category | unsafe)`, in the order of `category_head.names`; None without a category head.

        They hold for unsafe images, where categories are as frequent as they were in training; see `logits` for errors.
        """
        if self.category_head is None:
            return None
        return self.category_head.probabilities(checked_embeddings(embeddings, self.spec, self.dim))

    def predict(
        self,
        inputs: Any,
        *,
        point: str | None = None,
        explain: int = 0,
        ids: Sequence[str] | None = None,
        frames: str | int = DEFAULT_FRAMES,
    ) -> Predictions:
        """Judge images or embeddings.

        Args:
            inputs: paths or URLs, PIL images, encoded images as bytes, (N, H, W, 3) uint8, or (N, D) embeddings; one
                of the first three alone is a batch of one.
            point: the operating point; None for the default one.
            explain: how many of the nearest training images to give with each.
            ids: what the inputs are called; None for their paths, or their places.
            frames: of an animation: `first`, `all`, or how many, spread evenly, the first and the last among them. It
                is judged by the likeliest to be unsafe. A PIL image of which a later frame was sought is judged by it.

        Returns:
            One judgement an input. An image that cannot be read has an error instead, and the others are judged.

        Raises:
            ConfigError: an operating point that there is not, or `frames` that are nothing of these.
            GuardError: as of `probabilities`, or neighbours of a guard without them.
            EncoderError: images, and the encoder cannot be loaded.
        """
        chosen = self.points[self.default_point if point is None else point]
        near = self.neighbours if explain else None
        names: list[str] = []
        errors: list[str | None] = []
        seen: list[Seen | None] = []
        logits, neighbours = [np.zeros(0)], list[tuple[Neighbour, ...]]()
        head = self.category_head
        shares = [np.zeros((0, len(head.names)))] if head is not None else []
        for batch in self._batches(inputs, most_frames(frames)):
            rows = checked_embeddings(batch.embeddings, self.spec, self.dim)
            logits.append(self._logits(rows))
            if head is not None:
                shares.append(head.probabilities(rows))
            names += batch.ids
            errors += batch.errors
            seen += batch.seen
            if near is not None:
                nearest = iter(near.nearest(rows, explain))
                neighbours += [() if error else next(nearest) for error in batch.errors]
        if ids is not None:
            if len(ids) != len(names):
                raise GuardError(f"There are {len(names)} inputs and {len(ids)} ids; each input needs one.")
            names = [str(name) for name in ids]
        return predictions_of(
            chosen,
            self.calibrator,
            names,
            np.concatenate(logits),
            errors,
            category_points=self.category_points,
            neighbours=neighbours if near is not None else None,
            category_names=head.names if head is not None else (),
            shares=np.concatenate(shares) if head is not None else None,
            seen=None if is_embeddings(inputs) else [UNSEEN if one is None else one.columns() for one in seen],
        )

    @property
    def neighbours(self) -> Neighbours:
        """The training images kept in the guard.

        Raises:
            GuardError: it keeps none.
        """
        if self._neighbours is None:
            if NEIGHBOURS not in self.about["files"]:
                raise GuardError(
                    f"The guard {self.name} keeps no training embeddings, so it cannot name the nearest training "
                    "images. Export it with neighbours=true, or predict with explain=0."
                )
            self._neighbours = Neighbours.read(self.path / NEIGHBOURS)
        return self._neighbours

    @property
    def known_images(self) -> KnownImages:
        """The images it was made of, as far as it knows them: guards made earlier, and those of others, do not."""
        if self._known is None:
            there = KNOWN_IMAGES in self.about["files"]
            self._known = KnownImages.read(self.path / KNOWN_IMAGES) if there else KnownImages()
        return self._known

    def _batches(self, inputs: Any, most: int | None) -> Iterator[Batch]:
        if is_embeddings(inputs):
            rows = checked_embeddings(inputs, self.spec, self.dim)
            yield Batch([str(i) for i in range(len(rows))], [None] * len(rows), rows, [None] * len(rows))
            return
        yield from batches(inputs, lambda: self.encoder, most, self.logits)

    def _logits(self, rows: np.ndarray) -> np.ndarray:
        if self._head is None:
            self._head = head_function(self.bank)
        return self._head(rows)
