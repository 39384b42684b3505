"""Images whose label the readers contradict, and pairs whose halves they put in the reverse order whatever the seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import roc_auc_score

from guardtrain.curves.audit.noise import NoiseFit, confident_issues, fit_noise
from guardtrain.curves.audit.permuting import ALPHA, holm, whole_groups
from guardtrain.curves.audit.readers import out_of_fold
from guardtrain.curves.audit.stacked import StackedRows
from guardtrain.embeddings import Embeddings
from guardtrain.metrics import record_pairs

_LEAST = 20  # images of either label, or pairs, for a fit


@dataclass(frozen=True)
class Doubt:
    """One image whose label both readers together contradict.

    Args:
        id: of the record.
        image: path or URL; None where only the embedding is known.
        label: the label it has.
        unsafe: probability of being unsafe, as read by who never saw this label.
        wrong: probability that the label is wrong, given how many of the part are.
    """

    id: str
    image: str | None
    label: int
    unsafe: float
    wrong: float


@dataclass(frozen=True)
class Inverted:
    """One pair whose halves are in the reverse order for every seed.

    Args:
        pair_id, safe, unsafe: ids of the pair and of its halves, as they are labelled.
        margin: mean log-odds of the unsafe half minus those of the safe one: below 0.
        wrong: probability that the two labels are swapped, given how many of the part's pairs are.
    """

    pair_id: str
    safe: str
    unsafe: str
    margin: float
    wrong: float


@dataclass(frozen=True)
class LabelCheck:
    """The readers' judgement of the labels of one part.

    Args:
        part: its name.
        n, of: images read, of those there are.
        agreement: AUROC of the readers on these labels.
        expected: wrong labels there are, about.
        p_value: of all labels being right, corrected for the number of such questions (Holm).
        images: contradicted by confident learning, the most contradicted first.
        n_pairs: whole pairs read.
        pairs_expected, pairs_p_value: swapped pairs there are, about; and of none being so.
        sometimes: pairs in the reverse order for some seeds, but not for all.
        pairs: those in the reverse order for all seeds, the furthest first.
        reason: why this could not be asked; "" where it was.
    """

    part: str
    n: int
    of: int
    agreement: float = np.nan
    expected: float = np.nan
    p_value: float = np.nan
    images: tuple[Doubt, ...] = ()
    n_pairs: int = 0
    pairs_expected: float = np.nan
    pairs_p_value: float = np.nan
    sometimes: int = 0
    pairs: tuple[Inverted, ...] = ()
    reason: str = ""

    @property
    def wrong(self) -> bool:
        """Whether more labels are contradicted than hard images explain."""
        return self.p_value <= ALPHA

    @property
    def swapped(self) -> bool:
        """Whether more pairs are inverted than hard pairs explain."""
        return self.pairs_p_value <= ALPHA


@dataclass(frozen=True)
class Reading:
    """The readers' joint judgement of `rows` `(n,)` of a part: their `logits` `(n,)` of being unsafe."""

    rows: np.ndarray
    logits: np.ndarray


