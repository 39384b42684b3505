"""How well guards judge data sets: each metric in each slice with its interval, and which guard is better on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from guardtrain.benchmarks.alignment import matched
from guardtrain.benchmarks.bounds import Bounds, bounds_of
from guardtrain.benchmarks.measures import (
    BOOTSTRAP,
    EXACT,
    METRICS,
    Measures,
    Worth,
    change_ends,
    intervals,
    measures_of,
)
from guardtrain.benchmarks.resampling import resampled
from guardtrain.benchmarks.slices import ALL, Judged, Scope, Slice, masks_of
from guardtrain.errors import ConfigError
from guardtrain.guards.thresholds_rates import effective_number

if TYPE_CHECKING:
    import pandas as pd

ALIGNED = "aligned"
COLUMNS = (
    "kind",
    "guard",
    "versus",
    "data",
    "judged_on",
    "category",
    "source",
    "source_kind",
    "metric",
    "value",
    "low",
    "high",
    "interval",
    "n_images",
    "n_unsafe",
    "n_pairs",
    "origin",
    "n_missing_unsafe",
    "n_missing_safe",
    "lowest",
    "highest",
)
_NAMES = ("kind", "guard", "versus", "data", "judged_on", "category", "source", "source_kind", "metric", "interval")


@dataclass(frozen=True)
class Entrant:
    """A guard as tables know it, beside its scores.

    Args:
        name: what it is called.
        categories: that it is judged on; () for all.
        published: whether others made it.
        trained_on: the data it says it was trained on; None where it says nothing.
    """

    name: str
    categories: tuple[str, ...] = ()
    published: bool = False
    trained_on: str | None = None


@dataclass(frozen=True)
class How:
    """How intervals are made, and which sources are real and generated; see `BenchmarkSettings`."""

    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0
    real: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A data set with every metric of every guard.

    Args:
        judged: what K guards said of it.
        entrants: of the guards, in the same order.
        reference: the place of the guard that others are compared with.
        places: slice -> its place in `measures`.
        masks: (S, N) bool, of the slices.
        views: of `measures`: first each guard on all that it has verdicts on, then those that two have in common.
        measures: the metrics.
        worth: of each denominator.
        common: for each guard the view of it, and that of the one it is compared with, on what both have verdicts on.
        bounds: of guards in views of their own (see `bounding`); None where every guard has a verdict on every image.
        bounding: for each guard the view in `bounds` of it alone, then those of it and of the one it is compared with
            on the test images of both.
        how: of the intervals.
    """

    judged: Judged
    entrants: tuple[Entrant, ...]
    reference: int
    places: dict[Slice, int]
    masks: np.ndarray
    views: Judged
    measures: Measures
    worth: Worth
    common: tuple[tuple[int, int], ...]
    bounds: Bounds | None
    bounding: tuple[tuple[int, int, int], ...]
    how: How

    def scope(self, k: int) -> Scope:
        """The categories of this data set that guard k is judged on; None for all."""
        return scope_of(self.entrants[k], self.judged)

    def shared_scope(self, k: int) -> Scope:
        """The categories that guard k and the one it is compared with are judged on; None for all."""
        return _shared(self.scope(k), self.scope(self.reference))

    def size(self, place: int, view: int) -> tuple[int, int, int]:
        """Images, unsafe images and pairs of a slice that a view has verdicts on."""
        of = self.measures.of
        unsafe, safe, pairs = (round(float(n[view, place, 0])) for n in (of.unsafe, of.safe, of.pairs))
        return unsafe + safe, unsafe, pairs

    def whole_size(self, place: int) -> tuple[int, int, int]:
        """Images, unsafe images and pairs of a slice, judged or not."""
        mask, (safe, unsafe) = self.masks[place], self.judged.pairs
        return int(mask.sum()), int((mask & self.judged.labels).sum()), int((mask[safe] & mask[unsafe]).sum())

    def missing(self, place: int, counted: np.ndarray, known: np.ndarray) -> tuple[int, int]:
        """Unsafe and safe images of a slice that count and have no verdict; `counted` and `known` are (N,) bool."""
        gone = self.masks[place] & counted & ~known
        unsafe = int((gone & self.judged.labels).sum())
        return unsafe, int(gone.sum()) - unsafe

    def slices(self, scope: Scope, aligned: bool) -> Iterator[tuple[Slice, int]]:
        """The slices of all images; or, aligned, those of a scope: wholes with that scope, and its categories."""
        for part, place in self.places.items():
            if not aligned or part.category != ALL:
                fits = part.scope is None and (not aligned or scope is None or part.category in scope)
            else:
                fits = part.scope == scope
            if fits:
                yield part, place


