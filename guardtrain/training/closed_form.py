"""Fit direct heads: one solve a run, and the strength of regularisation chosen inside the run's own images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from guardtrain.errors import DataError
from guardtrain.heads import DirectHead, HeadBank, HeadData
from guardtrain.training.batches import RunPlan
from guardtrain.training.losses import class_weights, weighted_bce
from guardtrain.training.settings import LossSettings, SelectionSettings

log = logging.getLogger(__name__)


def fit_direct(
    head: DirectHead,
    embeddings: Tensor,
    labels: Tensor,
    plans: Sequence[RunPlan],
    *,
    selection: SelectionSettings,
    loss: LossSettings,
    label: str = "solving",
    progress: bool = True,
) -> tuple[list[HeadBank], np.ndarray, np.ndarray]:
    """Solve one head for each plan; a run whose images do not determine it is marked and told of, the others go on.

    For plans with folds the strengths are the candidates `selection.l2` (else `loss.l2` alone; null is 1): each is
    solved on all folds but one and judged on that one, and the run's strength is that with the lowest held-out
    log-loss, summed over its folds; the first of equals. Held-out images count by the class weights of their fold's
    training images, as they do for heads that are trained by steps.

    Args:
        head: the definition.
        embeddings: `(N, D)` floating.
        labels: `(N,)` int, 1 is unsafe.
        plans: one run each; with cross-validation each must carry its `folds`.
        selection: how the strength is chosen.
        loss: its `l2` and `class_weight`.
        label: what the progress bar says.
        progress: show one where the output is a terminal.

    Returns:
        A bank of one for each plan, the strengths `(R,)` float64, and which runs `(R,)` bool failed.
    """
    labels = labels.cpu()
    given = 1.0 if loss.l2 is None else loss.l2  # 1 is every direct head's own setting, whatever the budget
    banks: list[HeadBank] = []
    chosen, failed = np.full(len(plans), given), np.zeros(len(plans), dtype=bool)
    with _bar(label, len(plans), progress) as advance:
        for r, plan in enumerate(plans):
            strengths = list(selection.l2) if plan.folds is not None and selection.l2 else [given]
            try:
                best = _best(head, embeddings, labels, plan, strengths, loss) if len(strengths) > 1 else 0
                chosen[r] = strengths[best]
                banks.append(_solve(head, embeddings, labels, plan, None, [strengths[best]], loss)[0])
            except DataError as error:
                log.warning("%s", error)
                failed[r] = True
                banks.append(head.bank(1, embeddings.shape[1]).eval())
            advance()
    return banks, chosen, failed


def _best(
    head: DirectHead,
    embeddings: Tensor,
    labels: Tensor,
    plan: RunPlan,
    strengths: Sequence[float],
    loss: LossSettings,
) -> int:
    """The candidate with the lowest held-out log-loss of one run; of equals the first."""
    assert plan.folds is not None, "cross-validation needs the folds of every plan"
    total = torch.zeros(len(strengths), dtype=torch.float64)
    for fold in np.unique(plan.folds):
        inside = plan.folds != fold
        seen = labels[plan.train[inside]]
        if len(seen.unique()) < 2:
            continue  # a head cannot learn from one class; the other folds still speak
        held_out = torch.from_numpy(plan.train[~inside])
        banks = _solve(head, embeddings, labels, plan, inside, strengths, loss)
        x, y = embeddings[held_out].float().cpu(), labels[held_out]
        with torch.inference_mode():
            logits = torch.cat([bank(x) for bank in banks]).double()  # (C, m)
        weights = class_weights(seen, loss.class_weight)[y]
        total += len(held_out) * weighted_bce(logits, y.expand_as(logits), weights.expand_as(logits))
    return int(total.round(decimals=9).argmin())  # rounded, or rounding would choose among equal heads


def _solve(
    head: DirectHead,
    embeddings: Tensor,
    labels: Tensor,
    plan: RunPlan,
    inside: np.ndarray | None,
    strengths: Sequence[float],
    loss: LossSettings,
) -> list[HeadBank]:
    """The heads of a run, or of those of its images in the mask `inside`."""
    data = head_data(embeddings, labels, plan, loss.class_weight, inside)
    where = f"The head '{head.name}' cannot be fitted on the {len(data.x)} images of the run with seed {plan.seed}"
    try:
        if not np.isfinite(data.x).all():
            raise np.linalg.LinAlgError("an embedding has a value that is not finite")
        unsafe = int(data.y.sum())
        if not 0 < unsafe < len(data.y):
            raise np.linalg.LinAlgError(f"they are {len(data.y) - unsafe} safe and {unsafe} unsafe")
        banks = head.solve(data, strengths)
    except np.linalg.LinAlgError as error:
        raise DataError(f"{where}: {error}. Check the embeddings, or raise loss.l2 or the budget.") from error
    for bank, strength in zip(banks, strengths, strict=True):
        if not all(bool(value.isfinite().all()) for value in bank.state_dict().values()):
            raise DataError(f"{where} at l2 {strength:g}: its weights are not finite. Raise loss.l2 or the budget.")
    return [bank.eval() for bank in banks]


def head_data(
    embeddings: Tensor, labels: Tensor, plan: RunPlan, class_weight: str, inside: np.ndarray | None = None
) -> HeadData:
    """A run's images as a direct head gets them.

    Args:
        embeddings: `(N, D)` floating.
        labels: `(N,)` int on the CPU.
        plan: the run; its pairs, rows `(unsafe, safe)` of the matrix, count where both halves are among the images.
        class_weight: see `LossSettings`.
        inside: `(n,)` bool mask of the images to take; None takes all.
    """
    inside = np.ones(len(plan.train), dtype=bool) if inside is None else inside
    rows = plan.train[inside]
    y = labels[torch.from_numpy(rows)]
    local = np.zeros((0, 2), dtype=np.int64)
    if plan.pairs is not None and len(plan.pairs):
        order = np.argsort(rows)
        place = np.searchsorted(rows, plan.pairs, sorter=order).clip(max=len(rows) - 1)
        local = order[place]
        local = local[(rows[local] == plan.pairs).all(1)]
    return HeadData(
        embeddings[torch.from_numpy(rows)].float().cpu().numpy(),
        y.long().numpy(),
        class_weights(y, class_weight)[y.long()].double().numpy(),
        local,
        len(rows) if plan.split is None else int(inside[: plan.split].sum()),
    )


@contextmanager
def _bar(label: str, total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each run; a bar like that of `BankProgress`, where the output is a terminal."""
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
