"""All metrics of many heads at once, on all images and on slices of them: the metric columns of the results table."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from guardtrain.errors import DataError
from guardtrain.metrics import functional as F
from guardtrain.metrics.checks import Pairs, checked, checked_logits, checked_pairs

METRICS = (
    "auroc",
    "average_precision",
    "f1",
    "accuracy",
    "recall_at_fpr",
    "brier",
    "ece",
    "pair_both_right",
    "pair_ranking",
    "pair_margin",
)

_BLOCK = 4_000_000  # scores worked on at once: about 0.3 GB of temporaries


def guard_metrics(
    probs: Tensor,
    labels: Tensor,
    pairs: Pairs | None = None,
    *,
    logits: Tensor | None = None,
    threshold: float = 0.5,
    fpr: float = 0.05,
) -> dict[str, Tensor]:
    """Every metric of `METRICS` for every head, from one sort of its scores.

    Args:
        probs: (R, N) float in [0, 1].
        labels: (N,) 0 safe, 1 unsafe.
        pairs: columns of the safe and of the unsafe halves, each (P,) int; None for no pairs.
        logits: (R, N) float, of which `probs` are the sigmoid: what ranks, and the margin of pairs, is taken of them.
            A probability in float32 is 1 from a logit of 17 on, and images that are sure would tie. None where they
            are not known; then probabilities rank, and margins are of clipped ones, see `pair_margin`.
        threshold: from which on an image is called unsafe, for f1, accuracy and pair_both_right.
        fpr: the false-positive rate that recall_at_fpr allows.

    Returns:
        the names of `METRICS`, each (R,) float64. What is not defined is NaN: the rank metrics (auroc,
        average_precision, recall_at_fpr) where only one class is there, the pair metrics where there are no pairs,
        all without images.

    Raises:
        DataError: probabilities outside [0, 1], logits that are NaN, other labels than 0 and 1, indices or shapes that
            do not fit.

    >>> pairs = torch.tensor([0]), torch.tensor([1])
    >>> metrics = guard_metrics(torch.tensor([[0.2, 0.9]]), torch.tensor([0, 1]), pairs)
    >>> metrics["auroc"].item(), metrics["pair_both_right"].item()
    (1.0, 1.0)
    """
    probs, labels = checked(probs, labels)
    halves = (torch.empty(0, dtype=torch.int64),) * 2 if pairs is None else pairs
    halves = checked_pairs(halves, probs.shape[1], probs.device)
    if not len(probs):
        return {name: probs.new_empty(0, dtype=torch.float64) for name in METRICS}
    if logits is not None:
        logits = checked_logits(logits, probs)
    size = max(1, _BLOCK // max(1, probs.shape[1]))
    parts = zip(probs.split(size), repeat(None) if logits is None else logits.split(size), strict=False)
    blocks = [_block(own, odds, labels, halves, threshold, fpr) for own, odds in parts]
    return {name: torch.cat([block[name] for block in blocks]) for name in METRICS}


def _block(
    probs: Tensor,
    logits: Tensor | None,
    labels: Tensor,
    pairs: tuple[Tensor, Tensor],
    threshold: float,
    fpr: float,
) -> dict[str, Tensor]:
    ranked = probs if logits is None else logits
    ranking = F.rank(ranked, labels)
    safe, unsafe = (ranked[:, half] for half in pairs)
    odds = (F.log_odds(safe), F.log_odds(unsafe)) if logits is None else (safe, unsafe)
    values = (
        F.auroc_of(ranking),
        F.average_precision_of(ranking),
        F.f1(probs, labels, threshold),
        F.accuracy(probs, labels, threshold),
        F.recall_at_fpr_of(ranking, fpr),
        F.brier(probs, labels),
        F.ece(probs, labels),
        F.pair_both_right(probs, pairs, threshold),
        F.ranking_of(safe, unsafe).mean(1),
        F.margin_of(*odds).mean(1),
    )
    return dict(zip(METRICS, values, strict=True))


def sliced_guard_metrics(
    probs: Tensor,
    labels: Tensor,
    pairs: Pairs | None,
    slices: Mapping[tuple[str, str], np.ndarray | Tensor],
    *,
    logits: Tensor | None = None,
    threshold: float = 0.5,
    fpr: float = 0.05,
) -> dict[tuple[str, str], dict[str, Tensor]]:
    """`guard_metrics` of every slice; a pair counts in a slice that holds both its halves.

    Args:
        probs: (R, N) float in [0, 1].
        labels: (N,) 0 safe, 1 unsafe.
        pairs: columns of the safe and of the unsafe halves, each (P,) int; None for no pairs.
        slices: (kind, name) to a mask (N,) bool; `record_slices` makes them.
        logits, threshold, fpr: as for `guard_metrics`.

    Returns:
        for each slice what `guard_metrics` returns.

    Raises:
        DataError: as `guard_metrics`, and a mask that is not (N,) bool.
    """
    probs, labels = checked(probs, labels)
    n = probs.shape[1]
    halves = None if pairs is None else checked_pairs(pairs, n, probs.device)
    result = {}
    for key, given in slices.items():
        mask = torch.as_tensor(given, device=probs.device)
        if mask.dtype != torch.bool or mask.shape != (n,):
            raise DataError(
                f"The mask of slice {key} must be bool of shape ({n},); it is {mask.dtype} of {tuple(mask.shape)}."
            )
        if bool(mask.all()):
            result[key] = guard_metrics(probs, labels, halves, logits=logits, threshold=threshold, fpr=fpr)
            continue
        inside = None
        if halves is not None:
            column = mask.cumsum(0) - 1  # where a column of the whole stands in the slice
            whole = mask[halves[0]] & mask[halves[1]]
            inside = (column[halves[0][whole]], column[halves[1][whole]])
        own = None if logits is None else logits[:, mask]
        result[key] = guard_metrics(probs[:, mask], labels[mask], inside, logits=own, threshold=threshold, fpr=fpr)
    return result
