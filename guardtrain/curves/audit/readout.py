"""How well a property of images can be read from their embeddings: cross-validated AUROC of a logistic regression.

A linear readout is what a guard's head is, so what it finds a head can use. The comparison with permuted properties
says what "cannot be read" looks like for these images and this number of dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from guardtrain.blas import one_thread
from guardtrain.curves.audit.permuting import ALPHA, holm, moved_rows
from guardtrain.curves.audit.stacked import StackedRows
from guardtrain.curves.bootstrap import NO_PAIRS, group_draws, group_index, interval, weighted_metric
from guardtrain.curves.scores import Scores
from guardtrain.curves.statistics import CONFIDENCE
from guardtrain.errors import DataError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, on features of unit mean square
_INNER_FOLDS = 3
_MOST_ITERATIONS = 200
_TOLERANCE = 1e-3  # an AUROC asks for directions, not for digits


@dataclass(frozen=True)
class Readout:
    """How well one property is read from embeddings.

    Args:
        auroc: out of fold, .5 for chance; NaN where it cannot be tested.
        low, high: bootstrap interval over groups, the fitted models fixed.
        chance, chance_high: mean and largest AUROC with the property permuted over groups.
        p_value: share of permutations that read as well, the observed one counted among them.
        n_with, n_without: images used that have the property, and that do not.
        of_with, of_without: how many there are.
        n_groups: groups among them.
        reason: why it cannot be tested; "" where it was.
        strengths: C chosen in each fold.
        p_of_all: how likely it is that any question of an audit lies as far above .5, in terms of its interval, if none
            can be read (Holm); NaN for a question alone.
    """

    auroc: float = np.nan
    low: float = np.nan
    high: float = np.nan
    chance: float = np.nan
    chance_high: float = np.nan
    p_value: float = np.nan
    n_with: int = 0
    n_without: int = 0
    n_groups: int = 0
    of_with: int = 0
    of_without: int = 0
    reason: str = ""
    strengths: tuple[float, ...] = ()
    p_of_all: float = np.nan

    @property
    def tested(self) -> bool:
        """Whether there was something to tell apart."""
        return not self.reason

    @property
    def sampled(self) -> bool:
        """Whether not all images were used."""
        return self.n_with + self.n_without < self.of_with + self.of_without

    @property
    def readable(self) -> bool:
        """Whether it is read better than chance: above every permutation and, all questions considered, above .5."""
        above = self.low > 0.5 and not self.p_of_all > ALPHA
        return self.tested and above and self.auroc > self.chance_high


def readability(
    embeddings: np.ndarray | StackedRows,
    has: np.ndarray,
    groups: np.ndarray,
    *,
    folds: int = 5,
    most: int = 2000,
    permutations: int = 20,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int | Sequence[int] = 0,
    words: tuple[str, str] = ("with it", "without it"),
) -> Readout:
    """How well `has` is read from `embeddings`, groups never split between fitting and testing.

    In each of `folds` folds a logistic regression (balanced classes; C of `STRENGTHS` chosen by cross-validation inside
    the fold's own training images) scores the images left out. AUROC is counted within folds and averaged by their
    numbers of couples, since scores of two folds come from two models. The permutation test moves the property of
    whole groups to other groups of the same size (Winkler et al., NeuroImage 92, 2014: whole-block exchangeability) and
    fits again at the chosen strengths; its p-value counts the observed one (Phipson and Smyth, "Permutation P-values
    should never be zero", Statistical Applications in Genetics and Molecular Biology 9(1), 2010).

    Args:
        embeddings: (N, D) float; of those in a store only the rows that are used are read.
        has: (N,) bool.
        groups: (N,) names or numbers.
        folds: of the cross-validation, at least 2.
        most: images used; where there are more, whole groups are drawn, the rarer side first (up to half).
        permutations, replicates: of the permutation test and of the bootstrap.
        confidence: of the interval.
        seed: of all draws.
        words: what the two sides are called in a reason.

    Returns:
        The readout; where a side has fewer than `2 · folds` groups, its reason and no AUROC.

    Raises:
        DataError: shapes that do not fit, or values that are not finite.

    >>> x = np.random.default_rng(0).normal(size=(200, 4))
    >>> readability(x, x[:, 0] > 0, np.arange(200), permutations=2).auroc > 0.95
    True
    """
    matrix = embeddings if isinstance(embeddings, StackedRows) else np.asarray(embeddings)
    has = np.asarray(has).astype(bool)
    if matrix.ndim != 2 or has.shape != (len(matrix),) or np.shape(groups) != (len(matrix),):
        raise DataError(f"A readout takes (N, D), (N,), (N,); it got {matrix.shape}, {has.shape}, {np.shape(groups)}.")
    group, count = group_index(np.asarray(groups))
    sides = [len(np.unique(group[has == side])) for side in (True, False)]
    if min(sides) < 2 * folds:
        n = (int(has.sum()), int((~has).sum()))
        reason = f"all {sum(n):,} are {words[0] if n[0] else words[1]}" if sum(n) else "there are no images"
        if min(n):
            side, groups_of = sides.index(min(sides)), "group" if min(sides) == 1 else "groups"
            reason = f"only {min(sides)} {groups_of} {words[side]}, {2 * folds} are needed"
        return Readout(reason=reason, n_with=n[0], n_without=n[1], n_groups=count, of_with=n[0], of_without=n[1])
    of = (int(has.sum()), int((~has).sum()))
    rng = np.random.default_rng(seed)
    rows = _subsample(has, group, most, rng)
    has, group = has[rows], np.unique(group[rows], return_inverse=True)[1]
    x = _scaled(matrix[rows])
    state = int(rng.integers(2**31))
    splits = list(_splits(has, group, folds, state))
    scores = np.empty(len(x))
    chosen = []
    for train, test in splits:
        chosen.append(_strength(x[train], has[train], group[train], state))
        scores[test] = _fit(_model(), x[train], has[train], chosen[-1]).decision_function(x[test])
    observed = _within_folds(scores, has, splits)
    values = _resampled(scores, has, group, splits, replicates, rng)
    low, high = interval(values, confidence)
    null = np.array([_permuted(x, has, group, splits, chosen, rng) for _ in range(permutations)])
    return Readout(
        observed,
        float(low),
        float(high),
        float(null.mean()) if len(null) else np.nan,
        float(null.max()) if len(null) else np.nan,
        float((1 + (null >= observed).sum()) / (1 + len(null))),
        int(has.sum()),
        int((~has).sum()),
        int(group.max()) + 1,
        *of,
        strengths=tuple(chosen),
    )


def corrected(readouts: Sequence[Readout]) -> list[Readout]:
    """The readouts of one audit, each with its `p_of_all`: with many questions one stands out by chance."""
    widths = np.array([r.high - r.low for r in readouts]) / (2 * ndtri((1 + CONFIDENCE) / 2))
    distance = np.array([r.auroc - 0.5 for r in readouts]) / np.maximum(widths, 1e-9)
    p_values = holm(2 * ndtr(-distance))
    return [replace(r, p_of_all=float(p)) for r, p in zip(readouts, p_values, strict=True)]


def _subsample(has: np.ndarray, group: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most about `most` rows in whole groups, in order: the rarer side up to half, the other fills what is left."""
    if len(has) <= most:
        return np.arange(len(has))
    rarer = bool(has.mean() <= 0.5)
    few = min(int((has == rarer).sum()), most // 2)
    quota = {rarer: few, (not rarer): most - few}
    order = rng.permutation(int(group.max()) + 1)
    place = np.argsort(order)
    by_group = np.argsort(place[group], kind="stable")
    bounds = [0, *(np.flatnonzero(np.diff(place[group][by_group])) + 1).tolist(), len(by_group)]
    kept = []
    for start, stop in pairwise(bounds):
        members = by_group[start:stop]
        inside = has[members]
        counts = {True: int(inside.sum()), False: int((~inside).sum())}
        if any(counts[side] and quota[side] > 0 for side in (True, False)):
            kept.append(members)
            for side in (True, False):
                quota[side] -= counts[side]
        if max(quota.values()) <= 0:
            break
    return np.sort(np.concatenate(kept))


def _scaled(x: np.ndarray) -> np.ndarray:
    """Centred, and divided by one number: the root of the mean square, so that C means the same for every encoder."""
    x = np.asarray(x, dtype=np.float32)
    x = x - x.mean(axis=0)
    scale = float(np.sqrt(np.square(x, dtype=np.float64).mean()))
    if not np.isfinite(scale):
        raise DataError("The embeddings hold values that are not finite.")
    return x / (scale or 1.0)


def _splits(has: np.ndarray, group: np.ndarray, folds: int, state: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if len(np.unique(group)) == len(group):  # without the greedy search over groups, which takes longer than the fits
        found = StratifiedKFold(folds, shuffle=True, random_state=state).split(has, has)
    else:
        found = StratifiedGroupKFold(folds, shuffle=True, random_state=state).split(has, has, group)
    for train, test in found:
        if 0 < has[train].sum() < len(train) and 0 < has[test].sum() < len(test):
            yield train, test


def _model(warm_start: bool = False) -> LogisticRegression:
    return LogisticRegression(class_weight="balanced", tol=_TOLERANCE, max_iter=_MOST_ITERATIONS, warm_start=warm_start)


def _fit(model: LogisticRegression, x: np.ndarray, has: np.ndarray, strength: float) -> LogisticRegression:
    # what is fitted was checked once, and checks take as long as a small fit
    quick = config_context(skip_parameter_validation=True, assume_finite=True)
    with warnings.catch_warnings(), quick, one_thread():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.set_params(C=strength).fit(x, has)


def _strength(x: np.ndarray, has: np.ndarray, group: np.ndarray, state: int) -> float:
    """The C with the best mean AUROC over inner folds; of equals the strongest regularisation."""
    group = np.unique(group, return_inverse=True)[1]
    inner = list(_splits(has, group, _INNER_FOLDS, state))
    total = np.zeros(len(STRENGTHS))
    for train, test in inner:
        # from the solution of the strength before, as scikit-learn's own path does
        model = _model(warm_start=True)
        for i, strength in enumerate(STRENGTHS):
            total[i] += _auroc(has[test], _fit(model, x[train], has[train], strength).decision_function(x[test]))
    return STRENGTHS[int(np.argmax(total.round(9)))]


def _auroc(has: np.ndarray, scores: np.ndarray) -> float:
    """AUROC by ranks (Mann and Whitney): scikit-learn's figure, without its checks, which take as long as a fit."""
    n = int(has.sum())
    return float((rankdata(scores)[has].sum() - n * (n + 1) / 2) / (n * (len(has) - n)))


def _within_folds(scores: np.ndarray, has: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """AUROC within folds, averaged by couples."""
    couples = [float(has[test].sum() * (~has[test]).sum()) for _, test in splits]
    return float(np.average([_auroc(has[test], scores[test]) for _, test in splits], weights=couples))


def _resampled(
    scores: np.ndarray,
    has: np.ndarray,
    group: np.ndarray,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    replicates: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(B,) what `_within_folds` is on resampled groups."""
    draws = group_draws(int(group.max()) + 1, replicates, rng)
    total, weight = np.zeros(replicates), np.zeros(replicates)
    for _, test in splits:
        labels = has[test].astype(np.int64)
        values = weighted_metric(Scores.of_logits(scores[None, test]), labels, NO_PAIRS, group[test], draws, "auroc")[0]
        drawn = draws[group[test]].astype(np.float64)
        couples = drawn[has[test]].sum(axis=0) * drawn[~has[test]].sum(axis=0)
        total += np.where(couples > 0, values, 0) * couples
        weight += couples
    return total / np.where(weight > 0, weight, np.nan)


def _permuted(
    x: np.ndarray,
    has: np.ndarray,
    group: np.ndarray,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    strengths: Sequence[float],
    rng: np.random.Generator,
) -> float:
    """The AUROC with the property of whole groups moved to other groups of their size."""
    moved_has = has[moved_rows(group, 1, rng)[0]]
    scores = np.empty(len(x))
    usable = []
    for (train, test), strength in zip(splits, strengths, strict=True):
        if 0 < moved_has[train].sum() < len(train) and 0 < moved_has[test].sum() < len(test):
            scores[test] = _fit(_model(), x[train], moved_has[train], strength).decision_function(x[test])
            usable.append((train, test))
    return _within_folds(scores, moved_has, usable) if usable else 0.5
