"""Heads trained step by step, their hyper-parameters chosen by cross-validation: many runs in one program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from guardtrain.heads import HeadBank, MLPBank, join_states
from guardtrain.training.bank_trainer import (
    Work,
    bank_title,
    bank_trainer,
    last_checkpoint,
    on_cpu,
    run,
    tell_unfinished,
)
from guardtrain.training.banks import full_batch_banks, stepped_banks
from guardtrain.training.batches import RowNoise, RunPlan
from guardtrain.training.datamodule import EmbeddingDataModule
from guardtrain.training.lbfgs import BankLBFGS
from guardtrain.training.module import GuardModule
from guardtrain.training.optimizer import BankAdamW
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.selection import Candidates, pick

STEPS_A_BATCH = 10  # steps of AdamW that Lightning sees as one batch
STEPS_OF_A_BLOCK = 50  # the same of heads trained in blocks; a batch is the time that a block stays in the cache


def choose_by_steps(work: Work, plans: Sequence[RunPlan]) -> Candidates:
    """For each run learning rate, penalty and number of steps that its folds choose, where training takes steps."""
    recipe, selection, settings = work.recipe, work.recipe.selection, work.recipe.optimizer
    labels = work.labels.cpu()
    rates, own = selection.lr or [settings.lr], [recipe.loss.strength(len(plan.train)) for plan in plans]
    fold_plans: list[RunPlan] = []
    owner: list[tuple[int, int, int]] = []  # (run, candidate, fold) of each fold head
    lr, l2 = [], []
    candidates = len(rates) * max(1, len(selection.l2))
    held_out = torch.zeros(len(plans), selection.folds)
    for r, plan in enumerate(plans):
        assert plan.folds is not None, "cross-validation needs the folds of every plan"
        grid = [(rate, strength) for rate in rates for strength in (sorted(selection.l2) or [own[r]])]
        for fold in np.unique(plan.folds):
            inside = plan.folds != fold
            if len(np.unique(labels[plan.train[inside]])) < 2:
                continue  # a head cannot learn from one class; the other folds still speak
            held_out[r, fold] = int((~inside).sum())
            for c, (rate, strength) in enumerate(grid):
                fold_plans.append(plan.inside(inside, held_out=True))
                owner.append((r, c, int(fold)))
                lr.append(rate)
                l2.append(strength)
    steps = torch.full((len(owner),), recipe.steps, dtype=torch.int64)
    _, _, curve = take_steps(work, fold_plans, Candidates(torch.tensor(lr), torch.tensor(l2), steps))
    index = torch.tensor(owner, dtype=torch.int64).view(-1, 3)
    losses = torch.full((len(plans), candidates, selection.folds, len(curve)), torch.nan)  # (R, C, K, E)
    losses[index[:, 0], index[:, 1], index[:, 2]] = curve.T.float()
    weighted = (losses.nan_to_num(0.0) * held_out[:, None, :, None]).sum(2)  # (R, C, E)
    # a fold that was not judged adds nothing to any candidate; a candidate that diverged is no choice
    weighted[losses.isnan().any(3).logical_and(held_out[:, None] > 0).any(2)] = torch.inf
    at = weighted.argmin(2)  # (R, C): the best evaluation of each candidate
    at_best = losses.gather(3, at[:, :, None, None].expand(-1, -1, selection.folds, 1)).squeeze(3)
    strengths = [strength for _ in rates for strength in (sorted(selection.l2) or [0.0])]
    best = pick(at_best, held_out, strengths, selection.rule)
    rows = torch.arange(len(plans))
    best_steps = (at[rows, best] + 1) * (recipe.steps if recipe.full_batch else selection.evaluate_every)
    per_rate = max(1, len(selection.l2))
    penalty = torch.tensor(sorted(selection.l2))[best % per_rate] if selection.l2 else torch.tensor(own)
    rate = torch.tensor(rates)[torch.div(best, per_rate, rounding_mode="floor")]
    return Candidates(rate, penalty, best_steps.clamp_max(recipe.steps))


def take_steps(work: Work, plans: Sequence[RunPlan], hyper: Candidates) -> tuple[HeadBank, Tensor, Tensor]:
    """The bank of all `plans` trained by steps, which heads failed, and held-out losses `(E, R)` (E = 0 without)."""
    recipe, dim = work.recipe, work.embeddings.shape[1]
    one = recipe.head.bank(1, dim)
    in_blocks = _in_blocks(recipe, one)
    if recipe.full_batch:
        banks = full_batch_banks(one, plans, work.memory_gb)
    else:
        banks = stepped_banks(one, plans, recipe.optimizer.batch_size, work.memory_gb, in_blocks=in_blocks)
    states: list[dict[str, Tensor]] = []
    curves: list[Tensor] = []
    for number, rows in enumerate(banks):
        # A product of one head goes to other BLAS routines, with other rounding, than the same head among several;
        # with a twin beside it a lone head gets the same bits as in any bank. Blocks need none.
        banked = rows if len(rows) > 1 or in_blocks else rows.repeat(2)
        part = [plans[r] for r in banked.tolist()]
        where = None if work.folder is None else work.folder / f"bank{number}"
        title = bank_title(work.label, number, banks)
        module = _run_steps(replace(work, folder=where), part, hyper.take(banked), title)
        states.append({name: value[: len(rows)].cpu() for name, value in module.bank.state_dict().items()})
        curve = torch.stack(module.held_out_curve) if module.held_out_curve else torch.empty(0, len(part))
        curves.append(curve[:, : len(rows)])
    place = torch.cat(banks).argsort()  # from the banks' order back to that of the plans
    joined = {name: value[place] for name, value in join_states(states).items()}
    failed = ~torch.stack([value.flatten(1).isfinite().all(1) for value in joined.values() if value.ndim > 1]).all(0)
    whole = recipe.head.bank(len(plans), dim)
    whole.load_state_dict(joined)
    longest = max(len(curve) for curve in curves)
    # a bank that stopped early has a shorter curve: its last losses stand for the rest, none of which is a new best
    padded = [torch.cat([c, c[-1:].expand(longest - len(c), -1)]) if len(c) else c for c in curves]
    return whole, failed, torch.cat(padded, dim=1)[:, place]


def _run_steps(work: Work, plans: Sequence[RunPlan], hyper: Candidates, title: str) -> GuardModule:
    """One bank through one Lightning Trainer, step by step."""
    recipe = work.recipe
    selection, trainer_settings = recipe.selection, recipe.trainer
    evaluates = plans[0].held_out is not None
    longest = int(hyper.steps.max())
    embeddings, indices = work.embeddings, [torch.from_numpy(plan.train) for plan in plans]
    bank = recipe.head.bank(len(plans), embeddings.shape[1])
    bank.reset([plan.seed for plan in plans])
    bank.fit_input(embeddings, indices)
    bank.start(embeddings, work.labels, indices)
    if recipe.full_batch:
        # In float32 L-BFGS stops where rounding hides progress, at logits that depend on the bank's shape (1e-3).
        bank, embeddings = bank.double(), embeddings.double()
    module = GuardModule(
        bank,
        penalty=hyper.l2 / (2 * torch.tensor([len(plan.train) for plan in plans])),
        optimizer=partial(_make_optimizer, recipe=recipe, hyper=hyper),
        patience=selection.patience if evaluates else None,
        seed=plans[0].seed,
        noise=RowNoise(recipe.optimizer.noise, embeddings, plans) if recipe.optimizer.noise else None,
        in_blocks=_in_blocks(recipe, bank),
    )
    every = trainer_settings.checkpoint_every
    data = EmbeddingDataModule(
        embeddings,
        work.labels,
        plans,
        batch_size=max(len(plan.train) for plan in plans) if recipe.full_batch else recipe.optimizer.batch_size,
        steps=longest,
        # without evaluations on the way an epoch is the stretch between two checkpoints, or the whole training
        steps_per_epoch=selection.evaluate_every
        if evaluates and not recipe.full_batch
        else (min(every, longest) if every else longest),
        steps_per_batch=_steps_a_batch(work, bank),
        class_weight=recipe.loss.class_weight,
        pairs=recipe.loss.pairs,
        all_pairs=recipe.full_batch,
    )
    trainer = bank_trainer(
        work,
        title,
        max_steps=data.lightning_steps,
        limit_val_batches=1.0 if evaluates else 0,
        checkpoints=work.folder is not None and every > 0,
    )
    run(trainer, module, datamodule=data, ckpt_path=last_checkpoint(work.folder))
    tell_unfinished(module.unfinished_heads(), len(plans), longest)
    return module


def _in_blocks(recipe: TrainingRecipe, bank: HeadBank) -> bool:
    """Whether `BlockwiseSteps` trains the bank."""
    return type(bank) is MLPBank and not recipe.full_batch and on_cpu(recipe)


def _steps_a_batch(work: Work, bank: HeadBank) -> int:
    """How many steps Lightning sees as one; a logger gets a loss for each."""
    if work.recipe.full_batch:
        return 1
    return STEPS_OF_A_BLOCK if _in_blocks(work.recipe, bank) and not work.loggers else STEPS_A_BATCH


def _make_optimizer(module: GuardModule, recipe: TrainingRecipe, hyper: Candidates) -> BankAdamW | BankLBFGS:
    """The optimizer the recipe asks for, on the module's bank."""
    settings, parameters = recipe.optimizer, module.bank.parameters()
    if recipe.full_batch:
        return BankLBFGS(parameters, lambda: module.head_losses, tolerance=settings.tolerance)
    decay = torch.full_like(hyper.lr, settings.weight_decay)
    penalty = module.penalty.cpu()
    return BankAdamW(parameters, hyper.lr, decay, hyper.steps.clone(), settings.steps, penalty=penalty)
