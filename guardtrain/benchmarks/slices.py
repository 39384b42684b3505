"""The slices that guards are compared on: category × source × what a guard is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from guardtrain.benchmarks.alignment import plain_name
from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.curves.bootstrap import group_index
from guardtrain.metrics.slices import record_pairs
from guardtrain.records import Records

ALL = "all"
REAL, GENERATED = "real", "generated"
Scope = tuple[str, ...] | None  # the categories whose unsafe images count; None for all

# Values of `source` that tell where images came from; `real` and `generated` of the settings come on top.
_REAL = ("real", "laion5b", "laion", "photograph", "photographs", "photo", "web", "smid")
_GENERATED = ("generated", "lexica", "aigenerated", "synthetic", "stablediffusion", "midjourney", "dalle", "civitai")


@dataclass(frozen=True)
class Slice:
    """Some images of a data set.

    Args:
        category: its name, or `all`.
        source: its name, `all`, or a family of sources, `real` or `generated`.
        kind: what `source` is: `all`, `source` or `family`.
        scope: only unsafe images of these categories, beside all safe ones; None for all. Within a category it is None.
    """

    category: str = ALL
    source: str = ALL
    kind: str = ALL
    scope: Scope = None


@dataclass(frozen=True, eq=False)
class Judged:
    """A data set as guards judged it: N images and K guards, each with verdicts on images of its own.

    Args:
        name: of the data set.
        guards: K names.
        records: N records, all of the data set: draws of them are the same whoever has judged which.
        logits: (K, N) float64; any scale on which higher is more unsafe. NaN where a guard has no verdict.
        flagged: (K, N) bool, called unsafe at the guard's operating point; False where a guard has no verdict.
        outcomes: (K, N) int8, see `Outcome`; None where every guard has a verdict on every image.
    """

    name: str
    guards: tuple[str, ...]
    records: Records
    logits: np.ndarray
    flagged: np.ndarray
    outcomes: np.ndarray = None  # type: ignore[assignment]
    pairs: tuple[np.ndarray, np.ndarray] = field(init=False)
    group: np.ndarray = field(init=False)
    groups: int = field(init=False)

    def __post_init__(self) -> None:
        if self.outcomes is None:
            object.__setattr__(self, "outcomes", np.zeros(self.flagged.shape, dtype=np.int8))
        object.__setattr__(self, "logits", np.where(self.known, self.logits, np.nan))
        object.__setattr__(self, "flagged", self.flagged & self.known)
        safe, unsafe = (half.numpy() for half in record_pairs(self.records))
        group, groups = group_index(self.records.groups, (safe, unsafe))
        for name, value in (("pairs", (safe, unsafe)), ("group", group), ("groups", groups)):
            object.__setattr__(self, name, value)

    @property
    def labels(self) -> np.ndarray:
        """(N,) bool, True is unsafe."""
        return self.records.labels == 1

    @property
    def known(self) -> np.ndarray:
        """(K, N) bool, whether a guard has a verdict that counts."""
        return self.outcomes == Outcome.ANSWERED

    @property
    def counted(self) -> np.ndarray:
        """(K, N) bool, whether an image is among a guard's test images, with a verdict or without."""
        return self.outcomes != Outcome.SET_ASIDE

    def viewed(self, guards: Sequence[int], counted: np.ndarray) -> Judged:
        """Return the images as V guards judged those of them that count, each guard as often as it is named.

        Args:
            guards: V places of guards.
            counted: (V, N) bool; the others are set aside.
        """
        at = list(guards)
        outcomes = np.where(counted, self.outcomes[at], np.int8(Outcome.SET_ASIDE))
        names = tuple(self.guards[k] for k in at)
        return Judged(self.name, names, self.records, self.logits[at], self.flagged[at], outcomes)

    def filled(self, right: bool) -> Judged:
        """Return it as if every missing image had been judged, all of them rightly or all wrongly."""
        missing = self.counted & ~self.known
        unsafe = np.broadcast_to(self.labels == right, missing.shape)
        logits = np.where(missing, np.where(unsafe, np.inf, -np.inf), self.logits)
        outcomes = np.where(missing, np.int8(Outcome.ANSWERED), self.outcomes)
        return Judged(self.name, self.guards, self.records, logits, np.where(missing, unsafe, self.flagged), outcomes)

    @property
    def categories(self) -> list[str]:
        """The names of all categories, sorted."""
        return sorted({str(name) for name in self.records.categories if name is not None})

    @property
    def shares_safe(self) -> bool:
        """Whether safe images carry no category, so that all of them stand beside the unsafe ones of each."""
        return all(name is None for name in self.records.categories[~self.labels])


def source_family(source: str | None, real: Sequence[str] = (), generated: Sequence[str] = ()) -> str | None:
    """`real`, `generated`, or None where the name of a source tells neither.

    >>> source_family("Lexica"), source_family("LAION-5B"), source_family("mine", real=["mine"])
    ('generated', 'real', 'real')
    """
    name = plain_name(source or "")
    for family, given in ((REAL, real), (GENERATED, generated)):
        if name and name in {plain_name(one) for one in given}:
            return family
    return REAL if name in _REAL else GENERATED if name in _GENERATED else None


def masks_of(
    judged: Judged, scopes: Sequence[Scope], real: Sequence[str] = (), generated: Sequence[str] = ()
) -> dict[Slice, np.ndarray]:
    """Every slice with at least one image as a mask (N,) bool, `all` first.

    Args:
        judged: the data set.
        scopes: what guards are judged on; None is always there.
        real, generated: see `source_family`.
    """
    records, labels = judged.records, judged.labels
    everywhere = np.ones(len(records), dtype=bool)
    sources: dict[tuple[str, str], np.ndarray] = {(ALL, ALL): everywhere}
    for name in sorted({str(value) for value in records.sources if value is not None}):
        sources[name, "source"] = np.asarray(records.sources == name, dtype=bool)
    known = {value: source_family(value, real, generated) for value in set(records.sources)}
    families = np.array([known[value] for value in records.sources], dtype=object)
    for family in (REAL, GENERATED):
        sources[family, "family"] = np.asarray(families == family, dtype=bool)
    columns = {name: np.asarray(records.categories == name, dtype=bool) for name in judged.categories}
    shared = ~labels if judged.shares_safe else np.zeros_like(labels)
    categories = {name: mask | shared for name, mask in columns.items()}
    found: dict[Slice, np.ndarray] = {}
    for (source, kind), inside in sources.items():
        found[Slice(ALL, source, kind)] = inside
        for scope in dict.fromkeys(scopes):
            if scope is not None:
                own = np.logical_or.reduce([columns[name] for name in scope] or [np.zeros_like(labels)])
                found[Slice(ALL, source, kind, scope)] = inside & (~labels | own)
        for name, mask in categories.items():
            if (columns[name] & inside).any():
                found[Slice(name, source, kind)] = mask & inside
    return {key: mask for key, mask in found.items() if mask.any()}
