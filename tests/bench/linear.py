"""Linear heads: a curve's grid as one program beside the best scikit-learn script, and a loop of Lightning fits."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
    roc_curve,
)
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from guardtrain.heads import LinearHead
from guardtrain.metrics import sliced_guard_metrics
from guardtrain.mixtures import Mixer, Pool
from guardtrain.training.batches import RunPlan
from guardtrain.training.fit import fit_bank
from guardtrain.training.fitted import FittedBank
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

DIM, POOL, TEST = 768, 4096, 2000
BUDGETS = (16, 32, 64, 128, 256, 512, 1024, 2048)
RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEDS, FOLDS = 10, 5
ADAMW_STEPS = 300  # of a Lightning fit as most people write it
# l2 on standardised inputs; on embeddings of unit norm scikit-learn's C = 1 is l2 = D, C = 0.01 is l2 = 100 D
STRENGTHS = [float(f"{value:.4g}") for value in np.logspace(0, 4.5, 10)]
METRICS = 7  # AUROC, average precision, F1, accuracy, recall at 5 % false positives, Brier score, calibration error


@dataclass(frozen=True)
class Grid:
    """Embeddings with the spectrum of CLIP's (variances fall as 1 / rank), unit norm; real images are confounded."""

    x: np.ndarray
    y: np.ndarray
    plans: list[RunPlan]
    test_x: np.ndarray
    test_y: np.ndarray


