"""What a guard says of a batch of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from guardtrain.guards.calibration import Calibrator
from guardtrain.guards.category_head import named_categories
from guardtrain.guards.operating_points import DECISIONS, UNSAFE, Point


@dataclass(frozen=True)
class Neighbour:
    """A training image near to the one that was judged.

    Args:
        id: of its record.
        label: 0 safe, 1 unsafe.
        similarity: cosine of the two embeddings.
        pair_id: of the pair it is half of; None where it is of none.
    """

    id: str
    label: int
    similarity: float
    pair_id: str | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """N inputs judged at one operating point, in their order.

    Args:
        ids: what each input is called: its path or URL, else its place.
        probabilities: (N,) float64 calibrated probabilities of being unsafe; NaN where an image could not be read.
        decision: `safe`, `unsafe` or `review`; None where an image could not be read.
        point: the operating point.
        errors: why an image could not be read; None where it could.
        categories: for each input the decision in each category that has a threshold of its own; None where the guard
            has no such thresholds.
        neighbours: for each input the nearest training images, the nearest first; None where none were asked for.
        category: for each input that is not called safe the likeliest category; None where it is, or could not be read.
            None as a whole where the guard names no categories.
        category_names: C categories; empty where the guard names none.
        category_probabilities: (N, C) float64 `P(category | unsafe)`; a row of NaN where an image could not be read.
        seen: for each input by which `frame` of an animation it is judged (from 0; None for a still image), how many
            `frames` its file has, and `frames_judged`, how many were looked at; all None where it could not be read.
            None as a whole for embeddings.
    """

    ids: tuple[str, ...]
    probabilities: np.ndarray
    decision: tuple[str | None, ...]
    point: str
    errors: tuple[str | None, ...]
    categories: tuple[Mapping[str, str], ...] | None = None
    neighbours: tuple[tuple[Neighbour, ...], ...] | None = None
    category: tuple[str | None, ...] | None = None
    category_names: tuple[str, ...] = ()
    category_probabilities: np.ndarray | None = None
    seen: tuple[Mapping[str, int | None], ...] | None = None

    @property
    def flagged(self) -> np.ndarray:
        """(N,) bool, True where the decision is `unsafe`."""
        return np.array([decision == DECISIONS[UNSAFE] for decision in self.decision], dtype=bool)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each input as plain data, for JSON lines."""
        for i, name in enumerate(self.ids):
            probability = float(self.probabilities[i])
            row: dict[str, Any] = {
                "id": name,
                "probability": None if np.isnan(probability) else probability,
                "decision": self.decision[i],
                "point": self.point,
                "error": self.errors[i],
            }
            if self.seen is not None:
                row |= self.seen[i]
            if self.categories is not None:
                row["categories"] = dict(self.categories[i])
            if self.category is not None and self.category_probabilities is not None:
                row["category"] = self.category[i]
                shares = zip(self.category_names, self.category_probabilities[i].tolist(), strict=True)
                row["category_probabilities"] = dict(shares) if self.errors[i] is None else {}
            if self.neighbours is not None:
                row["neighbours"] = [vars(neighbour) for neighbour in self.neighbours[i]]
            yield row


def predictions_of(
    point: Point,
    calibrator: Calibrator,
    ids: Sequence[str],
    logits: np.ndarray,
    errors: Sequence[str | None],
    *,
    category_points: Mapping[str, Point],
    neighbours: Sequence[tuple[Neighbour, ...]] | None,
    category_names: tuple[str, ...],
    shares: np.ndarray | None,
    seen: Sequence[Mapping[str, int | None]] | None,
) -> Predictions:
    """Return what is said of N inputs, of which M could be read; see `Predictions`.

    Args:
        point: the operating point that decides.
        calibrator: from logits to probabilities.
        ids, errors, neighbours, seen: of each input.
        logits: (M,) of those that could be read.
        category_points: thresholds of single categories.
        category_names: C names; none where no category is named.
        shares: (M, C) `P(category | unsafe)`; None where no category is named.
    """
    judged = np.array([error is None for error in errors], dtype=bool)
    probabilities = np.full(len(ids), np.nan)
    probabilities[judged] = calibrator.probabilities(logits)
    decided = tuple(decisions(point, logits, judged))
    found = Predictions(
        tuple(ids),
        probabilities,
        decided,
        point.name,
        tuple(errors),
        _by_category(category_points, logits, judged),
        tuple(neighbours) if neighbours is not None else None,
        seen=None if seen is None else tuple(seen),
    )
    if shares is None:
        return found
    of_each = np.full((len(ids), len(category_names)), np.nan)
    of_each[judged] = shares
    category = named_categories(category_names, of_each, decided)
    return replace(found, category=category, category_names=category_names, category_probabilities=of_each)


def decisions(point: Point, logits: np.ndarray, judged: np.ndarray) -> list[str | None]:
    """The decision of each input, None where it was not `judged` (N,) bool; `logits` (M,) are of those that were."""
    found = iter(point.decide(logits).tolist())
    return [DECISIONS[next(found)] if one else None for one in judged.tolist()]


def _by_category(
    points: Mapping[str, Point], logits: np.ndarray, judged: np.ndarray
) -> tuple[Mapping[str, str], ...] | None:
    if not points:
        return None
    columns = {name: point.decide(logits) for name, point in points.items()}
    place = np.cumsum(judged) - 1
    return tuple(
        {name: DECISIONS[int(values[place[i]])] for name, values in columns.items()} if judged[i] else {}
        for i in range(len(judged))
    )
