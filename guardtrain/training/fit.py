"""Fit a bank: plans in, trained heads out; hyper-parameters are chosen inside each run's own images."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor

from guardtrain.heads import HeadBank, LinearBank
from guardtrain.training.batches import RunPlan
from guardtrain.training.datamodule import EmbeddingDataModule
from guardtrain.training.lbfgs import BankLBFGS
from guardtrain.training.module import GuardModule
from guardtrain.training.optimizer import BankAdamW
from guardtrain.training.progress import BankProgress, quiet_lightning
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

log = logging.getLogger(__name__)


class HeadDefinition(Protocol):
    """What a head's config names: it builds a bank of R untrained heads on D-dimensional embeddings."""

    name: str
    convex: ClassVar[bool]

    def bank(self, heads: int, dim: int) -> HeadBank: ...


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything about training that is not the data."""

    head: HeadDefinition
    loss: LossSettings
    optimizer: OptimizerSettings
    selection: SelectionSettings
    trainer: TrainerSettings

    @property
    def full_batch(self) -> bool:
        """Whether every step sees all of a run's images (L-BFGS)."""
        kind = self.optimizer.kind
        return kind == "lbfgs" or (kind == "auto" and self.head.convex)

    @property
    def steps(self) -> int:
        """Most steps of the optimizer: its iterations (L-BFGS) or its steps (AdamW)."""
        return self.optimizer.iterations if self.full_batch else self.optimizer.steps


@dataclass(frozen=True)
class FittedBank:
    """R trained heads with the hyper-parameters they were trained with; `lr`, `l2`, `steps` are `(R,)`."""

    bank: HeadBank
    lr: np.ndarray
    l2: np.ndarray
    steps: np.ndarray
    seconds: float

    @torch.inference_mode()
    def probabilities(self, embeddings: Tensor, rows: int = 4096) -> Tensor:
        """`(R, N)` float32 probabilities of being unsafe for embeddings `(N, D)` float32, `rows` at a time."""
        parts = [torch.sigmoid(self.bank(block)) for block in embeddings.split(rows)]
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class _Candidates:
    """Hyper-parameters a head: each `(R,)`."""

    lr: Tensor
    l2: Tensor
    steps: Tensor

    def take(self, index: Tensor) -> _Candidates:
        return _Candidates(self.lr[index], self.l2[index], self.steps[index])


def fit_bank(
    recipe: TrainingRecipe,
    embeddings: Tensor,
    labels: Tensor,
    plans: Sequence[RunPlan],
    *,
    memory_gb: float = 2.0,
    folder: Path | None = None,
    loggers: Sequence[Logger] = (),
    label: str = "training",
) -> FittedBank:
    """Train one head for each plan, as few banks as the memory allows, through Lightning's Trainer.

    Args:
        recipe: head, loss, optimizer, selection and trainer settings.
        embeddings: `(N, D)` float32.
        labels: `(N,)` int, 1 is unsafe.
        plans: one run each; with cross-validation each must carry its `folds`.
        memory_gb: most memory the gathered batches and optimizer state of one bank may take.
        folder: where checkpoints are written and resumed from; None writes none.
        loggers: Lightning loggers for the final training.
        label: what the progress bar says.

    Returns:
        The trained heads in the order of `plans`.
    """
    started = time.perf_counter()
    settings = recipe.optimizer
    count = len(plans)
    chosen = _Candidates(
        torch.full((count,), settings.lr),
        torch.full((count,), recipe.loss.l2),
        torch.full((count,), recipe.steps, dtype=torch.int64),
    )
    if recipe.selection.method == "cross_validation":
        chosen = _cross_validate(recipe, embeddings, labels, plans, memory_gb, label)
    bank, _ = _train(recipe, embeddings, labels, plans, chosen, memory_gb, label, folder=folder, loggers=loggers)
    seconds = time.perf_counter() - started
    return FittedBank(bank.eval(), chosen.lr.numpy(), chosen.l2.numpy(), chosen.steps.numpy(), seconds)


