"""Metrics of R heads at once on one set of images: probabilities (R, N) and labels (N,) in, (R,) float64 out.

Label 1 (unsafe) is the positive class, and an image is called unsafe from the threshold on: `p >= threshold`.
Inputs are probabilities; logits are refused with `DataError`, never guessed at: they are given by name, `logits=`, to
what ranks, since probabilities in float32 are all 1 from a logit of 17 on. A metric that is not defined, because a
class or all images or all pairs are missing, is NaN: a small slice must not stop a report.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guardtrain.bins import bin_edges
from guardtrain.metrics.checks import Pairs, checked, checked_pairs, checked_probs

MARGIN_CLIP = 1e-6  # probabilities are clipped to [1e-6, 1 - 1e-6] before their logit, +-13.8, is taken


@dataclass(frozen=True)
class Ranking:
    """The images of each head from the lowest score to the highest, ties taken together.

    Args:
        positive: (R, N) bool, the sorted labels.
        tp: (R, N) int64, how many unsafe images score at least as high as the one at this place.
        fp: (R, N) int64, how many safe ones do.
    """

    positive: Tensor
    tp: Tensor
    fp: Tensor

    @property
    def n_positive(self) -> int:
        """Number of unsafe images."""
        return int(self.tp[0, 0]) if self.tp.numel() else 0

    @property
    def n_negative(self) -> int:
        """Number of safe images."""
        return self.tp.shape[1] - self.n_positive

    @property
    def defined(self) -> bool:
        """Whether both classes are there."""
        return self.n_positive > 0 and self.n_negative > 0


def rank(scores: Tensor, labels: Tensor) -> Ranking:
    """Sort once for `auroc`, `average_precision` and `recall_at_fpr`.

    Args:
        scores: (R, N) float without NaN: probabilities or logits.
        labels: (N,) 0 safe, 1 unsafe.
    """
    score, positive = _sorted(scores.detach(), labels)
    n = scores.shape[1]
    first = torch.ones_like(positive)
    first[:, 1:] = score[:, 1:] != score[:, :-1]
    # The first place of each run of equal scores: the nearest marked place at or before this one.
    start = torch.where(first, torch.arange(n, device=scores.device), 0).cummax(dim=1).values
    n_positive = labels.sum()
    tp = n_positive - (positive.cumsum(1) - positive.long()).gather(1, start)
    return Ranking(positive, tp, n - start - tp)


def _sorted(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(R, N) each head's scores from low to high, as numbers with their order and ties, and the labels with them."""
    low, high = torch.aminmax(scores) if scores.numel() else (0, 1)
    # The bits of floats are ordered as the floats are. With the label as the lowest bit, one sort of whole numbers
    # does: on a CPU many times faster than sorting with indices.
    if low >= 0 and high <= 1:  # the two top bits are free, and shifting drops the sign of -0.0
        bits = scores.view(torch.int32 if scores.dtype == torch.float32 else torch.int64)
    elif scores.dtype == torch.float32:
        bits = (scores + 0.0).view(torch.int32).long()
        bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # negative floats are ordered the other way round
    else:
        order = scores.argsort(dim=1)
        return scores.gather(1, order), labels.bool()[order]
    keys = (bits << 1) | labels.to(bits.dtype)
    keys = torch.from_numpy(np.sort(keys.numpy(), axis=1)) if keys.device.type == "cpu" else keys.sort(dim=1).values
    return keys >> 1, (keys & 1).bool()


def _undefined(probs: Tensor) -> Tensor:
    return torch.full((probs.shape[0],), torch.nan, dtype=torch.float64, device=probs.device)