def scope_of(entrant: Entrant, judged: Judged) -> Scope:
    """The categories of a data set that a guard is judged on; None for all, also where no image has a category."""
    if not entrant.categories or not judged.categories:
        return None
    return matched(entrant.categories, judged.categories)


def _shared(mine: Scope, theirs: Scope) -> Scope:
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return tuple(name for name in mine if name in theirs)


def evaluate(judged: Judged, entrants: Sequence[Entrant], how: How, reference: int = 0) -> Evaluated:
    """Compute every metric of every guard on one data set, in every slice and replicate.

    A guard's figures are of the images that it has verdicts on; a difference between two of those that both have.

    Args:
        judged: what K guards said of it.
        entrants: of the guards, in that order.
        how: of the intervals.
        reference: the place of the guard that others are compared with.

    Raises:
        ConfigError: other guards than entrants.
    """
    if tuple(entrant.name for entrant in entrants) != judged.guards:
        raise ConfigError(f"Guards are {', '.join(judged.guards)}; entrants must be the same, in the same order.")
    scopes = [scope_of(entrant, judged) for entrant in entrants]
    wanted = [one for scope in scopes for one in (scope, _shared(scope, scopes[reference]))]
    masks = masks_of(judged, wanted, how.real, how.generated)
    # each data set has draws of its own: they are independent of each other, and do not change with what is beside them
    seed = how.seed + crc32(judged.name.encode())
    known, counted = judged.known, judged.counted
    own, limits = _Views(judged, known), _Views(judged, counted)
    both, inside = known & known[reference], counted & counted[reference]
    places = range(len(entrants))
    common = tuple((own.of(k, both[k]), own.of(reference, both[k])) for k in places)
    bounding = tuple((k, limits.of(k, inside[k]), limits.of(reference, inside[k])) for k in places)
    measures = measures_of(resampled(own.judged, masks, how.replicates, seed))
    return Evaluated(
        judged,
        tuple(entrants),
        reference,
        {part: place for place, part in enumerate(masks)},
        np.stack(list(masks.values())),
        own.judged,
        measures,
        _worth(own.judged, list(masks.values())),
        common,
        bounds_of(limits.judged, masks) if (counted & ~known).any() else None,
        bounding,
        how,
    )


class _Views:
    """Guards on some of the images: first each on its own, then what else is asked for, none twice."""

    def __init__(self, judged: Judged, own: np.ndarray) -> None:
        self._judged = judged
        self._images = list(own)
        self._guards = list(range(len(own)))
        self._places = {(k, images.tobytes()): k for k, images in enumerate(own)}

    def of(self, guard: int, images: np.ndarray) -> int:
        """The place of a guard's view of some images (N,) bool."""
        place = self._places.setdefault((guard, images.tobytes()), len(self._guards))
        if place == len(self._guards):
            self._guards.append(guard)
            self._images.append(images)
        return place

    @property
    def judged(self) -> Judged:
        """The judgements of all views."""
        return self._judged.viewed(self._guards, np.array(self._images))


def _worth(judged: Judged, masks: Sequence[np.ndarray]) -> Worth:
    labels, (safe, unsafe) = judged.labels, judged.pairs
    alone = np.bincount(judged.group, minlength=1).max(initial=0) <= 1
    covers, cover_of = np.unique(judged.known, axis=0, return_inverse=True)
    rows = []
    for cover in covers:
        for mask in masks:
            there = mask & cover
            both = there[safe] & there[unsafe]
            parts = [
                judged.group[there & ~labels],
                judged.group[there & labels],
                judged.group[there],
                judged.group[safe[both]],
            ]
            rows.append([float(len(part)) if alone else effective_number(part) for part in parts])
    values = np.array(rows, dtype=np.float64).reshape(len(covers), len(masks), 4)[cover_of.reshape(-1)]
    return Worth(*np.moveaxis(values, -1, 0))


