"""The parts of a guard before it is written: the trained head, its calibration, its thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.encoders.spec import EncoderSpec
from guardtrain.guards.beside import Beside
from guardtrain.guards.calibration_choice import Calibration
from guardtrain.guards.category_fit import CategoryImages, FittedCategories
from guardtrain.guards.category_head import CategoryHead
from guardtrain.guards.neighbours import Neighbours
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints

if TYPE_CHECKING:
    from guardtrain.heads.bank import HeadBank


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A head and what is known of its training.

    Args:
        bank: a bank of one.
        spec: the encoder whose embeddings it reads.
        definition: of the head, `{_target_: ..., ...}`.
        training: data, mixture, chosen hyper-parameters and recipe, as plain data.
        tests: its metrics on each test set, as plain data.
        categories: of the training images, in order.
        data: origin and licence of each source, as plain data.
        neighbours: the training images.
        notes: what a reader of the card should know besides.
        further: entries of `config.json` besides those that every guard has.
        categorised: its unsafe training images whose category is known; None where they are not at hand.
        named: the category head that it has already, and what its config says of it; None where one is to be fitted.
        known: (M, 16) float16 of its training images, by which they are known again; None where they are not at hand.
    """

    bank: HeadBank
    spec: EncoderSpec
    definition: Mapping[str, Any]
    training: Mapping[str, Any]
    tests: Sequence[Mapping[str, Any]] = ()
    categories: Sequence[str] = ()
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    neighbours: Neighbours | None = None
    notes: tuple[str, ...] = ()
    further: Mapping[str, Any] = field(default_factory=dict)
    categorised: CategoryImages | None = None
    named: tuple[CategoryHead, Mapping[str, Any]] | None = None
    known: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class GuardParts:
    """All that a guard consists of before it is written.

    Args:
        run: the head.
        calibration: of its logits.
        prior: the share of unsafe images that its probabilities hold for; None where nothing calibrated it.
        points: operating points on its logits.
        category_points: thresholds of single categories.
        notes: for the card.
        categories: the category head; None where none is named.
        beside: what it does on images that had no part in it.
    """

    run: TrainedRun
    calibration: Calibration
    prior: float | None
    points: OperatingPoints
    category_points: Mapping[str, OperatingPoint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    categories: FittedCategories | None = None
    beside: tuple[Beside, ...] = ()

    @property
    def category_head(self) -> CategoryHead | None:
        """Return the head that names categories; None where none was fitted."""
        return None if self.categories is None else self.categories.head
