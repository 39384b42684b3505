"""MLP heads: banks of them beside a loop of single Lightning fits, and the share of the machine's peak they reach."""

from __future__ import annotations

import logging
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from guardtrain.heads import MLPHead
from guardtrain.heads.products import fast_float32_products, product_dtype
from guardtrain.metrics import auroc
from guardtrain.training.batches import RunPlan, batch_width
from guardtrain.training.fit import fit_bank
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

DIM, HIDDEN, DROPOUT = 768, 256, 0.1
BUDGETS = [2**k for k in range(4, 12)]
RATIOS, SEEDS = 5, 10
POOL, TEST = 8192, 2000
OPTIMIZER = OptimizerSettings(kind="adamw", steps=300, lr=0.001, batch_size=128)


class SingleMLP(L.LightningModule):
    """The same head, loss and schedule as people write them for one fit."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(self.layers(x).squeeze(-1), y)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=OPTIMIZER.lr, weight_decay=0.0, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, OPTIMIZER.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class LeanLoader:
    """Shuffled batches by indexing tensors in memory: the fastest loader one writes for such data."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return -(-len(self.x) // OPTIMIZER.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(self.x)).split(OPTIMIZER.batch_size):
            yield self.x[rows], self.y[rows]


def single_fit(x: Tensor, y: Tensor, lean: bool) -> SingleMLP:
    """One Lightning fit."""
    loader: Any = LeanLoader(x, y)
    if not lean:
        loader = DataLoader(TensorDataset(x, y), batch_size=OPTIMIZER.batch_size, shuffle=True)
    module = SingleMLP()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=OPTIMIZER.steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    module.eval()
    return module


def matrix_product_peak(dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """GF/s of the fastest product of that type torch can be brought to make: square or batched, MKL or oneDNN."""
    best = 0.0
    for shapes in (((1024, 1024), (1024, 1024)), ((8, 256, 768), (8, 768, 256))):
        left, right = (torch.randn(shape).to(dtype) for shape in shapes)
        work = 2 * left.numel() * right.shape[-1]
        out = left @ right
        for products in (nullcontext, fast_float32_products):
            with products():
                for _ in range(50):
                    started = clock()
                    torch.matmul(left, right, out=out)
                    best = max(best, work / (clock() - started) / 1e9)
    return best


def plan_dtype(plan: RunPlan) -> torch.dtype:
    """Return the type that the products of a head's training are made in on this processor."""
    images = min(len(plan.train), OPTIMIZER.batch_size)
    return product_dtype("auto", torch.device("cpu"), batch_width(images, OPTIMIZER.batch_size))


def bench_mlp(singles: int = 2, seeds: int = SEEDS, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Train the grid in banks and `singles` Lightning fits of each budget; their time is scaled to the whole grid.

    Args:
        singles: Lightning fits of each budget and loader.
        seeds: seeds of the grid.
        clock: seconds; `time.process_time` counts processor time, which other programs disturb less.

    Returns:
        Seconds, ratios, GF/s and peak memory.
    """
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(DIM, generator=generator)
    x = torch.randn(POOL + TEST, DIM, generator=generator)
    y = (x @ direction / DIM**0.5 + 0.3 * torch.randn(len(x), generator=generator) > 0).long()
    train_x, train_y, test_x, test_y = x[:POOL], y[:POOL], x[POOL:], y[POOL:]
    plans = [
        RunPlan(np.random.default_rng([seed, ratio]).permutation(POOL)[:budget], seed)
        for seed in range(seeds)
        for budget in BUDGETS
        for ratio in range(RATIOS)
    ]
    recipe = TrainingRecipe(
        MLPHead(hidden=[HIDDEN], dropout=DROPOUT),
        LossSettings(class_weight="none", l2=0.0),
        OPTIMIZER,
        SelectionSettings(),
        TrainerSettings(accelerator="cpu", progress=False),
    )
    fit_bank(recipe, train_x, train_y, plans[:1])  # imports and first calls, for both sides
    single_fit(train_x[:16], train_y[:16].float(), lean=True)

    started = clock()
    fitted = fit_bank(recipe, train_x, train_y, plans)
    ours = clock() - started
    beside = [r for r, plan in enumerate(plans) if plan.seed < singles and r % RATIOS == 0]  # those fitted singly too
    ours_auroc = float(auroc(fitted.probabilities(test_x)[beside], test_y).mean())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    # of the types that are used: where a processor has no bfloat16, one such product takes a second
    used = {plan_dtype(plan) for plan in plans}
    peaks = {dtype: matrix_product_peak(dtype, clock) for dtype in used}

    theirs, scores = {}, []
    for lean in (True, False):
        started = clock()
        for plan in (plans[r] for r in beside):
            module = single_fit(train_x[plan.train], train_y[plan.train].float(), lean)
            with torch.inference_mode():
                scores.append(module.layers(test_x).squeeze(-1))
        theirs[lean] = (clock() - started) * len(plans) / (singles * len(BUDGETS))
    # The products that training needs, two of the first layer and three of the last, and how long they take at the
    # peak of the precision in which each is made; images that are seen, not padding.
    work = dict.fromkeys(peaks, 0.0)
    for plan in plans:
        images = min(len(plan.train), OPTIMIZER.batch_size)
        work[plan_dtype(plan)] += OPTIMIZER.steps * images * (4 * DIM * HIDDEN + 6 * HIDDEN) / 1e9
    at_peak = sum(work[dtype] / peaks[dtype] for dtype in peaks)
    rate, share = sum(work.values()) / ours, at_peak / ours
    figures = {
        "heads": float(len(plans)),
        "ours_s": ours,
        "lightning_lean_s": theirs[True],
        "lightning_dataloader_s": theirs[False],
        "ratio_lean": theirs[True] / ours,
        "ratio_dataloader": theirs[False] / ours,
        "gflops": rate,
        **{f"peak_{str(dtype).removeprefix('torch.')}_gflops": peak for dtype, peak in peaks.items()},
        "share_of_peak": share,
        "memory_gib": memory,
        "auroc": ours_auroc,
        "lightning_auroc": float(auroc(torch.sigmoid(torch.stack(scores)), test_y).mean()),
    }
    what = f"{len(plans)} MLP heads, {OPTIMIZER.steps} steps (D = {DIM})"
    for name, key in (("lean loader", "lean"), ("DataLoader", "dataloader")):
        other, seconds, ratio = f"Lightning, {name}", figures[f"lightning_{key}_s"], figures[f"ratio_{key}"]
        print(f"{what:<58} {ours:8.2f} s   {other:<40} {seconds:8.2f} s   {ratio:5.1f}×")
    print(
        f"  {rate:.0f} GF/s, {share:.0%} of the peak "
        f"({', '.join(f'{peak:.0f} {dtype}' for dtype, peak in peaks.items())}), {memory:.2f} GiB at most; "
        f"mean AUROC {ours_auroc:.3f}, Lightning's {figures['lightning_auroc']:.3f}",
        flush=True,
    )
    return figures


if __name__ == "__main__":
    torch.set_num_threads(2)
    bench_mlp()
