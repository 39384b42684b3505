"""Whether the embeddings tell as much for every value of an attribute: a group of people, a camera, a country."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from guardtrain.curves.audit.permuting import ALPHA, family_p_values, moved_rows
from guardtrain.curves.bootstrap import NO_PAIRS, group_draws, group_index, interval, weighted_metric
from guardtrain.curves.scores import Scores

_LABELS_OF = {"recall": (1,), "fpr": (0,), "auroc": (0, 1)}  # labels of the images that a measure is of
MEASURES = tuple(_LABELS_OF)
FPR = 0.05  # of each part, at the threshold that recall and false positive rate are read at
PERMUTATIONS = 499
_LEAST = 10  # images of a label with a value
_MOST_VALUES = 12  # the largest; the others are one
_BLOCK = 64


@dataclass(frozen=True)
class Gap:
    """One measure of the images with one value of the attribute, beside those of all others in the part.

    Args:
        part, value: names.
        measure: recall, fpr or auroc.
        figure, low, high: with its 95 % interval.
        rest: the figure of all other images.
        n: images it is of: unsafe ones, safe ones, or both.
        p_value: share of permutations of the attribute in which any gap of the audit is as large for its kind.
    """

    part: str
    value: str
    measure: str
    figure: float
    low: float
    high: float
    rest: float
    n: int
    p_value: float = np.nan

    @property
    def found(self) -> bool:
        """Whether the gap is larger than chance makes any of them."""
        return self.p_value <= ALPHA


@dataclass(frozen=True)
class AttributeScores:
    """Readings of an attribute on n images of a part.

    Args:
        logits, labels, groups, values: `(n,)` each; a value is anything, or None.
    """

    logits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    values: np.ndarray


def gaps(parts: Mapping[str, AttributeScores], *, replicates: int = 1000, seed: int = 0) -> list[Gap]:
    """Recall and false positive rate at one threshold for all images of a part, and AUROC, by value of the attribute.

    The threshold is that of a false positive rate of 5 % in the part. Chance is what happens when the attribute is
    moved between groups of images with the same labels, all gaps of the audit considered (`family_p_values`).

    Args:
        parts: by name; images without a value count among the others.
        replicates: of the bootstrap of AUROC over groups.
        seed: of all draws.

    Returns:
        A gap for every value and measure that has at least 10 images of each label it needs, on either side.
    """
    found, nulls, observed = list[Gap](), list[np.ndarray](), list[float]()
    for number, (name, part) in enumerate(parts.items()):
        rng = np.random.default_rng([seed, number])
        for gap, null in _of_part(name, part, replicates, rng):
            found.append(gap)
            observed.append(abs(gap.figure - gap.rest))
            nulls.append(null)
    if not found:
        return []
    p_values = family_p_values(np.array(observed), np.stack(nulls)).tolist()
    return [replace(gap, p_value=p) for gap, p in zip(found, p_values, strict=True)]


def _of_part(
    name: str, part: AttributeScores, replicates: int, rng: np.random.Generator
) -> list[tuple[Gap, np.ndarray]]:
    order = np.argsort(part.logits, kind="stable")
    logits, labels = part.logits[order], part.labels[order].astype(np.int64)
    group, n_groups = group_index(part.groups)
    group = group[order]
    texts = np.array(["" if value is None else str(value) for value in part.values], dtype=object)[order].astype(str)
    names, counts = np.unique(texts[texts != ""], return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][:_MOST_VALUES]
    codes = np.full(len(texts), -1, dtype=np.int16)
    for i, one in enumerate(names):
        codes[texts == one] = i
    above = logits > _threshold(logits[labels == 0])
    asked = [(i, measure) for i in range(len(names)) for measure in MEASURES if _enough(codes == i, labels, measure)]
    if not asked:
        return []
    null = np.empty((len(asked), PERMUTATIONS))
    for start in range(0, PERMUTATIONS, _BLOCK):
        width = min(_BLOCK, PERMUTATIONS - start)
        every = codes[moved_rows(group, width, rng, labels)].T
        for i in dict.fromkeys(i for i, _ in asked):
            differences = _differences(every == i, labels, above)
            for row, (of, measure) in enumerate(asked):
                if of == i:
                    null[row, start : start + width] = np.abs(differences[measure])
    draws = group_draws(n_groups, replicates, rng)
    out = []
    for row, (i, measure) in enumerate(asked):
        own = codes == i
        figure, rest = (float(_figures(mask[:, None], labels, above)[measure][0]) for mask in (own, ~own))
        counted = own & np.isin(labels, _LABELS_OF[measure])
        low, high = (
            _of_auroc(logits[own], labels[own], group[own], draws)
            if measure == "auroc"
            else wilson(figure, len(np.unique(group[counted])))
        )
        out.append((Gap(name, str(names[i]), measure, figure, low, high, rest, int(counted.sum())), null[row]))
    return out


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of n (Wilson, Journal of the American Statistical Association 22, 1927).

    >>> [round(end, 3) for end in wilson(1.0, 10)]
    [0.722, 1.0]
    """
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def _threshold(safe: np.ndarray) -> float:
    """The least score that no more than 5 % of the safe images are above."""
    return float(np.sort(safe)[len(safe) - 1 - int(FPR * len(safe))])


def _enough(own: np.ndarray, labels: np.ndarray, measure: str) -> bool:
    return all(int((side & (labels == label)).sum()) >= _LEAST for side in (own, ~own) for label in _LABELS_OF[measure])


def _differences(own: np.ndarray, labels: np.ndarray, above: np.ndarray) -> dict[str, np.ndarray]:
    """`(P,)` of each measure: images in the mask `own` `(n, P)` minus all others."""
    inside, outside = _figures(own, labels, above), _figures(~own, labels, above)
    return {measure: inside[measure] - outside[measure] for measure in MEASURES}


def _figures(mask: np.ndarray, labels: np.ndarray, above: np.ndarray) -> dict[str, np.ndarray]:
    """`(P,)` of each measure on the images in `mask` `(n, P)`, whose scores ascend."""
    unsafe, safe = mask & (labels == 1)[:, None], mask & (labels == 0)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        n_unsafe, n_safe = unsafe.sum(axis=0), safe.sum(axis=0)
        won = (np.cumsum(safe, axis=0, dtype=np.int32) * unsafe).sum(axis=0, dtype=np.int64)
        return {
            "recall": unsafe[above].sum(axis=0) / n_unsafe,
            "fpr": safe[above].sum(axis=0) / n_safe,
            "auroc": won / (n_unsafe * n_safe),
        }


def _of_auroc(logits: np.ndarray, labels: np.ndarray, group: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    values = weighted_metric(Scores.of_logits(logits[None]), labels, NO_PAIRS, group, draws, "auroc")[0]
    low, high = interval(values)
    return float(low), float(high)
