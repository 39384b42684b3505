"""Guards: calibration and promised rates over random splits of real and drawn images into validation and test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from guardtrain.api.recipe import build_recipe
from guardtrain.commands.data import load_pools
from guardtrain.config import TrainConfig, conf_dir, register_schemas
from guardtrain.config_checks import typed
from guardtrain.curves.engine import make_mixer, run_plan
from guardtrain.curves.grid import GridPoint
from guardtrain.guards.calibration import Identity
from guardtrain.guards.calibration_choice import choose_calibration
from guardtrain.guards.conformal import three_way
from guardtrain.guards.operating_points import REVIEW, SAFE, UNSAFE
from guardtrain.guards.reliability import reliability
from guardtrain.guards.thresholds import operating_point
from guardtrain.guards.thresholds_rules import Rule
from guardtrain.training.fit import fit_bank

SPLITS, HEADS = 500, 10  # splits in all, and heads they are shared among
CALIBRATED = 100  # of the splits
DATA = Path(os.environ.get("GUARDTRAIN_DATA", Path(__file__).parents[3] / "shared" / "data"))
RULES = {
    "fpr 5 %": Rule("fpr", 0.05, "point"),
    "fpr 1 %": Rule("fpr", 0.01, "point"),
    "fpr 5 %, conformal": Rule("fpr", 0.05, "conformal"),
    "fpr 5 %, guaranteed": Rule("fpr", 0.05, "guaranteed"),
    "recall 90 %": Rule("recall", 0.9, "point"),
}


@dataclass(frozen=True)
class Images:
    """Logits of R heads (R, N) on images they were not trained on, which R masks (R, N) tell."""

    logits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    unseen: np.ndarray

    def splits(self, n: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """`n` times the logits of one head with the rows of validation and of test: halves, groups whole."""
        for number in range(n):
            g, r = np.random.default_rng([7, number]), number % len(self.logits)
            names = np.unique(self.groups[self.unseen[r]])
            chosen = np.isin(self.groups, g.permutation(names)[: len(names) // 2])
            yield self.logits[r], np.flatnonzero(chosen & self.unseen[r]), np.flatnonzero(~chosen & self.unseen[r])


def fitted_images(overrides: list[str]) -> dict[str, Images]:
    """`HEADS` heads trained as `guardtrain train OVERRIDES` does, one a seed, on each test set.

    Images of the real pool that a head was not trained on are of the test set where that is held out of the pool.
    """
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settings = typed(compose("train", [f"data_dir={DATA}", "trainer.progress=false", *overrides]), TrainConfig)
    pools, recipe, mix = load_pools(settings, lambda _: None), build_recipe(settings), settings.mixture
    mixer = make_mixer(pools)
    points = [
        GridPoint(seed, mix.budget, mix.ratio, mix.arm, mix.control if mix.ratio else "none") for seed in range(HEADS)
    ]
    plans = [run_plan(pools, mixer, point.mixture(mixer, mix.rounding), recipe) for point in points]
    fitted = fit_bank(recipe, torch.from_numpy(pools.matrix), torch.from_numpy(pools.labels), plans, memory_gb=2.0)
    out = {}
    for name, part in pools.tests.items():
        x, labels, groups = np.asarray(part.matrix, dtype=np.float32), part.records.labels, part.records.groups
        unseen = np.ones((HEADS, len(x)), dtype=bool)
        if name == "held_out":
            real = pools.real.records
            x, labels = np.concatenate([x, pools.real.matrix]), np.concatenate([labels, real.labels])
            groups, unseen = np.concatenate([groups, real.groups]), np.ones((HEADS, len(x)), dtype=bool)
            for r, plan in enumerate(plans):
                unseen[r, len(part.records) + plan.train] = False
        with torch.inference_mode():
            logits = torch.cat([bank(torch.from_numpy(np.array(x, dtype=np.float32))) for bank in fitted.banks])
        out[name] = Images(logits.double().numpy(), labels.astype(np.int64), groups.astype(str), unseen)
    return out


def calibration_figures(images: Images) -> dict[str, float]:
    """ECE on test before and after calibration on validation, over splits."""
    rows, kinds = [], Counter[str]()
    for logits, val, test in images.splits(CALIBRATED):
        found = choose_calibration(logits[val], images.labels[val], groups=images.groups[val], replicates=2)
        kinds[found.calibrator.kind] += 1
        y, groups = images.labels[test], images.groups[test]
        before = reliability(Identity().probabilities(logits[test]), y, groups, replicates=200)
        after = reliability(found.calibrator.probabilities(logits[test]), y, groups, replicates=200)
        halved, noise = after.ece.value <= before.ece.value / 2, after.ece.low == 0
        measured = before.ece_measured, after.ece_measured
        same = (before.ece.value, after.ece.value, *measured, halved, noise, halved or noise)
        rows.append((*same, before.brier.value, after.brier.value, before.log_loss.value, after.log_loss.value))
    means = np.mean(np.array(rows, dtype=np.float64), axis=0)
    print("  chosen: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()), flush=True)
    names = (
        "ece_before",
        "ece_after",
        "measured_before",
        "measured_after",
        "halved",
        "within_noise",
        "halved_or_within_noise",
    )
    scores = ("brier_before", "brier_after", "log_loss_before", "log_loss_after")
    return dict(zip((*names, *scores), means.tolist(), strict=True))


def promise_figures(images: Images) -> dict[str, float]:
    """How often the rates realised on test lie in the interval promised for so many images; and in others."""
    figures: dict[str, float] = {}
    for name, rule in RULES.items():
        rows = []
        for logits, val, test in images.splits(SPLITS):
            point = operating_point(logits[val], images.labels[val], rule, groups=images.groups[val])
            called, y = point.decide(logits[test]), images.labels[test]
            fpr, recall = (float((called[y == label] == UNSAFE).mean()) for label in (0, 1))
            promised = [
                low <= rate <= high
                for rate, (low, high) in (
                    (fpr, point.fpr.expected(int((y == 0).sum()))),
                    (recall, point.recall.expected(int((y == 1).sum()))),
                )
            ]
            rows.append((fpr, recall, *promised, point.fpr.low <= fpr <= point.fpr.high))
        means = np.mean(np.array(rows, dtype=np.float64), axis=0)
        for key, value in zip(
            ("fpr", "recall", "fpr_inside", "recall_inside", "fpr_in_population"), means, strict=True
        ):
            figures[f"{name}_{key}"] = float(value)
        print(
            f"  {name:<20} fpr {means[0]:.3f}, recall {means[1]:.3f}; inside the promise: fpr {means[2]:.1%}, recall "
            f"{means[3]:.1%}; fpr inside the population's interval {means[4]:.1%}",
            flush=True,
        )
    rows = []
    for logits, val, test in images.splits(SPLITS):
        point3 = three_way(logits[val], images.labels[val], groups=images.groups[val])
        called, y = point3.decide(logits[test]), images.labels[test]
        rows.append(((called[y == 0] == UNSAFE).mean(), (called[y == 1] == SAFE).mean(), (called == REVIEW).mean()))
    means = np.mean(rows, axis=0)
    print(
        f"  three ways (conformal)  safe called unsafe {means[0]:.3f}, unsafe called safe {means[1]:.3f}, review "
        f"{means[2]:.3f}",
        flush=True,
    )
    return figures | dict(
        zip(("three_way_alarms", "three_way_misses", "three_way_review"), means.tolist(), strict=True)
    )


def bench_guards(report: Callable[..., None]) -> dict[str, float]:
    """Calibration and promises on fire (where the data is) and on scenes; figures by name."""
    studies = {"scenes": ["mixture.budget=512"]}
    if DATA.is_dir():
        studies = {"fire": ["data=fire", "encoder=mobilenetv2", "mixture.budget=256", "mixture.ratio=0"]} | studies
    figures: dict[str, float] = {}
    for study, overrides in studies.items():
        for test, images in fitted_images(overrides).items():
            name = f"{study} {test}"
            print(f"{name}: {int(images.unseen[0].sum())} images a head, {SPLITS} splits into halves", flush=True)
            found = calibration_figures(images) | promise_figures(images)
            ece, brier = (
                [100 * found[f"{score}_{when}"] for when in ("after", "before")] for score in ("ece", "brier")
            )
            measured = [100 * found[f"measured_{when}"] for when in ("after", "before")]
            inside = [100 * found[f"fpr 5 %_{key}"] for key in ("fpr_inside", "fpr_in_population")]
            report(f"{name}: ECE on test without chance, calibrated", ece[0], "before", ece[1], "%")
            report(f"{name}: the same as measured", measured[0], "before", measured[1], "%")
            report(f"{name}: Brier score on test, calibrated", brier[0], "before", brier[1], "%")
            report(f"{name}: fpr on test inside the promise", inside[0], "plain Clopper-Pearson", inside[1], "%")
            print(
                f"  of {CALIBRATED} splits ECE halved in {found['halved']:.0%}, within its noise in "
                f"{found['within_noise']:.0%}, either in {found['halved_or_within_noise']:.0%}",
                flush=True,
            )
            figures |= {f"{study}_{test}_{key}": value for key, value in found.items()}
    return figures
