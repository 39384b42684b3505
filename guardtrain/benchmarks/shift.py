"""How guards hold up elsewhere: on generated images against real ones, and on data unlike what they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guardtrain.benchmarks.effectiveness import ALIGNED, Evaluated
from guardtrain.benchmarks.measures import BOOTSTRAP, METRICS, change_ends
from guardtrain.benchmarks.slices import ALL, GENERATED, REAL, Scope, Slice
from guardtrain.errors import ConfigError

WITHIN = "within categories"
IN, OUT, BOTH = "in", "out", "all data sets"
_SHIFTED = tuple(name for name in METRICS if not name.startswith("pair_"))


def shift_rows(evaluated: Evaluated) -> list[tuple[Any, ...]]:
    """Rows of kind `shift`: a metric on generated images less that on real ones, of all and within categories.

    `within categories` is the mean of the differences within each category that both kinds of images have: it does not
    move because generated images are of other categories. Intervals are of the difference in each bootstrap replicate,
    so images of one group that are on both sides stay together.
    """
    rows = []
    for k, entrant in enumerate(evaluated.entrants):
        for judged_on, scope in ((ALL, None), (ALIGNED, evaluated.scope(k))):
            start = ("shift", entrant.name, REAL, evaluated.judged.name, judged_on)
            sides = _sides(evaluated, scope)
            for name in _SHIFTED:
                changes = {}
                for category, (generated, real) in sides.items():
                    values = evaluated.measures.table[name]
                    change = values[k, generated] - values[k, real]
                    if not np.isnan(change[0]):
                        changes[category] = change
                by_category = {category: change for category, change in changes.items() if category != ALL}
                if len(by_category) > 1:
                    changes[WITHIN] = np.mean(list(by_category.values()), axis=0)
                for category, change in changes.items():
                    value, low, high = _summed_up(change, evaluated.how.confidence)
                    members = [category] if category != WITHIN else list(by_category)
                    size = np.sum(
                        [evaluated.size(place, k) for one in members for place in sides[one]], axis=0
                    ).tolist()
                    rows.append((*start, category, GENERATED, "shift", name, value, low, high, BOOTSTRAP, *size, None))
    return rows


def _sides(evaluated: Evaluated, scope: Scope) -> dict[str, tuple[int, int]]:
    """Places of the generated and of the real images, of all and of each category in scope that has both."""
    out = {}
    for category in (ALL, *evaluated.judged.categories):
        whole = category == ALL
        if not whole and scope is not None and category not in scope:
            continue
        keys = [Slice(category, source, "family", scope if whole else None) for source in (GENERATED, REAL)]
        if all(key in evaluated.places for key in keys):
            out[category] = (evaluated.places[keys[0]], evaluated.places[keys[1]])
    return out


@dataclass(frozen=True)
class Likeness:
    """Which data sets are like what a guard was trained on.

    Args:
        said: names of data sets for every guard of the user's, or for each by its name; None for those that a guard
            says it was trained on.
        origins: data set -> the data config it comes from.
    """

    said: Sequence[str] | Mapping[str, Sequence[str]] | None
    origins: Mapping[str, str]

    def check(self, names: Sequence[str]) -> None:
        """Raises ConfigError where `said` names a data set that is not among `names`."""
        said = self.said or []
        for name in [one for sets in said.values() for one in sets] if isinstance(said, Mapping) else said:
            if name not in names:
                raise ConfigError(f"in_distribution names '{name}'; the data sets are {', '.join(names)}.")

    def inside(self, evaluated: Evaluated, k: int) -> bool:
        """Whether this data set is like guard k's training data."""
        entrant, name = evaluated.entrants[k], evaluated.judged.name
        if isinstance(self.said, Mapping):
            if entrant.name in self.said:
                return name in self.said[entrant.name]
        elif self.said is not None:
            return not entrant.published and name in self.said
        return entrant.trained_on is not None and self.origins.get(name) == entrant.trained_on

    def told(self, sets: Sequence[Evaluated]) -> list[str]:
        """Which data sets count as in and out of distribution, a sentence for guards of which the same is said."""
        alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
        for k, entrant in enumerate(sets[0].entrants if len(sets) > 1 else ()):
            inside = tuple(one.judged.name for one in sets if self.inside(one, k))
            outside = tuple(one.judged.name for one in sets if one.judged.name not in inside)
            alike.setdefault((inside, outside), []).append(entrant.name)
        return [
            f"In distribution for {', '.join(guards)}: {', '.join(inside)}; out of it: {', '.join(outside) or 'none'}."
            for (inside, outside), guards in alike.items()
            if inside
        ]


def distribution_rows(sets: Sequence[Evaluated], likeness: Likeness) -> list[tuple[Any, ...]]:
    """Rows of kind `distribution`, a guard's means over data sets: those like its training data, the others, all.

    Every data set counts the same, on the categories that the guard is judged on; one where a metric is undefined is
    left out of it. Where there are both, `versus` is `out` in a row of the difference. The replicates of data sets are
    independent of each other.
    """
    rows = []
    if len(sets) < 2:
        return []
    for k, entrant in enumerate(sets[0].entrants):
        for name in _SHIFTED:
            parts: dict[str, list[np.ndarray]] = {IN: [], OUT: []}
            sizes: dict[str, list[tuple[int, int, int]]] = {IN: [], OUT: []}
            for one in sets:
                place = one.places.get(Slice(scope=one.scope(k)))
                if place is not None and not np.isnan((values := one.measures.table[name][k, place])[0]):
                    side = IN if likeness.inside(one, k) else OUT
                    parts[side].append(values)
                    sizes[side].append(one.size(place, k))
            groups = {IN: parts[IN], OUT: parts[OUT], BOTH: [*parts[IN], *parts[OUT]]}
            if len(groups[BOTH]) < 2:
                continue  # a mean of one
            means = {side: np.mean(values, axis=0) for side, values in groups.items() if values}
            size = {side: np.sum(sizes[side], axis=0).tolist() if sizes[side] else [0, 0, 0] for side in (IN, OUT)}
            size[BOTH] = [a + b for a, b in zip(size[IN], size[OUT], strict=True)]
            start = ("distribution", entrant.name)
            for side, mean in means.items():
                value, low, high = _summed_up(mean, sets[0].how.confidence)
                slices = (side, ALIGNED, ALL, ALL, ALL)
                rows.append((*start, None, *slices, name, value, low, high, BOOTSTRAP, *size[side], None))
            if IN in means and OUT in means:
                change = means[OUT] - means[IN]
                value, low, high = _summed_up(change, sets[0].how.confidence)
                slices = (OUT, ALIGNED, ALL, ALL, ALL)
                rows.append((*start, IN, *slices, name, value, low, high, BOOTSTRAP, *size[BOTH], None))
    return rows


def _summed_up(values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Value and interval of `(B + 1,)`; see `change_ends`."""
    low, high = change_ends(values, confidence)
    return float(values[0]), float(low), float(high)
