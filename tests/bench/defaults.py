"""The study behind the defaults of head and loss; its protocol and findings are in `docs/pages/defaults.md`.

Run: python -m tests.bench.defaults [penalty|loss|heads ...]     (real data in $GUARDTRAIN_DATA; minutes to an hour)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from sklearn.metrics import roc_auc_score

from guardtrain.commands.data import load_pools
from guardtrain.config import CurveConfig, conf_dir, register_schemas
from guardtrain.config_checks import build, typed
from guardtrain.curves.engine import make_mixer, run_plan, score_tests
from guardtrain.heads import LinearBank
from guardtrain.metrics import record_pairs
from guardtrain.mixtures import Mixture
from guardtrain.training.batches import RunPlan
from guardtrain.training.fit import fit_bank
from guardtrain.training.fitted import FittedBank
from guardtrain.training.pools import Pools
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.selection import Candidates
from guardtrain.training.settings import (
    LossSettings,
    OptimizerSettings,
    PairSettings,
    SelectionSettings,
    TrainerSettings,
)

STRENGTHS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4]
WIDE = [0.1, 1.0, 10.0, 100.0, 1e3, 1e4]
SEEDS = 5
QUIET = TrainerSettings(accelerator="cpu", progress=False)
OFFSET = PairSettings(mass=0.6667, offset=30.0)
LOSSES = {
    "bce": PairSettings(),
    "mass": PairSettings(mass=0.6667),
    "mass + offset": OFFSET,
    "mass + offset + centring": replace(OFFSET, centring=0.5),
}
FOOD = [
    "data=cars",
    "data.name=food",
    "data.real.path=${data_dir}/food101/food101_10class_clip_vitb32.npz",
    "data.real.features=train_features",
    "data.real.label=train_labels",
    "data.real.category=null",
    "~data.real.labels",
    "+data.real.labels={apple_pie: 0, french_fries: 0, guacamole: 0, hamburger: 0, ice_cream: 0, "
    "omelette: 1, paella: 1, pizza: 1, sushi: 1, tacos: 1}",
]


@dataclass(frozen=True)
class Bed:
    """One data set of the study: the overrides that load it, its budgets, and the mixtures that are trained."""

    overrides: tuple[str, ...]
    budgets: tuple[int, ...]
    mixtures: tuple[tuple[float, str], ...] = ((0.0, "replace"),)


BEDS = {
    "scenes": Bed((), (64, 128, 256, 512, 1024, 2048), ((0.0, "replace"), (0.25, "replace"))),
    "fire": Bed(("experiment=fire",), (64, 128, 256, 448)),
    "cars": Bed(("data=cars", "encoder=precomputed"), (64, 128, 256, 448)),
    "food": Bed((*FOOD, "encoder=precomputed"), (64, 128, 256, 512, 1024)),
    "masks": Bed(
        ("data=masks", "encoder=precomputed", "+data.test.in_domain={hold_out: real, fraction: 0.3}"),
        (64, 128, 256, 400),
        ((0.0, "replace"), (0.25, "replace")),
    ),
}
FEW_PAIRS = ((0.025, "add"), (0.05, "add"), (0.1, "add"), (0.2, "add"))  # 5, 10, 20 and 40 pairs at n = 400


@dataclass(frozen=True)
class Point:
    """Runs of one budget and mixture, a run a seed."""

    budget: int
    ratio: float
    arm: str
    mixtures: tuple[Mixture, ...]

    @property
    def name(self) -> str:
        return f"ρ {self.ratio:g} {self.arm:<7} n {self.budget:>4}"


def load(bed: Bed) -> tuple[Pools, Any]:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("curve", overrides=["hydra.run.dir=.", *bed.overrides], return_hydra_config=False)
    settings = typed(config, CurveConfig)
    return load_pools(settings, lambda text: None), settings


def points(pools: Pools, bed: Bed) -> list[Point]:
    mixer = make_mixer(pools)
    return [
        Point(n, ratio, arm, tuple(mixer.mix(budget=n, ratio=ratio, arm=arm, seed=seed) for seed in range(SEEDS)))
        for ratio, arm in bed.mixtures
        for n in bed.budgets
        if not mixer.supply.lacks(n, ratio, arm)
    ]


def linear(loss: PairSettings, **selection: Any) -> TrainingRecipe:
    from guardtrain.heads import LinearHead

    chosen = SelectionSettings("cross_validation", **selection) if selection else SelectionSettings()
    return TrainingRecipe(LinearHead(), LossSettings(pairs=loss), OptimizerSettings(), chosen, QUIET)


def trained(
    pools: Pools, runs: Sequence[Mixture], recipe: TrainingRecipe, l2: float | None = None
) -> tuple[FittedBank, list[RunPlan], torch.Tensor]:
    drawn, mixer = pools.drawn(runs), make_mixer(pools)
    plans = [run_plan(pools, mixer, mixture, recipe, drawn) for mixture in runs]
    x, y = torch.from_numpy(drawn.matrix), torch.from_numpy(drawn.labels)
    hyper = None
    if l2 is not None:
        count = len(plans)
        hyper = Candidates(torch.full((count,), 0.003), torch.full((count,), l2), torch.full((count,), recipe.steps))
    return fit_bank(recipe, x, y, plans, hyper=hyper), plans, x


def measures(fitted: FittedBank, pools: Pools) -> dict[str, np.ndarray]:
    """AUROC of each head on each test set, and where there are pairs the share of both sides right at .5."""
    found = {}
    for test, scores in score_tests(fitted, pools).items():
        records, logits = pools.tests[test].records, scores.ranked
        found[test] = np.array([roc_auc_score(records.labels, row) for row in logits])
        safe, unsafe = record_pairs(records)
        if len(safe):
            found[f"{test}, both right"] = ((logits[:, safe] < 0) & (logits[:, unsafe] >= 0)).mean(1)
    return found


def evidences(
    fitted: FittedBank, plans: Sequence[RunPlan], x: torch.Tensor, labels: np.ndarray, l2: float
) -> np.ndarray:
    """Laplace's log marginal likelihood of each linear head, classes weighed as in training; `(R,)`.

    Σ w·log-likelihood - l2/2·‖v‖² - ½·log det(I + W^½ Z Zᵀ W^½ / l2), with Z the standardised images, v the weights on
    them, and W the curvatures w·p(1 - p).
    """
    bank = fitted.bank
    assert isinstance(bank, LinearBank)
    out = []
    for r, plan in enumerate(plans):
        z = ((x[plan.train] - bank.input_mean[r]) / bank.input_scale[r]).double().numpy()
        v, bias = bank.weight[r, :, 0].detach().double().numpy(), float(bank.bias[r, 0].detach())
        logits, y = z @ v + bias, labels[plan.train]
        mass = len(y) / (2 * np.bincount(y, minlength=2)[y])
        p = 1 / (1 + np.exp(-logits))
        root = np.sqrt(mass * p * (1 - p))[:, None] * z
        gram = root @ root.T if root.shape[0] <= root.shape[1] else root.T @ root
        _, volume = np.linalg.slogdet(np.eye(len(gram)) + gram / l2)
        fit = -(mass * np.logaddexp(0, np.where(y == 1, -logits, logits))).sum()
        out.append(fit - l2 / 2 * (v @ v) - volume / 2)
    return np.array(out)


def penalty() -> Iterator[str]:
    """Question 1."""
    rules = {
        "cv to 100": {"l2": [0.1, 1.0, 10.0, 100.0]},
        "cv to 1e4": {"l2": WIDE},
        "one standard error": {"l2": WIDE, "rule": "one_standard_error"},
    }
    short: dict[str, dict[str, list[float]]] = {}
    seconds: dict[str, float] = dict.fromkeys(["fixed", *rules, "evidence"], 0.0)
    for name, bed in BEDS.items():
        pools, _ = load(bed)
        grid = points(pools, bed)
        runs = [mixture for point in grid for mixture in point.mixtures]
        by_strength, evidence = [], []
        for l2 in STRENGTHS:
            started = time.perf_counter()
            fitted, plans, x = trained(pools, runs, linear(OFFSET), l2)
            evidence.append(evidences(fitted, plans, x, pools.drawn(runs).labels, l2))
            seconds["evidence"] += time.perf_counter() - started
            by_strength.append(measures(fitted, pools))
        best = np.argmax(evidence, axis=0)
        found = {}
        for rule, selection in {"fixed": {}, **rules}.items():
            started = time.perf_counter()
            fitted, _, _ = trained(pools, runs, linear(OFFSET, **selection))
            seconds[rule] += time.perf_counter() - started
            found[rule] = (measures(fitted, pools), fitted.l2)
        tests = [test for test in by_strength[0] if "both" not in test]
        columns = np.arange(len(runs))
        of_evidence = {t: np.stack([m[t] for m in by_strength])[best, columns] for t in tests}
        found["evidence"] = (of_evidence, np.array(STRENGTHS)[best])
        for number, point in enumerate(grid):
            own = slice(number * SEEDS, (number + 1) * SEEDS)
            for test in tests:
                oracle = max(float(m[test][own].mean()) for m in by_strength)
                at = STRENGTHS[int(np.argmax([m[test][own].mean() for m in by_strength]))]
                parts = []
                for rule, (values, l2) in found.items():
                    lack = oracle - float(values[test][own].mean())
                    parts.append(f"{rule} {lack:+.4f} (l2 {np.median(l2[own]):g})")
                    kind = "counterfactual" if test == "counterfactual" else "in domain"
                    short.setdefault(rule, {}).setdefault(kind, []).append(lack)
                yield f"{name:<7} {point.name} {test:<15} best {oracle:.4f} at {at:g}; short of it: {'; '.join(parts)}"
    for rule, kinds in short.items():
        told = ", ".join(f"{kind}: largest {max(v):.4f}, mean {np.mean(v):.4f}" for kind, v in kinds.items())
        yield f"{rule:<20} {told}; {seconds[rule]:.0f} s"


def loss() -> Iterator[str]:
    """Question 2."""
    beds = {"scenes": replace(BEDS["scenes"], mixtures=((0.25, "replace"),))}
    beds["masks"] = replace(BEDS["masks"], budgets=(400,), mixtures=FEW_PAIRS)
    for name, bed in beds.items():
        pools, _ = load(bed)
        grid = points(pools, bed)
        runs = [mixture for point in grid for mixture in point.mixtures]
        for title, pairs in LOSSES.items():
            started = time.perf_counter()
            fitted, _, _ = trained(pools, runs, linear(pairs))
            seconds = time.perf_counter() - started
            values = measures(fitted, pools)
            for number, point in enumerate(grid):
                own = slice(number * SEEDS, (number + 1) * SEEDS)
                told = ", ".join(f"{test} {value[own].mean():.4f}" for test, value in values.items())
                yield f"{name:<7} {point.name} {title:<25} {told}"
            yield f"{name:<7} {title:<25} {seconds:.1f} s for {len(runs)} heads"


def heads() -> Iterator[str]:
    """Question 3, and beside it what heads make of a quarter of pairs."""
    for name, bed in BEDS.items():
        pools, _ = load(bed)
        kept = replace(bed, budgets=tuple(n for n in bed.budgets if n in (64, 256, 1024)))
        for point in points(pools, kept):
            for head, pairs in (("linear", OFFSET), ("mlp", replace(OFFSET, gradient=None)), ("knn", PairSettings())):
                register_schemas()
                with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                    node = compose("curve", overrides=[f"head={head}"]).head
                recipe = TrainingRecipe(
                    build(node, "head"), LossSettings(pairs=pairs), OptimizerSettings(), SelectionSettings(), QUIET
                )
                fitted, _, _ = trained(pools, point.mixtures, recipe)
                told = ", ".join(
                    f"{test} {v.mean():.3f} ± {v.std(ddof=1) / len(v) ** 0.5:.3f}"
                    for test, v in measures(fitted, pools).items()
                )
                yield f"{name:<7} {point.name} {head:<7} {told}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = {"penalty": penalty, "loss": loss, "heads": heads}
    for part in sys.argv[1:] or parts:
        for line in parts[part]():
            print(line, flush=True)
