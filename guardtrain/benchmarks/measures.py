"""The metrics of a guard at its operating point, with intervals: exact ones of counts, else the bootstrap's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from guardtrain.benchmarks.resampling import Replicates
from guardtrain.guards.thresholds_rates import clopper_pearson

METRICS = {
    "f1": "F1",
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "fpr": "FPR",
    "fnr": "FNR",
    "flag_rate": "share flagged",
    "pair_both_right": "pairs, both right",
    "pair_ranking": "pairs, ranked right",
}
LOWER_IS_BETTER = ("fpr", "fnr")
NEUTRAL = ("flag_rate",)  # neither is better
EXACT, BOOTSTRAP = "clopper-pearson", "bootstrap"


@dataclass(frozen=True, eq=False)
class Measures:
    """Every metric of K guards on S slices; the last axis of each is the data as it is, then B replicates.

    Each is of the images that the guard has a verdict on.

    Args:
        of: what was counted.
        table: metric -> (K, S, B + 1) float64; NaN where it is not defined: F1, recall and FNR without unsafe images,
            FPR without safe ones, precision where nothing is flagged, AUROC without both, pair metrics without pairs.
    """

    of: Replicates
    table: dict[str, np.ndarray]


def measures_of(of: Replicates) -> Measures:
    """The metrics of counts: F1 is that of the unsafe class, `2 TP / (2 TP + FP + FN)`."""
    unsafe, safe, hits, alarms = of.unsafe, of.safe, of.hits, of.alarms
    images = unsafe + safe
    values = {
        "f1": np.where(unsafe > 0, _share(2 * hits, hits + alarms + unsafe), np.nan),
        "auroc": of.auroc,
        "accuracy": _share(hits + safe - alarms, images),
        "precision": _share(hits, hits + alarms),
        "recall": _share(hits, unsafe),
        "fpr": _share(alarms, safe),
        "fnr": _share(unsafe - hits, unsafe),
        "flag_rate": _share(hits + alarms, images),
        "pair_both_right": _share(of.both_right, of.pairs),
        "pair_ranking": _share(of.ranked, of.pairs),
    }
    return Measures(of, values)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def percentiles(values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval over the last axis, undefined replicates left out; NaN where fewer than half are defined.

    As `np.nanquantile`, which takes a Python call for each row.

    Args:
        values: (..., B) float.

    Returns:
        low (...,) and high (...,) float64.
    """
    ascending = np.sort(values, axis=-1)  # NaN last
    known = (~np.isnan(ascending)).sum(axis=-1)
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        place = tail * np.maximum(known - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        a, b = (np.take_along_axis(ascending, at[..., None], axis=-1)[..., 0] for at in (below, above))
        ends.append(np.where(2 * known >= values.shape[-1], a + (b - a) * (place - below), np.nan))
    return ends[0], ends[1]


def change_ends(values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of differences; NaN where every replicate gives the same difference, and that is not 0.

    Then there was too little to draw from (two images, say, on which one guard is right and the other wrong), and an
    interval of no width would say that the difference is certain.

    Args:
        values: (..., B + 1) float, the data as it is and then the replicates.

    Returns:
        low (...,) and high (...,) float64.
    """
    low, high = percentiles(values[..., 1:], confidence)
    certain = (low == high) & (values[..., 0] != 0)
    return np.where(certain, np.nan, low), np.where(certain, np.nan, high)


@dataclass(frozen=True, eq=False)
class Worth:
    """How many independent units each denominator is worth, (K, S) each: of a guard on a slice; see `effective_number`.

    Args:
        safe, unsafe, images, pairs: of safe images, unsafe ones, all images, pairs.
    """

    safe: np.ndarray
    unsafe: np.ndarray
    images: np.ndarray
    pairs: np.ndarray

    def first(self, count: int | None) -> Worth:
        """Return the part of the first guards alone."""
        return Worth(*(each[:count] for each in (self.safe, self.unsafe, self.images, self.pairs)))


def intervals(
    measures: Measures, worth: Worth, confidence: float, first: int | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Intervals of every metric, of the `first` guards alone: low, high (K, S) and whether they are exact (K, S) bool.

    A metric that is a share of images (or pairs) of which no two are of one group has the Clopper-Pearson interval. So
    has F1, which is `2 J / (1 + J)` of `J = TP / (TP + FP + FN)`, a share of the images that are unsafe or called so
    (Hand, Christen and Kirielle, "F*: an interpretable transformation of the F-measure", Machine Learning 110, 2021):
    given how many those are, TP is binomial. With larger groups, and for AUROC, the interval is the bootstrap's over
    groups. Where all replicates are equal (nothing or everything is right), that would be no interval at all: then it
    is Clopper-Pearson's of as many independent units as the groups are worth, of AUROC as many couples of a safe and
    an unsafe image as have no image in common.
    """
    of, worth = measures.of.first(first), worth.first(first)
    unsafe, safe, pairs = of.unsafe[..., 0], of.safe[..., 0], of.pairs[..., 0]
    hits, alarms = of.hits[..., 0], of.alarms[..., 0]
    couples = np.minimum(safe, unsafe)
    everyone = worth.images / np.maximum(safe + unsafe, 1)  # independent images an image
    counts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {
        "f1": (hits, alarms + unsafe, everyone),
        "auroc": (
            of.auroc[..., 0] * couples,
            couples,
            np.minimum(worth.safe, worth.unsafe) / np.maximum(couples, 1),
        ),
        "accuracy": (hits + safe - alarms, safe + unsafe, everyone),
        "precision": (hits, hits + alarms, everyone),
        "recall": (hits, unsafe, worth.unsafe / np.maximum(unsafe, 1)),
        "fpr": (alarms, safe, worth.safe / np.maximum(safe, 1)),
        "fnr": (unsafe - hits, unsafe, worth.unsafe / np.maximum(unsafe, 1)),
        "flag_rate": (hits + alarms, safe + unsafe, everyone),
        "pair_both_right": (of.both_right[..., 0], pairs, worth.pairs / np.maximum(pairs, 1)),
        "pair_ranking": (of.ranked[..., 0], pairs, worth.pairs / np.maximum(pairs, 1)),
    }
    out = {}
    for name, every in measures.table.items():
        values = every[:first]
        part, whole, each = (np.broadcast_to(array, values.shape[:2]) for array in counts[name])
        low, high = percentiles(values[..., 1:], confidence)
        halves = np.isclose(part, np.round(part), atol=1e-9)
        exact = (low == high) & halves
        if name not in ("auroc", "pair_ranking"):
            exact = exact | (each >= 1 - 1e-9)
        exact = exact & (whole > 0) & ~np.isnan(values[..., 0])
        low, high = low.copy(), high.copy()
        to_share: Callable[[float], float] = (lambda j: 2 * j / (1 + j)) if name == "f1" else (lambda j: j)
        for k, s in zip(*np.nonzero(exact), strict=True):
            n, of_all = round(float(part[k, s])), round(float(whole[k, s]))
            ends = clopper_pearson(n, n, of_all, float(each[k, s]) * of_all, confidence)
            low[k, s], high[k, s] = (to_share(end) for end in ends)
        undefined = np.isnan(values[..., 0])
        out[name] = (np.where(undefined, np.nan, low), np.where(undefined, np.nan, high), exact)
    return out
