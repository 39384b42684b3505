"""What calibration and thresholds are given, checked once: scores, labels, groups, and dataclasses as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from guardtrain.errors import DataError

_LARGEST = 1e30  # thresholds must survive float32


@dataclass(frozen=True, eq=False)
class Scored:
    """Validation images as the functions here use them.

    Args:
        scores: (N,) float64, finite.
        labels: (N,) int64, 0 safe, 1 unsafe.
        group: (N,) int64 in [0, n_groups).
        n_groups: how many groups there are.
    """

    scores: np.ndarray
    labels: np.ndarray
    group: np.ndarray
    n_groups: int

    def of(self, label: int) -> np.ndarray:
        """The scores of the images of one class, ascending."""
        return np.sort(self.scores[self.labels == label])

    def take(self, rows: np.ndarray) -> Scored:
        """Some of the images, a (N,) bool mask."""
        names, group = np.unique(self.group[rows], return_inverse=True)
        return Scored(self.scores[rows], self.labels[rows], group, len(names))


def scored(scores: Any, labels: Any, groups: Any = None, *, what: str = "Scores") -> Scored:
    """`scores` (N,), `labels` (N,) and `groups` (N,) or None, checked; without a group an image is its own.

    Raises:
        DataError: no images, shapes that differ, scores that are not finite, labels other than 0 and 1.
    """
    values, marks = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or marks.shape != values.shape:
        raise DataError(f"{what} and labels must be (N,) alike; they have shapes {values.shape} and {marks.shape}.")
    if not len(values):
        raise DataError(f"{what} are empty: validation images with labels are needed.")
    wrong = ~(np.abs(values) <= _LARGEST)  # NaN, too
    if wrong.any():
        raise DataError(
            f"{what} must be finite; {int(wrong.sum())} of {len(values)} are not, the first is {values[wrong][0]:g} at "
            f"place {int(wrong.argmax())}. A NaN means that an image or the head is broken."
        )
    if not np.isin(marks, (0, 1)).all():
        raise DataError(f"Labels must be 0 (safe) or 1 (unsafe); they are {np.unique(marks).tolist()[:10]}.")
    if groups is None:
        return Scored(values, marks.astype(np.int64), np.arange(len(values)), len(values))
    names = np.asarray(groups)
    if names.shape != values.shape:
        raise DataError(f"Groups must be (N,) like the scores, {values.shape}; they have shape {names.shape}.")
    # an image without a group is its own; the mark keeps its name apart from the others'
    own = [f"\0{i}" if name is None or name != name else str(name) for i, name in enumerate(names.tolist())]
    distinct, group = np.unique(np.array(own), return_inverse=True)
    return Scored(values, marks.astype(np.int64), group, len(distinct))


def require_classes(images: Scored, labels: Sequence[int], purpose: str) -> None:
    """Raises DataError unless `images` has each of `labels`; `purpose` says what needs them."""
    for label in labels:
        if not (images.labels == label).any():
            raise DataError(
                f"{purpose} needs {('safe', 'unsafe')[label]} validation images; all {len(images.labels)} are "
                f"{('unsafe', 'safe')[label]}."
            )


def checked_fields(cls: type, data: Any, extra: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a dataclass's fields in a mapping read from JSON.

    Args:
        cls: the dataclass; what it is called in errors.
        data: the mapping.
        extra: keys that are written for the reader alone, and ignored.

    Raises:
        DataError: no mapping, a field that is missing, a key that is none.
    """
    names = [field.name for field in fields(cls)]
    if not isinstance(data, Mapping):
        raise DataError(f"A {cls.__name__} must be a mapping with the keys {', '.join(names)}; it is {data!r:.80}.")
    if missing := [name for name in names if name not in data]:
        raise DataError(f"A {cls.__name__} lacks {', '.join(missing)}; it has {', '.join(map(str, data))}.")
    if unknown := [key for key in data if key not in (*names, *extra)]:
        raise DataError(f"A {cls.__name__} has no {', '.join(map(str, unknown))}; it has {', '.join(names)}.")
    return {name: data[name] for name in names}