def auroc(probs: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve: the share of (safe, unsafe) couples ranked rightly, ties counting half.

    Args:
        probs: (R, N) float in [0, 1].
        labels: (N,) 0 safe, 1 unsafe.

    Returns:
        (R,) float64; NaN where only one class is there.

    Raises:
        DataError: probabilities outside [0, 1], other labels than 0 and 1, shapes that do not match.

    >>> auroc(torch.tensor([[0.1, 0.4, 0.4, 0.9]]), torch.tensor([0, 0, 1, 1])).item()
    0.875
    """
    return auroc_of(rank(*checked(probs, labels)))


def auroc_of(ranking: Ranking) -> Tensor:
    """`auroc` of a ranking."""
    if not ranking.defined:
        return _undefined(ranking.tp)
    couples = ranking.n_positive * ranking.n_negative
    # Mann-Whitney: couples with unsafe >= safe, and couples less those with safe >= unsafe, are unsafe > safe.
    at_least = torch.where(ranking.positive, 0, ranking.tp).sum(1)
    at_most = torch.where(ranking.positive, ranking.fp, 0).sum(1)
    return (at_least + couples - at_most).double() / (2 * couples)


def average_precision(probs: Tensor, labels: Tensor) -> Tensor:
    """Average precision: sum over thresholds of precision times the step in recall (no interpolation).

    Arguments, result and errors as for `auroc`; equals scikit-learn's `average_precision_score`.

    >>> average_precision(torch.tensor([[0.1, 0.4, 0.35, 0.8]]), torch.tensor([0, 0, 1, 1])).item()
    0.8333333333333333
    """
    return average_precision_of(rank(*checked(probs, labels)))


def average_precision_of(ranking: Ranking) -> Tensor:
    """`average_precision` of a ranking."""
    if not ranking.defined:
        return _undefined(ranking.tp)
    precision = ranking.tp.double() / (ranking.tp + ranking.fp)
    return torch.where(ranking.positive, precision, 0).sum(1) / ranking.n_positive


def recall_at_fpr(probs: Tensor, labels: Tensor, max_fpr: float = 0.05) -> Tensor:
    """The highest recall of any threshold whose false-positive rate is at most `max_fpr`.

    The number of false positives allowed is floor(max_fpr * number of safe images), noise of floats aside. Only
    thresholds between different scores exist: if the highest score is shared by too many safe images, it is 0.

    Other arguments, result and errors as for `auroc`.

    >>> recall_at_fpr(torch.tensor([[0.9, 0.8, 0.7, 0.1]]), torch.tensor([1, 0, 1, 0]), max_fpr=0.05).item()
    0.5
    """
    return recall_at_fpr_of(rank(*checked(probs, labels)), max_fpr)


def recall_at_fpr_of(ranking: Ranking, max_fpr: float = 0.05) -> Tensor:
    """`recall_at_fpr` of a ranking."""
    if not ranking.defined:
        return _undefined(ranking.tp)
    allowed = int(max_fpr * ranking.n_negative + 1e-9)
    return torch.where(ranking.fp <= allowed, ranking.tp, 0).amax(1).double() / ranking.n_positive


def f1(probs: Tensor, labels: Tensor, threshold: float = 0.5) -> Tensor:
    """F1 of the unsafe class: 2 TP / (2 TP + FP + FN), 0 where that is 0/0.

    Arguments, result and errors as for `accuracy`.

    >>> f1(torch.tensor([[0.6, 0.7, 0.2]]), torch.tensor([0, 1, 1])).item()
    0.5
    """
    probs, labels = checked(probs, labels)
    if not labels.numel():
        return _undefined(probs)
    called = probs >= threshold
    twice = 2 * (called & labels.bool()).sum(1).double()
    return torch.nan_to_num(twice / (called.sum(1) + labels.sum()))


def accuracy(probs: Tensor, labels: Tensor, threshold: float = 0.5) -> Tensor:
    """Share of images on the right side of the threshold.

    Args:
        probs: (R, N) float in [0, 1].
        labels: (N,) 0 safe, 1 unsafe.
        threshold: from which on an image is called unsafe.

    Returns:
        (R,) float64; NaN where there are no images.

    Raises:
        DataError: as for `auroc`.

    >>> accuracy(torch.tensor([[0.5, 0.7, 0.2, 0.4]]), torch.tensor([1, 1, 1, 0])).item()
    0.75
    """
    probs, labels = checked(probs, labels)
    return ((probs >= threshold) == labels.bool()).double().mean(1)


def brier(probs: Tensor, labels: Tensor) -> Tensor:
    """Brier score: mean squared difference of probability and label, 0 best, 0.25 for always saying 0.5.

    Arguments, result and errors as for `accuracy`.

    >>> brier(torch.tensor([[0.5, 1.0]]), torch.tensor([0, 1])).item()
    0.125
    """
    probs, labels = checked(probs, labels)
    return (probs.double() - labels).square().mean(1)


def ece(probs: Tensor, labels: Tensor, n_bins: int = 15) -> Tensor:
    """Expected calibration error of the unsafe probability: sum over bins of |mean p - share unsafe| * share of images.

    Bins are [i/n, (i+1)/n), equally wide, and a probability of exactly 1 has a bin of its own, which is how
    torchmetrics' `binary_calibration_error(norm="l1")` has it. Binned is the probability of unsafe, not the
    confidence in the predicted class.

    Other arguments, result and errors as for `accuracy`.

    >>> round(ece(torch.tensor([[0.25, 0.25, 0.75, 0.75]]), torch.tensor([0, 0, 1, 1]), n_bins=2).item(), 6)
    0.25
    """
    probs, labels = checked(probs, labels)
    if not labels.numel():
        return _undefined(probs)
    probs = probs.double().contiguous()
    edges = torch.from_numpy(bin_edges(n_bins)).to(probs.device)
    index = torch.bucketize(probs, edges, right=True) - 1
    gap = torch.zeros(len(probs), n_bins + 1, dtype=torch.float64, device=probs.device)
    gap.scatter_add_(1, index, probs - labels)
    return gap.abs().sum(1) / len(labels)


def pair_both_right(probs: Tensor, pairs: Pairs, threshold: float = 0.5) -> Tensor:
    """Share of pairs whose unsafe half is called unsafe (p >= threshold) and whose safe half is not.

    Args:
        probs: (R, N) float in [0, 1].
        pairs: columns of the safe and of the unsafe halves, each (P,) int.
        threshold: from which on an image is called unsafe.

    Returns:
        (R,) float64; NaN where there are no pairs.

    Raises:
        DataError: probabilities outside [0, 1], indices outside [0, N), shapes that do not match.

    >>> pair_both_right(torch.tensor([[0.2, 0.9, 0.6, 0.9]]), (torch.tensor([0, 2]), torch.tensor([1, 3]))).item()
    0.5
    """
    safe, unsafe = _halves(probs, pairs)
    return both_right_of(safe, unsafe, threshold).mean(1)


def pair_ranking(probs: Tensor, pairs: Pairs) -> Tensor:
    """Share of pairs whose unsafe half scores higher than its safe half, ties counting half.

    Arguments, result and errors as for `pair_both_right`. It needs no threshold, and is the AUROC within pairs.

    >>> pair_ranking(torch.tensor([[0.6, 0.9, 0.3, 0.3]]), (torch.tensor([0, 2]), torch.tensor([1, 3]))).item()
    0.75
    """
    safe, unsafe = _halves(probs, pairs)
    return ranking_of(safe, unsafe).mean(1)


def pair_margin(probs: Tensor, pairs: Pairs) -> Tensor:
    """Mean over pairs of logit(p unsafe half) - logit(p safe half), in nats: the log odds ratio of the flipped feature.

    The input is probabilities like everywhere; they are clipped to [1e-6, 1 - 1e-6], where float32 sigmoids
    begin to saturate, so that one pair contributes at most 27.6; `guard_metrics` with `logits=` clips nothing. In
    logits the margin is what the head's direction makes of the pair's difference, whatever its bias; as a difference of
    probabilities it would shrink wherever both are sure.

    Arguments, result and errors as for `pair_both_right`.

    >>> round(pair_margin(torch.tensor([[0.5, 0.75]]), (torch.tensor([0]), torch.tensor([1]))).exp().item(), 6)
    3.0
    """
    safe, unsafe = _halves(probs, pairs)
    return margin_of(log_odds(safe), log_odds(unsafe)).mean(1)


def _halves(probs: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """(R, P) probabilities of the safe and of the unsafe halves."""
    probs = checked_probs(probs)
    safe, unsafe = checked_pairs(pairs, probs.shape[1], probs.device)
    return probs[:, safe], probs[:, unsafe]


def both_right_of(safe: Tensor, unsafe: Tensor, threshold: float = 0.5) -> Tensor:
    """Per pair 1 where both halves are on their side, else 0: the terms of `pair_both_right`, float64."""
    return ((safe < threshold) & (unsafe >= threshold)).double()


def ranking_of(safe: Tensor, unsafe: Tensor) -> Tensor:
    """Per pair 1, 1/2 or 0: the terms of `pair_ranking`, float64."""
    return ((unsafe > safe).double() + (unsafe >= safe).double()) / 2


def margin_of(safe: Tensor, unsafe: Tensor) -> Tensor:
    """Per pair the difference of its logits: the terms of `pair_margin`, float64."""
    return unsafe.double() - safe.double()


def log_odds(probs: Tensor) -> Tensor:
    """The logits of probabilities that are clipped to [1e-6, 1 - 1e-6], float64."""
    return torch.logit(probs.double(), MARGIN_CLIP)