def metric_rows(evaluated: Evaluated) -> list[tuple[Any, ...]]:
    """Rows of `COLUMNS`, kind `metric`: each guard on all images, and on what it is judged on.

    Where images are missing, `lowest` and `highest` are what the figure could be with them; see `Bounds`. A row whose
    value is not defined is there for its bounds alone.
    """
    found = intervals(evaluated.measures, evaluated.worth, evaluated.how.confidence, len(evaluated.entrants))
    rows = []
    for k, entrant in enumerate(evaluated.entrants):
        images = evaluated.judged.counted[k], evaluated.judged.known[k]
        for judged_on in (ALL, ALIGNED):
            for part, place in evaluated.slices(evaluated.scope(k), judged_on == ALIGNED):
                start = ("metric", entrant.name, None, evaluated.judged.name, judged_on)
                size, missing = evaluated.size(place, k), evaluated.missing(place, *images)
                for name in METRICS:
                    low, high, exact = (array[k, place].item() for array in found[name])
                    value = float(evaluated.measures.table[name][k, place, 0])
                    ends = _ends(evaluated, name, place, k) if any(missing) else (np.nan, np.nan)
                    if not np.isnan(value) or not np.isnan(ends[0]):
                        how = None if np.isnan(value) else EXACT if exact else BOOTSTRAP
                        about = (low, high, how, *size, None, *missing, *ends)
                        rows.append((*start, *_columns(part), name, value, *about))
    return rows


def difference_rows(evaluated: Evaluated) -> list[tuple[Any, ...]]:
    """Rows of `COLUMNS`, kind `difference`: each guard less the one it is compared with, on the same images.

    Those are the images that both have a verdict on; aligned, and are both judged on. The interval is that of the
    differences in the bootstrap's replicates, which draw the same images for both. Missing are the images of the slice
    that one of them has no verdict on, and the bounds are those of the difference on the test images of both.
    """
    rows = []
    reference = evaluated.reference
    versus = evaluated.entrants[reference].name
    known = evaluated.judged.known
    mine, theirs = (list(side) for side in zip(*evaluated.common, strict=True))
    changes = {name: values[mine] - values[theirs] for name, values in evaluated.measures.table.items()}
    ends = {name: change_ends(values, evaluated.how.confidence) for name, values in changes.items()}
    every = np.ones(len(evaluated.judged.records), dtype=bool)
    for k, entrant in enumerate(evaluated.entrants):
        if k == reference:
            continue
        for judged_on in (ALL, ALIGNED):
            for part, place in evaluated.slices(evaluated.shared_scope(k), judged_on == ALIGNED):
                start = ("difference", entrant.name, versus, evaluated.judged.name, judged_on)
                size = evaluated.size(place, evaluated.common[k][0])
                missing = evaluated.missing(place, every, known[k] & known[reference])
                for name in METRICS:
                    value = float(changes[name][k, place, 0])
                    limits = _change_ends(evaluated, name, place, k) if any(missing) else (np.nan, np.nan)
                    if not np.isnan(value):
                        low, high = (float(end[k, place]) for end in ends[name])
                        about = (low, high, BOOTSTRAP, *size, None, *missing, *limits)
                        rows.append((*start, *_columns(part), name, value, *about))
    return rows


def _ends(evaluated: Evaluated, name: str, place: int, view: int) -> tuple[float, float]:
    if evaluated.bounds is None:
        return np.nan, np.nan
    return tuple(float(end[name][view, place]) for end in (evaluated.bounds.lowest, evaluated.bounds.highest))  # type: ignore[return-value]


def _change_ends(evaluated: Evaluated, name: str, place: int, k: int) -> tuple[float, float]:
    _, mine, theirs = evaluated.bounding[k]
    (lowest, highest), (their_lowest, their_highest) = (_ends(evaluated, name, place, at) for at in (mine, theirs))
    return lowest - their_highest, highest - their_lowest


def _columns(part: Slice) -> tuple[str, str, str]:
    return part.category, part.source, part.kind


def tidy(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows as a table with `COLUMNS`, those that are shorter filled up; names are categories, quicker to look up."""
    import pandas as pd

    whole = [(*row, *[None] * (len(COLUMNS) - len(row))) for row in rows]
    frame = pd.DataFrame(whole, columns=list(COLUMNS))
    numbers = dict.fromkeys(("n_missing_unsafe", "n_missing_safe", "lowest", "highest"), "float64")
    return frame.astype(dict.fromkeys(_NAMES, "category") | numbers)
