"""How well guards judge data sets: each metric in each slice with its interval, and which guard is better on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from guardtrain.benchmarks.alignment import matched
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
)
_NAMES = ("kind", "guard", "versus", "data", "judged_on", "category", "source", "source_kind", "metric", "interval")


@dataclass(frozen=True)
class Entrant:
    """What is known of a guard beside its scores.

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
        judged: the scores.
        entrants: of the guards, in the same order.
        reference: the place of the guard that others are compared with.
        places: slice -> its place in `measures`.
        measures: the metrics.
        worth: of each slice's denominators.
        how: of the intervals.
    """

    judged: Judged
    entrants: tuple[Entrant, ...]
    reference: int
    places: dict[Slice, int]
    measures: Measures
    worth: Worth
    how: How

    def scope(self, k: int) -> Scope:
        """The categories of this data set that guard k is judged on; None for all."""
        return scope_of(self.entrants[k], self.judged)

    def common(self, k: int) -> Scope:
        """The categories that guard k and the one it is compared with are judged on; None for all."""
        mine, theirs = self.scope(k), self.scope(self.reference)
        if mine is None or theirs is None:
            return theirs if mine is None else mine
        return tuple(name for name in mine if name in theirs)

    def size(self, place: int) -> tuple[int, int, int]:
        """Images, unsafe images and pairs of a slice."""
        of = self.measures.of
        return tuple(
            round(float(n)) for n in (of.safe[place, 0] + of.unsafe[place, 0], of.unsafe[place, 0], of.pairs[place, 0])
        )  # type: ignore[return-value]

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


def evaluate(judged: Judged, entrants: Sequence[Entrant], how: How, reference: int = 0) -> Evaluated:
    """Compute every metric of every guard on one data set, in every slice and replicate.

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
    nothing = Evaluated(judged, tuple(entrants), reference, {}, None, None, how)  # type: ignore[arg-type]
    scopes = [scope for k in range(len(entrants)) for scope in (nothing.scope(k), nothing.common(k))]
    masks = masks_of(judged, scopes, how.real, how.generated)
    # each data set has draws of its own: they are independent of each other, and do not change with what is beside them
    seed = how.seed + crc32(judged.name.encode())
    measures = measures_of(resampled(judged, masks, how.replicates, seed))
    places = {part: place for place, part in enumerate(masks)}
    return Evaluated(judged, tuple(entrants), reference, places, measures, _worth(judged, list(masks.values())), how)


def _worth(judged: Judged, masks: Sequence[np.ndarray]) -> Worth:
    labels, (safe, _) = judged.labels, judged.pairs
    alone = np.bincount(judged.group, minlength=1).max(initial=0) <= 1
    rows = []
    for mask in masks:
        both = mask[safe] & mask[judged.pairs[1]]
        parts = [
            judged.group[mask & ~labels],
            judged.group[mask & labels],
            judged.group[mask],
            judged.group[safe[both]],
        ]
        rows.append([float(len(part)) if alone else effective_number(part) for part in parts])
    return Worth(*np.array(rows, dtype=np.float64).reshape(len(masks), 4).T)


def metric_rows(evaluated: Evaluated) -> list[tuple[Any, ...]]:
    """Rows of `COLUMNS`, kind `metric`: each guard on all images, and on what it is judged on."""
    found = intervals(evaluated.measures, evaluated.worth, evaluated.how.confidence)
    rows = []
    for k, entrant in enumerate(evaluated.entrants):
        for judged_on in (ALL, ALIGNED):
            for part, place in evaluated.slices(evaluated.scope(k), judged_on == ALIGNED):
                start = ("metric", entrant.name, None, evaluated.judged.name, judged_on)
                size = evaluated.size(place)
                for name in METRICS:
                    low, high, exact = (array[k, place].item() for array in found[name])
                    value = float(evaluated.measures.table[name][k, place, 0])
                    if not np.isnan(value):
                        how = EXACT if exact else BOOTSTRAP
                        rows.append((*start, *_columns(part), name, value, low, high, how, *size, None))
    return rows


def difference_rows(evaluated: Evaluated) -> list[tuple[Any, ...]]:
    """Rows of `COLUMNS`, kind `difference`: each guard less the one it is compared with, on the same images.

    Aligned, those are the images that both guards are judged on. The interval is that of the differences in the
    bootstrap's replicates, which draw the same images for both.
    """
    rows = []
    reference = evaluated.reference
    versus = evaluated.entrants[reference].name
    changes = {name: values - values[reference][None] for name, values in evaluated.measures.table.items()}
    ends = {name: change_ends(values, evaluated.how.confidence) for name, values in changes.items()}
    for k, entrant in enumerate(evaluated.entrants):
        if k == reference:
            continue
        for judged_on in (ALL, ALIGNED):
            for part, place in evaluated.slices(evaluated.common(k), judged_on == ALIGNED):
                start = ("difference", entrant.name, versus, evaluated.judged.name, judged_on)
                size = evaluated.size(place)
                for name in METRICS:
                    value = float(changes[name][k, place, 0])
                    if not np.isnan(value):
                        low, high = (float(end[k, place]) for end in ends[name])
                        rows.append((*start, *_columns(part), name, value, low, high, BOOTSTRAP, *size, None))
    return rows


def _columns(part: Slice) -> tuple[str, str, str]:
    return part.category, part.source, part.kind


def tidy(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows as a table with `COLUMNS`; names are categories, which are quicker to look up."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(_NAMES, "category"))
