"""Linear heads at their optimum, their penalties chosen by cross-validation: many runs in one program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from guardtrain.heads import HeadBank, LinearBank, join_states
from guardtrain.training.bank_trainer import Work, bank_title, bank_trainer, last_checkpoint, run, tell_unfinished
from guardtrain.training.banks import linear_banks
from guardtrain.training.batches import RunPlan
from guardtrain.training.optimum import LinearOptimum, fold_heads, whole_heads
from guardtrain.training.optimum_module import EVALUATIONS_A_STEP, OptimumModule
from guardtrain.training.prefixes import PrefixHead
from guardtrain.training.selection import Candidates, pick


def choose_strength(work: Work, plans: Sequence[RunPlan]) -> Candidates:
    """For each run the penalty that its folds choose, all folds and penalties of many runs in one program."""
    recipe, selection = work.recipe, work.recipe.selection
    labels = work.labels.cpu().numpy()
    given = [recipe.loss.strength(len(plan.train)) for plan in plans]
    strongest_first = sorted(selection.l2, reverse=True)
    penalties = torch.tensor(given)
    if len(selection.l2) > 1:
        banks = linear_banks(work.embeddings.shape[1], plans, selection.folds, work.memory_gb)
        for number, rows in enumerate(banks):
            part = [plans[r] for r in rows.tolist()]
            heads = fold_heads(part, labels)
            strengths = torch.tensor(strongest_first)[:, None].expand(-1, len(heads))
            solver = _run_optimum(work, part, heads, strengths, None, bank_title(work.label, number, banks))
            losses = torch.full((len(part), len(strongest_first), selection.folds), torch.nan)
            held_out = torch.zeros(len(part), selection.folds)
            for h, head in enumerate(heads):
                losses[head.plan, :, head.left_out] = torch.stack([at[h] for at in solver.held_out_losses])
            for p, plan in enumerate(part):
                assert plan.folds is not None
                held_out[p] = torch.from_numpy(np.bincount(plan.folds, minlength=selection.folds))
            ascending = strongest_first[::-1]  # of equals the first is taken: the smaller
            best = pick(losses.flip(1), held_out, ascending, selection.rule)
            penalties[rows] = torch.tensor(ascending)[best]
    elif selection.l2:
        penalties[:] = selection.l2[0]
    count = len(plans)
    return Candidates(torch.full((count,), recipe.optimizer.lr), penalties, torch.full((count,), recipe.steps))


def find_optimum(work: Work, plans: Sequence[RunPlan], hyper: Candidates) -> tuple[HeadBank, Tensor]:
    """Linear heads at their optimum, and which of them `(R,)` failed."""
    dim = work.embeddings.shape[1]
    bank = work.recipe.head.bank(len(plans), dim)
    failed = torch.zeros(len(plans), dtype=torch.bool)
    states, banks = [], linear_banks(dim, plans, 1, work.memory_gb)
    for number, rows in enumerate(banks):
        part = [plans[r] for r in rows.tolist()]
        own = work.recipe.head.bank(len(rows), dim)
        assert isinstance(own, LinearBank)
        strengths = hyper.l2[rows][None]
        where = None if work.folder is None else work.folder / f"bank{number}"
        solver = _run_optimum(
            replace(work, folder=where), part, whole_heads(part), strengths, own, bank_title(work.label, number, banks)
        )
        failed[rows] = solver.failed.cpu()
        states.append({name: value.cpu() for name, value in own.state_dict().items()})
    place = torch.cat(banks).argsort()  # from the banks' order back to that of the plans
    bank.load_state_dict({name: value[place] for name, value in join_states(states).items()})
    return bank, failed


def _run_optimum(
    work: Work,
    plans: Sequence[RunPlan],
    heads: Sequence[PrefixHead],
    strengths: Tensor,
    bank: LinearBank | None,
    title: str,
) -> LinearOptimum:
    """One `LinearOptimum` through one Lightning Trainer."""
    recipe = work.recipe
    settings, trainer_settings = recipe.optimizer, recipe.trainer

    def make_solver(device: torch.device) -> LinearOptimum:
        return LinearOptimum(
            work.embeddings.to(device),
            work.labels.to(device),
            plans,
            heads,
            strengths,
            loss=recipe.loss,
            tolerance=settings.tolerance,
            iterations=settings.iterations,
            held_out=bank is None,
        )

    module = OptimumModule(bank, make_solver)
    # a strength takes `iterations` in each of two precisions at most, and each ends a Lightning step early
    steps = len(strengths) * (2 * -(-settings.iterations // EVALUATIONS_A_STEP) + 1)
    every = trainer_settings.checkpoint_every
    epoch = min(steps, -(-every // EVALUATIONS_A_STEP)) if every else steps
    checkpoints = work.folder is not None and every > 0
    trainer = bank_trainer(work, title, max_epochs=-(-steps // epoch), checkpoints=checkpoints)
    run(trainer, module, train_dataloaders=range(epoch), ckpt_path=last_checkpoint(work.folder))
    tell_unfinished(module.solver.unfinished, len(heads) * len(strengths), settings.iterations)
    return module.solver