def check_labels(
    parts: Mapping[str, Embeddings], *, folds: int = 5, most: int = 20_000, seed: int = 0
) -> tuple[list[LabelCheck], dict[str, Reading]]:
    """Read the labels of all parts with readers trained on all of them, each image by those that saw none of its group.

    Args:
        parts: by name; records of one name and group belong together, whatever the part.
        folds: of the cross-validation.
        most: images read; where there are more, groups are drawn.
        seed: of all draws.

    Returns:
        A check for each part, and by name what the readers say of those that could be read.
    """
    groups = np.concatenate([part.records.groups for part in parts.values()]).astype(str)
    labels = np.concatenate([part.records.labels for part in parts.values()]).astype(np.int64)
    rng = np.random.default_rng(seed)
    rows = whole_groups(groups, most, rng)
    ends = np.cumsum([len(part) for part in parts.values()])
    part_of = np.searchsorted(ends, rows, side="right")
    scores = np.zeros((0, len(rows), 2))
    if len(np.unique(groups[rows])) >= 2 * folds and len(np.unique(labels[rows])) == 2:
        matrix = StackedRows([part.matrix for part in parts.values()], rows)
        scores = out_of_fold(matrix, labels[rows], groups[rows], folds=folds, seed=seed)
    found, readings = list[LabelCheck](), dict[str, Reading]()
    for number, (name, part) in enumerate(parts.items()):
        own = np.flatnonzero(part_of == number)
        local = rows[own] - (ends[number] - len(part))
        own_labels = part.records.labels[local].astype(np.int64)
        if not len(scores) or min(np.bincount(own_labels, minlength=2)) < _LEAST:
            reason = f"{_LEAST} images of either label are needed"
            found.append(LabelCheck(name, len(local), len(part), reason=reason))
            continue
        fit = fit_noise(scores[:, own].mean(axis=0), own_labels)
        readings[name] = Reading(local, fit.logits)
        found.append(_checked(name, part, local, scores[:, own], fit))
    return _corrected(found), readings


def _checked(name: str, part: Embeddings, rows: np.ndarray, scores: np.ndarray, fit: NoiseFit) -> LabelCheck:
    """One part's answers, of its `rows` (n,) and what the readers say of them (S, n, 2)."""
    labels, unsafe = part.records.labels[rows].astype(np.int64), fit.probability
    issues = confident_issues(unsafe, labels)
    doubted = part.records.take(rows[issues])
    images = tuple(
        Doubt(str(one), uri, int(labels[i]), float(unsafe[i]), float(fit.wrong[i]))
        for one, uri, i in zip(doubted.ids, doubted.image_uris(), issues.tolist(), strict=True)
    )
    check = LabelCheck(
        name,
        len(rows),
        len(part),
        agreement=float(roc_auc_score(labels, fit.logits)),
        expected=fit.expected,
        p_value=fit.p_value,
        images=images,
    )
    return _with_pairs(check, part, rows, scores, fit)


def _with_pairs(check: LabelCheck, part: Embeddings, rows: np.ndarray, scores: np.ndarray, fit: NoiseFit) -> LabelCheck:
    place = np.full(len(part), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    halves = [half.numpy() for half in record_pairs(part.records)]
    whole = (place[halves[0]] >= 0) & (place[halves[1]] >= 0)
    safe, unsafe = halves[0][whole], halves[1][whole]
    if not len(safe):
        return check
    margins = (scores[:, place[unsafe]] - scores[:, place[safe]]) @ fit.weights  # (S, P)
    mean = margins.mean(axis=0)
    inverted = (margins < 0).all(axis=0)
    check = replace(check, n_pairs=len(safe), sometimes=int(((margins < 0).any(axis=0) & ~inverted).sum()))
    wrong = np.full(len(safe), np.nan)
    if len(safe) >= _LEAST:
        of_pairs = fit_noise(np.abs(mean)[:, None], (mean > 0).astype(np.int64), symmetric=True, intercept=False)
        wrong = of_pairs.wrong
        check = replace(check, pairs_expected=of_pairs.expected, pairs_p_value=of_pairs.p_value)
    ids, pair_ids = part.records.ids, part.records.pair_ids
    order = np.flatnonzero(inverted)[np.argsort(mean[inverted], kind="stable")]
    pairs = tuple(
        Inverted(str(pair_ids[safe[i]]), str(ids[safe[i]]), str(ids[unsafe[i]]), float(mean[i]), float(wrong[i]))
        for i in order.tolist()
    )
    return replace(check, pairs=pairs)


def _corrected(checks: list[LabelCheck]) -> list[LabelCheck]:
    """The p-values of all parts after Holm."""
    raw = np.array([[check.p_value, check.pairs_p_value] for check in checks])
    adjusted = holm(raw.ravel()).reshape(raw.shape)
    return [
        replace(check, p_value=float(own[0]), pairs_p_value=float(own[1]))
        for check, own in zip(checks, adjusted, strict=True)
    ]
