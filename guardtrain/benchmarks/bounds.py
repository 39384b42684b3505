"""What a guard's figures could be if it had a verdict on every image: all missing ones wrong, or all right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from guardtrain.benchmarks.measures import Measures, measures_of
from guardtrain.benchmarks.resampling import resampled
from guardtrain.benchmarks.slices import Judged, Slice

# Of a guard's images: from here on the bounds stand beside its figures in tables; below, they are in the data alone.
SHOWN_FROM = 0.01


@dataclass(frozen=True, eq=False)
class Bounds:
    """The ends between which each metric lies, whatever the missing verdicts would have been.

    They hold for sure and for these images, and so are wide; an interval is of other images and of the verdicts there.

    Args:
        lowest, highest: metric -> (K, S) float64; NaN where it would not be defined with all verdicts either.
    """

    lowest: dict[str, np.ndarray]
    highest: dict[str, np.ndarray]


def bounds_of(judged: Judged, masks: Mapping[Slice, np.ndarray]) -> Bounds:
    """The bounds of every metric of K guards on S slices.

    Of a share flagged neither end is right or wrong: its bounds are none of the missing flagged, and all of them.

    Args:
        judged: with images without a verdict.
        masks: (N,) bool for each slice.
    """
    wrong, right = (_observed(judged.filled(filled), masks) for filled in (False, True))
    lowest, highest = {}, {}
    for name, values in wrong.table.items():
        ends = np.stack([values[..., 0], right.table[name][..., 0]])
        lowest[name], highest[name] = ends.min(axis=0), ends.max(axis=0)
    images = np.maximum(right.of.unsafe + right.of.safe, 1)[..., 0]
    known = (wrong.of.hits + right.of.alarms)[..., 0]  # flagged by the guard, not by the filling
    every = (right.of.hits + wrong.of.alarms)[..., 0]
    undefined = np.isnan(lowest["flag_rate"])
    lowest["flag_rate"] = np.where(undefined, np.nan, known / images)
    highest["flag_rate"] = np.where(undefined, np.nan, every / images)
    return Bounds(lowest, highest)


def _observed(judged: Judged, masks: Mapping[Slice, np.ndarray]) -> Measures:
    return measures_of(resampled(judged, masks, 0, 0))