def _cross_validate(
    recipe: TrainingRecipe,
    embeddings: Tensor,
    labels: Tensor,
    plans: Sequence[RunPlan],
    memory_gb: float,
    label: str,
) -> _Candidates:
    """For each run the candidate and step with the lowest held-out log-loss, summed over its folds."""
    selection, settings = recipe.selection, recipe.optimizer
    grid = [(lr, l2) for lr in (selection.lr or [settings.lr]) for l2 in (selection.l2 or [recipe.loss.l2])]
    fold_plans: list[RunPlan] = []
    owner: list[tuple[int, int]] = []  # (run, candidate) of each fold head
    for r, plan in enumerate(plans):
        assert plan.folds is not None, "cross-validation needs the folds of every plan"
        for fold in np.unique(plan.folds):
            inside = plan.folds != fold
            if len(np.unique(labels[plan.train[inside]])) < 2:
                continue  # a head cannot learn from one class; the other folds still speak
            for c in range(len(grid)):
                split = None if plan.split is None else int(inside[: plan.split].sum())
                fold_plans.append(RunPlan(plan.train[inside], plan.seed, held_out=plan.train[~inside], split=split))
                owner.append((r, c))
    lr = torch.tensor([grid[c][0] for _, c in owner])
    l2 = torch.tensor([grid[c][1] for _, c in owner])
    steps = torch.full((len(owner),), recipe.steps, dtype=torch.int64)
    _, curve = _train(
        recipe, embeddings, labels, fold_plans, _Candidates(lr, l2, steps), memory_gb, f"{label}: cross-validation"
    )
    held = torch.tensor([len(p.held_out) for p in fold_plans if p.held_out is not None], dtype=curve.dtype)
    loss = curve.new_zeros(len(plans), len(grid), len(curve))  # (R, C, E)
    index = torch.tensor(owner, dtype=torch.int64).view(-1, 2)
    loss.index_put_((index[:, 0], index[:, 1]), (curve * held).T, accumulate=True)
    best = loss.flatten(1).argmin(1)  # the first of equals: the smaller candidate, the earlier step
    candidate = torch.div(best, len(curve), rounding_mode="floor")
    best_steps = ((best % len(curve)) + 1) * (recipe.steps if recipe.full_batch else selection.evaluate_every)
    values = torch.tensor(grid)
    return _Candidates(values[candidate, 0], values[candidate, 1], best_steps.clamp_max(recipe.steps))


def _train(
    recipe: TrainingRecipe,
    embeddings: Tensor,
    labels: Tensor,
    plans: Sequence[RunPlan],
    hyper: _Candidates,
    memory_gb: float,
    label: str,
    *,
    folder: Path | None = None,
    loggers: Sequence[Logger] = (),
) -> tuple[HeadBank, Tensor]:
    """The trained bank of all `plans`, and the held-out loss `(E, R)` at each evaluation (E = 0 without)."""
    states: list[dict[str, Tensor]] = []
    curves: list[Tensor] = []
    banks = _banks(recipe, embeddings.shape[1], plans, memory_gb)
    for number, rows in enumerate(banks):
        title = label if len(banks) == 1 else f"{label} (bank {number + 1} of {len(banks)})"
        # A product of one head goes to other BLAS routines, with other rounding, than the same head among several;
        # with a twin beside it a lone head gets the same bits as in any bank.
        banked = rows if len(rows) > 1 else rows.repeat(2)
        part = [plans[int(r)] for r in banked]
        where = None if folder is None else folder / f"bank{number}"
        module = _train_one(recipe, embeddings, labels, part, hyper.take(banked), title, where, loggers)
        states.append({name: value[: len(rows)].cpu() for name, value in module.bank.state_dict().items()})
        curve = torch.stack(module.held_out_curve) if module.held_out_curve else torch.empty(0, len(part))
        curves.append(curve[:, : len(rows)])
    place = torch.cat(banks).argsort()  # from the banks' order back to that of the plans
    whole = recipe.head.bank(len(plans), embeddings.shape[1])
    whole.load_state_dict({name: torch.cat([state[name] for state in states])[place] for name in states[0]})
    longest = max(len(curve) for curve in curves)
    # a bank that stopped early has a shorter curve: its last losses stand for the rest, none of which is a new best
    padded = [torch.cat([c, c[-1:].expand(longest - len(c), -1)]) if len(c) else c for c in curves]
    return whole, torch.cat(padded, dim=1)[:, place]