def make_grid(dim: int = DIM, seeds: int = SEEDS, budgets: Sequence[int] = BUDGETS, folds: int = 0) -> Grid:
    """The grid's embeddings and runs."""
    g = np.random.default_rng(0)
    spread = (1 + np.arange(dim)) ** -0.5
    rotation, _ = np.linalg.qr(g.standard_normal((dim, dim)))
    direction, context = g.standard_normal(dim), g.standard_normal(dim) * spread

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        z = g.standard_normal((n, dim)) * spread
        score = z @ direction
        return z, (g.random(n) < 1 / (1 + np.exp(-2.2 * score / score.std()))).astype(int)

    real, real_y = draw(POOL)
    real += 0.3 * (2 * real_y - 1)[:, None] * context
    base, _ = draw(POOL // 2)
    step = direction * spread**2
    step *= 0.8 / np.linalg.norm(step)
    pairs = np.stack([base - step, base + step + 0.3 * g.standard_normal(base.shape) * spread], 1).reshape(POOL, dim)
    test_x, test_y = draw(TEST)
    shift = 0.5 * g.standard_normal(dim)

    def embed(z: np.ndarray) -> np.ndarray:
        out = z @ rotation + shift
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)

    pair_y = np.tile([0, 1], POOL // 2)
    mixer = Mixer(
        Pool(ids=np.array([f"r{i}" for i in range(POOL)]), labels=real_y),
        Pool(
            ids=np.array([f"p{i}" for i in range(POOL)]),
            labels=pair_y,
            pair_ids=np.array([f"q{i // 2}" for i in range(POOL)]),
            groups=np.array([f"q{i // 2}" for i in range(POOL)]),
            name="pairs",
        ),
    )
    plans = []
    for seed in range(seeds):
        for budget in budgets:
            for ratio in RATIOS:
                mixture = mixer.mix(budget=budget, ratio=ratio, seed=seed)
                rows = np.concatenate([mixture.real, mixture.pairs + POOL])
                chosen = mixer.folds(mixture, folds) if folds and min(budget, mixture.n_images) >= 32 else None
                plans.append(RunPlan(rows, seed, folds=chosen, split=mixture.n_real))
    x = np.concatenate([embed(real), embed(pairs)])
    return Grid(x, np.concatenate([real_y, pair_y]), plans, embed(test_x), test_y)


def fit_ours(grid: Grid, l2: float | None, selection: SelectionSettings | None = None) -> FittedBank:
    """All heads of the grid; `l2` in scikit-learn's 1 / C on standardised inputs."""
    recipe = TrainingRecipe(
        LinearHead(),
        LossSettings(l2=l2),
        OptimizerSettings(tolerance=1e-4),
        selection or SelectionSettings(),
        TrainerSettings(accelerator="cpu", progress=False),
    )
    return fit_bank(recipe, torch.from_numpy(grid.x), torch.from_numpy(grid.y), grid.plans, memory_gb=2.0)


def score_ours(grid: Grid, fitted: FittedBank) -> int:
    """All metrics of all heads; how many."""
    none = torch.zeros(0, dtype=torch.int64)
    probabilities = fitted.probabilities(torch.from_numpy(grid.test_x))
    slices = {("all", "all"): np.ones(TEST, dtype=bool)}
    found = sliced_guard_metrics(probabilities, torch.from_numpy(grid.test_y), (none, none), slices, fpr=0.05)
    return len(found["all", "all"])


def standardised(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows as a head sees them, and the mean and scale that make them."""
    mean = x.mean(0)
    scale = float(np.sqrt(np.square(x - mean).mean()))
    return (x - mean) / scale, mean, scale


def fit_theirs(grid: Grid, rows: np.ndarray, l2: float, score: bool) -> tuple[np.ndarray, float]:
    """One scikit-learn fit, in float32 (the faster), and its metrics; weights and intercept."""
    with threadpool_limits(1):
        x, mean, scale = standardised(grid.x[rows])
        model = LogisticRegression(C=1 / l2, class_weight="balanced", max_iter=1000).fit(x, grid.y[rows])
        if score:
            y, p = grid.test_y, model.predict_proba((grid.test_x - mean) / scale)[:, 1]
            roc_auc_score(y, p), average_precision_score(y, p), brier_score_loss(y, p)
            f1_score(y, p > 0.5), accuracy_score(y, p > 0.5)
            fpr, tpr, _ = roc_curve(y, p)
            np.interp(0.05, fpr, tpr)
            place = np.minimum((p * 15).astype(int), 14)
            np.abs(np.bincount(place, p - y, 15)).sum() / len(y)
        return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def objective(grid: Grid, rows: np.ndarray, l2: float, weight: np.ndarray, bias: float) -> float:
    """What both minimise, in float64."""
    x, _, _ = standardised(grid.x[rows].astype(np.float64))
    y = grid.y[rows]
    mass = (len(y) / (2 * np.bincount(y, minlength=2)))[y]
    margin = np.where(y == 1, -1, 1) * (x @ weight + bias)
    return float((mass * np.logaddexp(0, margin)).mean() + l2 / (2 * len(y)) * weight @ weight)


class SingleLinear(L.LightningModule):
    """The same head as people train one alone: AdamW on batches, or torch's L-BFGS on all its images."""

    def __init__(self, l2: float, n: int, adamw: bool) -> None:
        super().__init__()
        self.layer, self.penalty, self.adamw = nn.Linear(DIM, 1), l2 / (2 * n), adamw

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y, weight = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self.layer(x).squeeze(-1), y, weight=weight)
        return loss + self.penalty * self.layer.weight.square().sum()

    def configure_optimizers(self) -> Any:
        if not self.adamw:
            return torch.optim.LBFGS(self.parameters(), max_iter=20, line_search_fn="strong_wolfe")
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.003, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ADAMW_STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_lightning(grid: Grid, rows: np.ndarray, l2: float, adamw: bool) -> tuple[np.ndarray, float]:
    """One Lightning fit; weights and intercept.

    With `adamw` as most people write it: a DataLoader's shuffled batches of 128, 300 steps. Without, the quickest we
    could write: five steps of up to twenty L-BFGS iterations on one tensor, no loader.
    """
    x, _, _ = standardised(grid.x[rows])
    y = grid.y[rows]
    weight = (len(y) / (2 * np.bincount(y, minlength=2)))[y]
    batch = (torch.from_numpy(x), torch.from_numpy(y).float(), torch.from_numpy(weight).float())
    loader: Any = torch.utils.data.DataLoader([batch] * 5, batch_size=None)
    if adamw:
        dataset = torch.utils.data.TensorDataset(*batch)
        loader = torch.utils.data.DataLoader(dataset, batch_size=128, shuffle=True)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=ADAMW_STEPS if adamw else 5,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = SingleLinear(l2, len(y), adamw)
    trainer.fit(module, loader)
    return module.layer.weight[0].detach().double().numpy(), float(module.layer.bias)


def bench_linear(report: Callable[[str, float, str, float], None]) -> dict[str, float]:
    """400 heads at three strengths, 20,000 fits with cross-validation, and how the time grows; figures by name."""
    figures: dict[str, float] = {}
    grid = make_grid()
    fit_ours(Grid(grid.x, grid.y, grid.plans[:80], grid.test_x, grid.test_y), 1.0)  # first calls
    with Parallel(n_jobs=2, max_nbytes="1M") as pool:
        pool(delayed(math.sqrt)(i) for i in range(4))  # the workers start
        pool(delayed(fit_theirs)(grid, plan.train, 1e3, True) for plan in grid.plans[:4])
        for name, l2 in (("C=0.01", 100.0 * DIM), ("C=1", 1.0 * DIM), ("l2=1", 1.0)):
            started = time.perf_counter()
            fitted = fit_ours(grid, l2)
            score_ours(grid, fitted)
            ours = time.perf_counter() - started
            started = time.perf_counter()
            theirs = pool(delayed(fit_theirs)(grid, plan.train, l2, True) for plan in grid.plans)
            seconds = time.perf_counter() - started
            report(f"{len(grid.plans)} linear heads with metrics, {name}", ours, "scikit-learn, 2 processes", seconds)
            excess = []
            for r in range(0, len(grid.plans), 7):
                rows, bank = grid.plans[r].train, fitted.bank
                mine = (bank.weight[r, :, 0].detach().double().numpy(), float(bank.bias[r, 0]))
                excess.append(objective(grid, rows, l2, *mine) / objective(grid, rows, l2, *theirs[r]) - 1)
            figures |= {
                f"linear400_{name}_ours_s": ours,
                f"linear400_{name}_training_s": fitted.seconds,
                f"linear400_{name}_sklearn_s": seconds,
                f"linear400_{name}_ratio": seconds / ours,
                f"linear400_{name}_objective_excess": max(excess),
            }
            print(f"  training alone {fitted.seconds:.2f} s; objective over scikit-learn's: at most {max(excess):+.1e}")
        few = grid.plans[: len(RATIOS) * len(BUDGETS) : len(RATIOS)]  # one of each budget
        ours = figures["linear400_C=1_ours_s"]
        for name, adamw in (("L-BFGS, no loader", False), (f"AdamW, DataLoader, {ADAMW_STEPS} steps", True)):
            started = time.perf_counter()
            found = [fit_lightning(grid, plan.train, 1.0 * DIM, adamw) for plan in few]
            loop = (time.perf_counter() - started) * len(grid.plans) / len(few)
            report("400 linear heads with metrics, C=1", ours, f"Lightning, {name}", loop)
            excess = [
                objective(grid, plan.train, DIM, *one) / objective(grid, plan.train, DIM, *best) - 1
                for plan, one in zip(few, found, strict=True)
                for best in [fit_theirs(grid, plan.train, 1.0 * DIM, False)]
            ]
            print(f"  one by one, {len(few)} fits, scaled; objective over scikit-learn's: at most {max(excess):+.1e}")
            key = "adamw" if adamw else "lbfgs"
            figures |= {f"linear400_lightning_{key}_s": loop, f"linear400_lightning_{key}_ratio": loop / ours}

        folded = make_grid(folds=FOLDS)
        selection = SelectionSettings("cross_validation", folds=FOLDS, smallest=32, l2=STRENGTHS)
        started = time.perf_counter()
        fit_ours(folded, None, selection)
        ours = time.perf_counter() - started
        jobs = [
            (plan.train[plan.folds != fold], l2)
            for plan in folded.plans
            if plan.folds is not None
            for fold in range(FOLDS)
            for l2 in STRENGTHS
        ]
        sample = jobs[::11]  # prime to folds and strengths: every kind of fit comes up
        started = time.perf_counter()
        pool(delayed(fit_theirs)(folded, rows, l2, False) for rows, l2 in sample)
        seconds = (time.perf_counter() - started) * len(jobs) / len(sample)
        report(
            f"{len(jobs):,} fits: 10 penalties × 5 folds, and the heads",
            ours,
            "scikit-learn (1 in 11, scaled)",
            seconds,
        )
        figures |= {"cv_fits": len(jobs), "cv_ours_s": ours, "cv_sklearn_s": seconds, "cv_ratio": seconds / ours}
    figures["linear_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  {figures['linear_memory_gib']:.2f} GiB at most", flush=True)
    figures |= _growth()
    return figures


def _growth() -> dict[str, float]:
    """Exponents of time over seeds, largest budget and dimension."""
    axes: dict[str, list[tuple[float, Grid]]] = {
        "seeds": [(s, make_grid(seeds=s)) for s in (5, 10, 20, 40)],
        "largest budget": [(b, make_grid(budgets=BUDGETS[: BUDGETS.index(b) + 1])) for b in (256, 512, 1024, 2048)],
        "dimension": [(d, make_grid(dim=d)) for d in (192, 384, 768, 1536)],
    }
    figures = {}
    for name, grids in axes.items():
        times = []
        for _, grid in grids:
            fit_ours(grid, float(grid.x.shape[1]))
            times.append(min(fit_ours(grid, float(grid.x.shape[1])).seconds for _ in range(3)))
        slope = float(np.polyfit(np.log([value for value, _ in grids]), np.log(times), 1)[0])
        shown = ", ".join(f"{value:g}: {seconds:.2f} s" for (value, _), seconds in zip(grids, times, strict=True))
        print(f"  time grows as {name}^{slope:.2f} ({shown})", flush=True)
        figures[f"exponent_{name.replace(' ', '_')}"] = slope
    return figures
