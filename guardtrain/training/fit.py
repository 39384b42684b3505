"""Fit a bank: plans in, trained heads out; hyper-parameters are chosen inside each run's own images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor

from guardtrain.errors import ConfigError
from guardtrain.heads import DirectHead, HeadBank, LinearBank, LinearHead, join_states
from guardtrain.training.banks import full_batch_banks, linear_banks, stepped_banks
from guardtrain.training.batches import RowNoise, RunPlan
from guardtrain.training.closed_form import fit_direct
from guardtrain.training.datamodule import EmbeddingDataModule
from guardtrain.training.lbfgs import BankLBFGS
from guardtrain.training.module import GuardModule
from guardtrain.training.optimizer import BankAdamW
from guardtrain.training.optimum import LinearOptimum, fold_heads, whole_heads
from guardtrain.training.optimum_module import EVALUATIONS_A_STEP, OptimumModule
from guardtrain.training.prefixes import PrefixHead
from guardtrain.training.progress import BankProgress, quiet_lightning
from guardtrain.training.selection import Candidates, pick
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

log = logging.getLogger(__name__)

STEPS_A_BATCH = 10  # steps of AdamW that Lightning sees as one batch
SCORED_AT_ONCE = 2**26  # numbers in the layers of all heads: 256 MiB


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

    def __post_init__(self) -> None:
        """Settle what the loss leaves to the head; refuse what the head, or the way it is found, knows no use for.

        Raises:
            ConfigError: a pair loss for heads trained by steps, and the head is linear, solved or found by L-BFGS;
                noise, and it is solved or found by L-BFGS.
        """
        if self.loss.pairs.gradient is None:
            by_head = 0.0 if self.direct or self.full_batch else getattr(self.head, "pair_gradient", 0.0)
            settled = replace(self.loss, pairs=replace(self.loss.pairs, gradient=by_head))
            object.__setattr__(self, "loss", settled)  # the one way to do so where a dataclass is frozen
        of_linear = {
            "contrastive": "it learns no features that the loss could shape",
            "gradient": "its gradient is the same everywhere; loss.pairs.logistic turns it to the pairs' differences",
        }
        for name, why in of_linear.items():
            weight = getattr(self.loss.pairs, name)
            if weight and (self.direct or self.full_batch or isinstance(self.head, LinearHead)):
                if self.direct:
                    why = "it is solved, not trained"
                elif not isinstance(self.head, LinearHead):
                    why = "L-BFGS finds no optimum of it (optimizer.kind=adamw trains with it)"
                raise ConfigError(
                    f"loss.pairs.{name} is {weight:g}, and the head '{self.head.name}' cannot use it: {why}. Set "
                    f"loss.pairs.{name}=0, or take a head that is trained by steps: mlp, prototypes, tip_adapter_f."
                )
        if self.optimizer.noise and (self.direct or self.full_batch):
            how = "is solved" if self.direct else "is found by L-BFGS"
            raise ConfigError(
                f"optimizer.noise is {self.optimizer.noise:g}, and the head '{self.head.name}' {how}, not trained by "
                "steps. Set optimizer.noise=0, or take optimizer=adamw with a head that is trained (mlp, linear)."
            )

    @property
    def label(self) -> str:
        """What the results table calls it: the head, and whether its training knows of pairs."""
        aware = self.loss.pairs.active and not self.direct
        return f"{self.head.name} (pair-aware)" if aware else self.head.name

    @property
    def direct(self) -> bool:
        """Whether the head is solved, not trained."""
        return isinstance(self.head, DirectHead)

    @property
    def full_batch(self) -> bool:
        """Whether every step sees all of a run's images (L-BFGS)."""
        kind = self.optimizer.kind
        return not self.direct and (kind == "lbfgs" or (kind == "auto" and self.head.convex))

    @property
    def linear_optimum(self) -> bool:
        """Whether heads are found by `LinearOptimum`, on rows that they share."""
        return self.full_batch and isinstance(self.head, LinearHead)

    @property
    def steps(self) -> int:
        """Most steps of the optimizer: its evaluations (L-BFGS) or its steps (AdamW)."""
        return self.optimizer.iterations if self.full_batch else self.optimizer.steps

    def chooses(self, images: int) -> bool:
        """Whether a run with so many images chooses its hyper-parameters by cross-validation."""
        return self.selection.method == "cross_validation" and images >= self.selection.smallest