def _train_one(
    recipe: TrainingRecipe,
    embeddings: Tensor,
    labels: Tensor,
    plans: Sequence[RunPlan],
    hyper: _Candidates,
    label: str,
    folder: Path | None,
    loggers: Sequence[Logger],
) -> GuardModule:
    """One bank through one Lightning Trainer."""
    selection, trainer_settings = recipe.selection, recipe.trainer
    evaluates = plans[0].held_out is not None
    longest = int(hyper.steps.max())
    bank = recipe.head.bank(len(plans), embeddings.shape[1])
    bank.reset([plan.seed for plan in plans])
    bank.fit_input(embeddings, [torch.from_numpy(plan.train) for plan in plans])
    accelerator = trainer_settings.accelerator
    if recipe.full_batch:
        # In float32 L-BFGS stops where rounding hides progress, at logits that depend on the bank's shape (1e-3).
        bank, embeddings = bank.double(), embeddings.double()
        if accelerator == "auto" and not torch.cuda.is_available():
            accelerator = "cpu"  # Apple's GPU has no float64
    module = GuardModule(
        bank,
        penalty=hyper.l2 / (2 * torch.tensor([len(plan.train) for plan in plans])),
        optimizer=partial(_make_optimizer, recipe=recipe, hyper=hyper),
        patience=selection.patience if evaluates else None,
        seed=plans[0].seed,
    )
    widest = max(len(plan.train) for plan in plans)
    by_steps = evaluates and not recipe.full_batch
    data = EmbeddingDataModule(
        embeddings,
        labels,
        plans,
        batch_size=widest if recipe.full_batch else recipe.optimizer.batch_size,
        steps=longest,
        steps_per_epoch=selection.evaluate_every if by_steps else _epoch_length(trainer_settings, longest),
        class_weight=recipe.loss.class_weight,
        whole=_shares_rows(recipe, bank),
    )
    callbacks: list[L.Callback] = [BankProgress(label)] if trainer_settings.progress else []
    resume = None
    if folder is not None and trainer_settings.checkpoint_every:
        # one file, replaced atomically at the end of each epoch
        checkpoint = ModelCheckpoint(
            folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        callbacks.append(checkpoint)
        last = folder / "last.ckpt"
        resume = str(last) if last.exists() else None
    if resume is not None:
        log.info("continuing from %s", resume)
    quiet_lightning()
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=longest,
        max_epochs=-1,
        logger=list(loggers) or False,
        log_every_n_steps=10,
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=trainer_settings.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if evaluates else 0,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except SystemExit:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit of its own
            raise KeyboardInterrupt from None
        raise
    unfinished = module.unfinished_heads()
    if unfinished:
        log.warning(
            "%d of %d heads are not at their optimum after %d iterations; raise optimizer.iterations or loss.l2",
            unfinished,
            len(plans),
            longest,
        )
    return module


def _make_optimizer(module: GuardModule, recipe: TrainingRecipe, hyper: _Candidates) -> BankAdamW | BankLBFGS:
    """The optimizer the recipe asks for, on the module's bank."""
    settings, parameters = recipe.optimizer, module.bank.parameters()
    if recipe.full_batch:
        return BankLBFGS(parameters, lambda: module.head_losses, module.focus, tolerance=settings.tolerance)
    decay = torch.full_like(hyper.lr, settings.weight_decay)
    return BankAdamW(parameters, hyper.lr, decay, hyper.steps.clone(), settings.steps)


def _shares_rows(recipe: TrainingRecipe, bank: HeadBank) -> bool:
    """Whether the heads of `bank` are trained on shared prefixes (`PrefixLoss`), not on gathered rows of their own."""
    return recipe.full_batch and isinstance(bank, LinearBank)


def _epoch_length(settings: TrainerSettings, steps: int) -> int:
    """Without evaluations on the way an epoch is the stretch between two checkpoints, or the whole training."""
    return min(settings.checkpoint_every, steps) if settings.checkpoint_every else steps


def _banks(recipe: TrainingRecipe, dim: int, plans: Sequence[RunPlan], memory_gb: float) -> list[Tensor]:
    """Which plans are trained together: int64 indices, each bank within the memory.

    Counted are gathered rows, activations, parameters and optimizer state, in float32. Where all images of a run are
    gathered in every batch, banks are made of runs of like size, since the shorter ones are padded to the longest;
    linear heads share their rows (`PrefixLoss`), and need none gathered but the held-out ones.
    """
    sizes = torch.tensor([len(plan.train) for plan in plans])
    one = recipe.head.bank(1, dim)
    shares = _shares_rows(recipe, one)
    if shares or not recipe.full_batch:
        sizes = torch.full_like(sizes, 0 if shares else recipe.optimizer.batch_size)
    parameters = list(one.parameters())
    state = sum(p.numel() for p in parameters) * (25 if recipe.full_batch else 5)
    widths = sum(p.shape[-1] for p in parameters if p.ndim == 3)
    banks: list[list[int]] = []
    largest = 0
    for r in sizes.argsort(descending=True, stable=True).tolist():
        held_out = plans[r].held_out
        rows = int(sizes[r])
        heads = int(
            memory_gb
            * 2**28
            / (state + max(largest, rows, 0 if held_out is None else len(held_out)) * (dim + 3 * widths))
        )
        if not banks or len(banks[-1]) >= max(1, heads) or (recipe.full_batch and not shares and 2 * rows <= largest):
            banks.append([])
            largest = rows
        banks[-1].append(r)
    return [torch.tensor(sorted(bank)) for bank in banks]
