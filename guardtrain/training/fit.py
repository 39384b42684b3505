"""Fit a bank: plans in, trained heads out; hyper-parameters are chosen inside each run's own images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from guardtrain.heads import DirectHead
from guardtrain.training.bank_trainer import Work
from guardtrain.training.batches import RunPlan
from guardtrain.training.closed_form import fit_direct
from guardtrain.training.fitted import FittedBank
from guardtrain.training.linear_fit import choose_strength, find_optimum
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.selection import Candidates
from guardtrain.training.stepped_fit import choose_by_steps, take_steps


def fit_bank(
    recipe: TrainingRecipe,
    embeddings: Tensor,
    labels: Tensor,
    plans: Sequence[RunPlan],
    *,
    hyper: Candidates | None = None,
    memory_gb: float = 2.0,
    folder: Path | None = None,
    loggers: Sequence[Logger] = (),
    label: str = "training",
) -> FittedBank:
    """Train one head for each plan, as few banks as memory and cache allow, through Lightning's Trainer.

    Args:
        recipe: head, loss, optimizer, selection and trainer settings.
        embeddings: `(N, D)` float32.
        labels: `(N,)` int, 1 is unsafe.
        plans: one run each; those that carry `folds` choose their hyper-parameters by cross-validation.
        hyper: of each run, where they are not the recipe's; heads that are solved take none.
        memory_gb: most memory the rows and optimizer state of one bank may take.
        folder: where checkpoints are written and resumed from; None writes none.
        loggers: Lightning loggers for the final training.
        label: what the progress bar says.

    Returns:
        The trained heads in the order of `plans`; those that are not finite are marked, not raised.
    """
    started = time.perf_counter()
    work = Work(recipe, embeddings, labels, memory_gb, label, folder, loggers)
    if recipe.direct:
        return _solve(work, plans, started)
    settings, count = recipe.optimizer, len(plans)
    chosen = hyper or Candidates(
        torch.full((count,), settings.lr),
        torch.tensor([recipe.loss.strength(len(plan.train)) for plan in plans]),
        torch.full((count,), recipe.steps, dtype=torch.int64),
    )
    choosing = [r for r, plan in enumerate(plans) if plan.folds is not None]
    if choosing and recipe.selection.method == "cross_validation":
        inside = replace(work, label=f"{label}: cross-validation", folder=None, loggers=())
        choose = choose_strength if recipe.linear_optimum else choose_by_steps
        found = choose(inside, [plans[r] for r in choosing])
        for values, own in ((chosen.lr, found.lr), (chosen.l2, found.l2), (chosen.steps, found.steps)):
            values[choosing] = own
    whole = [replace(plan, folds=None, held_out=None) for plan in plans]
    if recipe.linear_optimum:
        bank, failed = find_optimum(work, whole, chosen)
    else:
        bank, failed, _ = take_steps(work, whole, chosen)
    seconds = time.perf_counter() - started
    return FittedBank(
        [bank.eval()], chosen.lr.numpy(), chosen.l2.numpy(), chosen.steps.numpy(), failed.numpy(), seconds
    )


def _solve(work: Work, plans: Sequence[RunPlan], started: float) -> FittedBank:
    """Heads that are solved, not trained."""
    recipe = work.recipe
    assert isinstance(recipe.head, DirectHead)
    banks, strengths, failed = fit_direct(
        recipe.head,
        work.embeddings,
        work.labels,
        plans,
        selection=recipe.selection,
        loss=recipe.loss,
        label=work.label,
        progress=recipe.trainer.progress,
    )
    none = np.zeros(len(plans))
    return FittedBank(banks, none, strengths, none.astype(np.int64), failed, time.perf_counter() - started)