@dataclass(frozen=True)
class FittedBank:
    """R trained heads with the hyper-parameters they were trained with.

    Args:
        banks: the heads, in one bank or several, in the order of the plans.
        lr, l2, steps: `(R,)`.
        failed: `(R,)` bool: heads that are not finite, and why they are not is in the images or the settings.
        seconds: the training took.
    """

    banks: Sequence[HeadBank]
    lr: np.ndarray
    l2: np.ndarray
    steps: np.ndarray
    failed: np.ndarray
    seconds: float

    @property
    def bank(self) -> HeadBank:
        """The one bank all heads are in."""
        (bank,) = self.banks
        return bank

    @torch.inference_mode()
    def probabilities(self, embeddings: Tensor, rows: int = 4096) -> Tensor:
        """`(R, N)` float32 probabilities of being unsafe for embeddings `(N, D)` float32, `rows` at a time.

        NaN for heads that failed.
        """
        return self._scores(embeddings, rows, torch.sigmoid)

    @torch.inference_mode()
    def logits(self, embeddings: Tensor, rows: int = 4096) -> Tensor:
        """`(R, N)` float32 logits, as `probabilities`."""
        return self._scores(embeddings, rows, lambda logits: logits)

    def _scores(self, embeddings: Tensor, rows: int, of_logits: Callable[[Tensor], Tensor]) -> Tensor:
        found = torch.cat([_scored(bank, embeddings, rows, of_logits) for bank in self.banks])
        found[torch.from_numpy(self.failed)] = torch.nan
        return found


def _scored(bank: HeadBank, embeddings: Tensor, rows: int, of_logits: Callable[[Tensor], Tensor]) -> Tensor:
    """`(R, N)` scores; fewer rows at a time (a power of two) where the layers of all heads are wide."""
    width = sum(p.shape[0] * p.shape[-1] for p in bank.parameters() if p.ndim == 3)
    while rows > 64 and rows * width > SCORED_AT_ONCE:
        rows //= 2
    return torch.cat([of_logits(bank(block)) for block in embeddings.split(rows)], dim=1)


@dataclass(frozen=True)
class _Work:
    """What every step of a fit needs."""

    recipe: TrainingRecipe
    embeddings: Tensor
    labels: Tensor
    memory_gb: float
    label: str
    folder: Path | None = None
    loggers: Sequence[Logger] = ()


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
    work = _Work(recipe, embeddings, labels, memory_gb, label, folder, loggers)
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
        choose = _choose_strength if recipe.linear_optimum else _choose_by_steps
        found = choose(inside, [plans[r] for r in choosing])
        for values, own in ((chosen.lr, found.lr), (chosen.l2, found.l2), (chosen.steps, found.steps)):
            values[choosing] = own
    whole = [replace(plan, folds=None, held_out=None) for plan in plans]
    if recipe.linear_optimum:
        bank, failed = _find_optimum(work, whole, chosen)
    else:
        bank, failed, _ = _take_steps(work, whole, chosen)
    seconds = time.perf_counter() - started
    return FittedBank(
        [bank.eval()], chosen.lr.numpy(), chosen.l2.numpy(), chosen.steps.numpy(), failed.numpy(), seconds
    )


def _solve(work: _Work, plans: Sequence[RunPlan], started: float) -> FittedBank:
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


def _choose_strength(work: _Work, plans: Sequence[RunPlan]) -> Candidates:
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
            solver = _run_optimum(work, part, heads, strengths, None, _title(work.label, number, banks))
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


def _find_optimum(work: _Work, plans: Sequence[RunPlan], hyper: Candidates) -> tuple[HeadBank, Tensor]:
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
            replace(work, folder=where), part, whole_heads(part), strengths, own, _title(work.label, number, banks)
        )
        failed[rows] = solver.failed.cpu()
        states.append({name: value.cpu() for name, value in own.state_dict().items()})
    place = torch.cat(banks).argsort()  # from the banks' order back to that of the plans
    bank.load_state_dict({name: value[place] for name, value in join_states(states).items()})
    return bank, failed


