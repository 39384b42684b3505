"""How well the label can be told without looking at the image: from its file, its source, its place in the list.

A guard that is trained on such images may learn the clue, and a test set that has it cannot tell. Each property is
asked alone: its values, of numbers ranges of them, vote for the share of unsafe images that has them among images left
out (so that chance is .5 however many values there are), and AUROC says how well these votes order the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from guardtrain.curves.audit.permuting import ALPHA, family_p_values, shuffled_labels
from guardtrain.curves.bootstrap import group_draws, group_index, interval

ROW_ORDER = "row order"
SAME = "the same in all"  # what the reason of such a property begins with
PERMUTATIONS = 999
STOP = 0.75  # AUROC from which on a clue is a stop sign
_LEAST = 10  # images of either label
_MOST_VALUES = 24  # told apart; of names the rarer ones are one
_BINS = 16
_HEAVY = 0.05  # a number that so large a share of the images has is a value of its own
_PRIOR = 2.0  # images' worth of the overall share that each value starts with
_BLOCK = 64  # permutations or replicates at once


@dataclass(frozen=True)
class Clue:
    """How well one property alone tells the label in one part of the data.

    Args:
        part: real, pairs, or "test NAME".
        name: of the property, such as "format".
        auroc: out of fold, .5 for chance; NaN where nothing can be told.
        low, high: bootstrap interval over groups.
        chance, chance_high: mean and 95 % quantile of AUROC with the labels permuted.
        p_value: share of permutations in which any line of the audit is as far from its chance as this one, so that one
            line in twenty audits of clean data is below .05, and not one line in twenty.
        n_safe, n_unsafe: images looked at.
        told_by: what tells most, in words: "PNG: 98 % of unsafe, 0 % of safe".
        reason: why nothing can be told; "" where it was tried.
    """

    part: str
    name: str
    auroc: float = np.nan
    low: float = np.nan
    high: float = np.nan
    chance: float = np.nan
    chance_high: float = np.nan
    p_value: float = np.nan
    n_safe: int = 0
    n_unsafe: int = 0
    told_by: str = ""
    reason: str = ""

    @property
    def told(self) -> bool:
        """Whether the label is told better than chance, all lines of the audit considered."""
        return self.p_value <= ALPHA

    @property
    def stop(self) -> bool:
        """Whether it is told so well that nothing should be trained or claimed before this is mended.

        The order of the rows is none: training draws at random, so no guard learns it.
        """
        return self.told and self.auroc >= STOP and self.name != ROW_ORDER


@dataclass(frozen=True)
class PartClues:
    """Clues to some images of one part besides the images themselves.

    Args:
        labels: `(N,)` 0 safe, 1 unsafe.
        groups: `(N,)` names; images of one group are drawn and permuted together.
        columns: property -> `(N,)` float numbers (NaN for none) or names (objects, None for none).
    """

    labels: np.ndarray
    groups: np.ndarray
    columns: Mapping[str, np.ndarray]


def clues(parts: Mapping[str, PartClues], *, folds: int = 5, replicates: int = 1000, seed: int = 0) -> list[Clue]:
    """One line for each part and property.

    The labels are permuted within groups and, whole groups of one size, between them; the same permutation for all
    properties of a part, so that the correction for many lines knows that they go together (Westfall and Young,
    Resampling-Based Multiple Testing, 1993: the single-step maxT).

    Args:
        parts: by name.
        folds: of the cross-validation.
        replicates: of the bootstrap.
        seed: of all draws.

    >>> labels = np.arange(400) % 2
    >>> part = PartClues(labels, np.arange(400), {"format": np.where(labels == 1, "PNG", "JPEG").astype(object)})
    >>> found = clues({"real": part})[0]
    >>> found.auroc, found.stop, found.told_by
    (1.0, True, 'PNG: 100 % of unsafe, 0 % of safe')
    """
    found: list[Clue] = []
    nulls: list[np.ndarray] = []
    tested: list[int] = []
    for number, (name, part) in enumerate(parts.items()):
        rng = np.random.default_rng([seed, number])
        for clue, null in _of_part(name, part, folds, replicates, rng):
            if null is not None:
                tested.append(len(found))
                nulls.append(null)
            found.append(clue)
    if tested:
        p_values = family_p_values(np.array([found[i].auroc for i in tested]), np.stack(nulls))
        for i, p in zip(tested, p_values.tolist(), strict=True):
            found[i] = replace(found[i], p_value=p)
    return found


def _of_part(
    name: str, part: PartClues, folds: int, replicates: int, rng: np.random.Generator
) -> list[tuple[Clue, np.ndarray | None]]:
    labels = np.asarray(part.labels).astype(np.int64)
    n_safe, n_unsafe = int((labels == 0).sum()), int((labels == 1).sum())
    few = min(n_safe, n_unsafe) < _LEAST
    group, n_groups = group_index(part.groups)
    fold = (rng.permutation(n_groups) % folds)[group]
    draws = group_draws(n_groups, replicates, rng).astype(np.float32)
    moved = shuffled_labels(labels, group, PERMUTATIONS, rng).T.astype(np.float32)
    out: list[tuple[Clue, np.ndarray | None]] = []
    for property_name, values in part.columns.items():
        clue = Clue(name, property_name, n_safe=n_safe, n_unsafe=n_unsafe)
        codes, names = coded(values)
        if len(names) < 2:
            out.append((replace(clue, reason=f"{SAME}: {names[0]}" if names else "there are none"), None))
            continue
        if few:
            out.append((replace(clue, reason=f"{_LEAST} images of either label are needed"), None))
            continue
        cells = _Cells(codes, fold, len(names), folds)
        observed = cells.auroc(labels[:, None].astype(np.float32))[0]
        null = cells.auroc(moved)
        resampled = cells.resampled(labels, group, draws)
        low, high = interval(resampled)
        clue = replace(
            clue,
            auroc=float(observed),
            low=float(low),
            high=float(high),
            chance=float(null.mean()),
            chance_high=float(np.quantile(null, 0.95)),
            told_by=_told_by(values, labels, codes, names),
        )
        out.append((clue, null))
    return out


def coded(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """`(N,)` numbers of the values told apart, and what each is called; numbers that are spread are put into ranges.

    >>> coded(np.array(["JPEG", "PNG", "JPEG", None], dtype=object))
    (array([0, 1, 0, 2]), ['JPEG', 'PNG', 'none'])
    """
    if values.dtype.kind != "f":
        return _coded_names(values)
    known = np.isfinite(values)
    codes, names = np.zeros(len(values), dtype=np.int64), list[str]()
    distinct, index, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    own = np.ones(len(distinct), dtype=bool) if len(distinct) <= _BINS else counts >= _HEAVY * known.sum()
    of_distinct = np.empty(len(distinct), dtype=np.int64)
    of_distinct[own] = np.arange(own.sum())
    names += [_number(value) for value in distinct[own]]
    if not own.all():
        weight = np.cumsum(counts * ~own) - counts * ~own / 2
        bins = np.minimum((weight[~own] / (counts * ~own).sum() * _bins(int((counts * ~own).sum()))).astype(int), _BINS)
        for number, one in enumerate(np.unique(bins)):
            inside = np.flatnonzero(~own)[bins == one]
            of_distinct[inside] = own.sum() + number
            names.append(f"{_number(distinct[inside[0]])}–{_number(distinct[inside[-1]])}")
    codes[known] = of_distinct[index]
    if not known.all():
        codes[~known] = len(names)
        names.append("none")
    return codes, names


def _coded_names(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """`(N,)` numbers of names, and what each is called; where there are many, the rarer ones are one: others."""
    texts = np.array(["none" if value is None else str(value) for value in values], dtype=object)
    names, index, counts = np.unique(texts.astype(str), return_inverse=True, return_counts=True)
    if len(names) <= _MOST_VALUES:
        return index, [str(name) for name in names]
    order = np.argsort(-counts, kind="stable")
    kept = [str(name) for name in names[order[: _MOST_VALUES - 1]]]
    return np.minimum(np.argsort(order)[index], _MOST_VALUES - 1), [*kept, "others"]


def _told_by(values: np.ndarray, labels: np.ndarray, codes: np.ndarray, names: list[str]) -> str:
    """The value whose shares of the unsafe and of the safe images differ most; of numbers in ranges the medians."""
    shares = np.stack([np.bincount(codes[labels == label], minlength=len(names)) for label in (0, 1)])
    shares = shares / shares.sum(axis=1, keepdims=True)
    lead = shares[1] - shares[0]
    best = int(np.argmax(np.round(np.abs(lead), 9) + 1e-9 * (lead > 0)))  # of equals the unsafe images' value
    if values.dtype.kind == "f" and "–" in names[best]:
        safe, unsafe = (float(np.nanmedian(values[labels == label])) for label in (0, 1))
        return f"medians {_number(unsafe)} unsafe, {_number(safe)} safe"
    return f"{names[best]}: {100 * shares[1, best]:.0f} % of unsafe, {100 * shares[0, best]:.0f} % of safe"


def _bins(n: int) -> int:
    """Ranges for `n` numbers: enough images in each for a share."""
    return int(np.clip(n / 25, 2, _BINS))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"


class _Cells:
    """Counts of images by fold and value: all that AUROC needs, for many labellings at once."""

    def __init__(self, codes: np.ndarray, fold: np.ndarray, values: int, folds: int) -> None:
        self.shape = (folds, values)
        cell = fold * values + codes
        ones = np.ones(len(codes), dtype=np.float32)
        self.by_cell = csr_array((ones, (cell, np.arange(len(codes)))), shape=(folds * values, len(codes)))
        self.total = np.bincount(cell, minlength=folds * values).reshape(self.shape)

    def auroc(self, labels: np.ndarray) -> np.ndarray:
        """`(P,)` of labels `(N, P)`, each voting with its own shares."""
        unsafe = (self.by_cell @ labels).T.reshape(-1, *self.shape)
        safe = self.total - unsafe
        return np.concatenate(
            [
                _auroc(self._votes(unsafe[i : i + _BLOCK]), unsafe[i : i + _BLOCK], safe[i : i + _BLOCK])
                for i in range(0, len(unsafe), _BLOCK)
            ]
        )

    def resampled(self, labels: np.ndarray, group: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """`(B,)` of groups drawn `(G, B)` times, the votes being those of the images as they are."""
        member = csr_array(
            (np.ones(len(group), dtype=np.float32), (np.arange(len(group)), group)), shape=(len(group), len(draws))
        )
        unsafe, safe = (
            ((self.by_cell * (labels == label).astype(np.float32)) @ member @ draws).T.reshape(-1, *self.shape)
            for label in (1, 0)
        )
        observed = (self.by_cell @ labels.astype(np.float32)).reshape(1, *self.shape)
        votes = self._votes(observed)
        return np.concatenate(
            [_auroc(votes, unsafe[i : i + _BLOCK], safe[i : i + _BLOCK]) for i in range(0, len(unsafe), _BLOCK)]
        )

    def _votes(self, unsafe: np.ndarray) -> np.ndarray:
        """`(P, F, K)` share of unsafe images that have the value, outside the fold."""
        rest = unsafe.sum(axis=1, keepdims=True) - unsafe
        n = self.total.sum(axis=0) - self.total
        overall = rest.sum(axis=2, keepdims=True) / np.maximum(n.sum(axis=1)[None, :, None], 1)
        return np.asarray((rest + _PRIOR * overall) / (n[None] + _PRIOR))


def _auroc(votes: np.ndarray, unsafe: np.ndarray, safe: np.ndarray) -> np.ndarray:
    """`(P,)` AUROC within folds, averaged by couples; NaN where there is no couple."""
    difference = np.round(votes[..., :, None] - votes[..., None, :], 9)
    above = 0.5 + 0.5 * np.sign(difference)
    won = np.einsum("pfi,pfij,pfj->p", unsafe, np.broadcast_to(above, (len(unsafe), *above.shape[1:])), safe)
    couples = (unsafe.sum(axis=2) * safe.sum(axis=2)).sum(axis=1)
    return np.asarray(won / np.where(couples > 0, couples, np.nan))