def _run_optimum(
    work: _Work,
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
    trainer = _trainer(work, title, max_epochs=-(-steps // epoch), checkpoints=work.folder is not None and every > 0)
    _fit(trainer, module, train_dataloaders=range(epoch), ckpt_path=_last(work.folder))
    unfinished = module.solver.unfinished
    if unfinished:
        log.warning(
            "%d of %d heads are not at their optimum after %d evaluations; raise optimizer.iterations or loss.l2",
            unfinished,
            len(heads) * len(strengths),
            settings.iterations,
        )
    return module.solver


def _choose_by_steps(work: _Work, plans: Sequence[RunPlan]) -> Candidates:
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
    _, _, curve = _take_steps(work, fold_plans, Candidates(torch.tensor(lr), torch.tensor(l2), steps))
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


def _take_steps(work: _Work, plans: Sequence[RunPlan], hyper: Candidates) -> tuple[HeadBank, Tensor, Tensor]:
    """The bank of all `plans` trained by steps, which heads failed, and held-out losses `(E, R)` (E = 0 without)."""
    recipe, dim = work.recipe, work.embeddings.shape[1]
    one = recipe.head.bank(1, dim)
    if recipe.full_batch:
        banks = full_batch_banks(one, plans, work.memory_gb)
    else:
        banks = stepped_banks(one, plans, recipe.optimizer.batch_size, work.memory_gb)
    states: list[dict[str, Tensor]] = []
    curves: list[Tensor] = []
    for number, rows in enumerate(banks):
        # A product of one head goes to other BLAS routines, with other rounding, than the same head among several;
        # with a twin beside it a lone head gets the same bits as in any bank.
        banked = rows if len(rows) > 1 else rows.repeat(2)
        part = [plans[r] for r in banked.tolist()]
        where = None if work.folder is None else work.folder / f"bank{number}"
        module = _run_steps(replace(work, folder=where), part, hyper.take(banked), _title(work.label, number, banks))
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


def _run_steps(work: _Work, plans: Sequence[RunPlan], hyper: Candidates, title: str) -> GuardModule:
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
        steps_per_batch=1 if recipe.full_batch else STEPS_A_BATCH,
        class_weight=recipe.loss.class_weight,
        pairs=recipe.loss.pairs,
        all_pairs=recipe.full_batch,
    )
    trainer = _trainer(
        work,
        title,
        max_steps=data.lightning_steps,
        limit_val_batches=1.0 if evaluates else 0,
        checkpoints=work.folder is not None and every > 0,
    )
    _fit(trainer, module, datamodule=data, ckpt_path=_last(work.folder))
    unfinished = module.unfinished_heads()
    if unfinished:
        log.warning(
            "%d of %d heads are not at their optimum after %d evaluations; raise optimizer.iterations or loss.l2",
            unfinished,
            len(plans),
            longest,
        )
    return module


def _make_optimizer(module: GuardModule, recipe: TrainingRecipe, hyper: Candidates) -> BankAdamW | BankLBFGS:
    """The optimizer the recipe asks for, on the module's bank."""
    settings, parameters = recipe.optimizer, module.bank.parameters()
    if recipe.full_batch:
        return BankLBFGS(parameters, lambda: module.head_losses, tolerance=settings.tolerance)
    decay = torch.full_like(hyper.lr, settings.weight_decay)
    penalty = module.penalty.cpu()
    return BankAdamW(parameters, hyper.lr, decay, hyper.steps.clone(), settings.steps, penalty=penalty)


def _trainer(
    work: _Work,
    title: str,
    *,
    checkpoints: bool,
    max_steps: int = -1,
    max_epochs: int = -1,
    limit_val_batches: float = 0,
) -> L.Trainer:
    """Lightning's Trainer as every bank uses it."""
    settings = work.recipe.trainer
    callbacks: list[L.Callback] = [BankProgress(title)] if settings.progress else []
    if checkpoints:
        # one file, replaced atomically at the end of each epoch
        callbacks.append(
            ModelCheckpoint(work.folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        )
    accelerator = settings.accelerator
    if accelerator == "auto" and work.recipe.full_batch and not torch.cuda.is_available():
        accelerator = "cpu"  # Apple's GPU has no float64
    quiet_lightning()
    return L.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=max_steps,
        max_epochs=max_epochs,
        logger=list(work.loggers) or False,
        log_every_n_steps=1,
        callbacks=callbacks,
        enable_checkpointing=checkpoints,
        enable_progress_bar=settings.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=limit_val_batches,
    )


def _last(folder: Path | None) -> str | None:
    """The checkpoint to continue from, where there is one."""
    last = None if folder is None else folder / "last.ckpt"
    if last is None or not last.exists():
        return None
    log.info("continuing from %s", last)
    return str(last)


def _fit(trainer: L.Trainer, module: L.LightningModule, *, ckpt_path: str | None, **data: object) -> None:
    try:
        trainer.fit(module, ckpt_path=ckpt_path, weights_only=True, **data)
    except SystemExit:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit of its own
            raise KeyboardInterrupt from None
        raise


def _title(label: str, number: int, banks: Sequence[Tensor]) -> str:
    """What the progress bar says of one bank of several."""
    return label if len(banks) == 1 else f"{label} (bank {number + 1} of {len(banks)})"
