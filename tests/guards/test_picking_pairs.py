"""A run is picked on both pools: no metric ships the one that learned the context, or a control that nobody named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from guardtrain.curves.engine import Run, make_mixer, plan_runs, run_curve
from guardtrain.curves.folder import RESULTS_FILE
from guardtrain.curves.grid import GridSettings
from guardtrain.curves.results import METRICS, ResultsTable
from guardtrain.curves.validation import ValidationScores, unseen
from guardtrain.embeddings import Embeddings
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.pick_values import Values, on_validation
from guardtrain.guards.picking import Picked, pick_run
from guardtrain.guards.settings import PickSettings
from guardtrain.heads import LinearHead
from guardtrain.records import Records
from guardtrain.training.pools import Pools, make_pools
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

GRID = GridSettings(budgets=[32, 128], ratios=[0.0, 0.25, 0.5], controls=["paired", "unpaired"], seeds=3)
DIM = 8


def _part(name: str, n: int, seed: int, *, confounded: bool) -> Embeddings:
    """The feature in column 0; the context in column 1, which gives the label away where they are confounded.

    Where they are not, rows 2j and 2j+1 are a pair: one context, and the feature alone differs.
    """
    g = np.random.default_rng(seed)
    label = np.arange(n) % 2
    x = g.normal(size=(n, DIM))
    if not confounded:
        x = np.repeat(x[::2], 2, axis=0) + 0.3 * g.normal(size=(n, DIM))
    side = 2 * label - 1 if confounded else np.repeat(g.choice([-1, 1], n // 2), 2)
    side = np.where(g.random(n) < 0.95, side, -side) if confounded else side
    x[:, 0] += 1.3 * (2 * label - 1)
    x[:, 1] += 4 * side
    columns: dict[str, Any] = {} if confounded else {"pair_id": [f"{name}{i // 2}" for i in range(n)]}
    records = Records.from_columns(id=[f"{name}-{i:04d}" for i in range(n)], label=label, **columns)
    return Embeddings(records, x.astype(np.float32), external_spec({"name": "toy"}, DIM))


@pytest.fixture(scope="module")
def pools() -> Pools:
    parts = {"real": _part("r", 800, 0, confounded=True), "pairs": _part("p", 800, 1, confounded=False)}
    tests = {"in_domain": _part("t", 400, 2, confounded=True), "counterfactual": _part("c", 600, 3, confounded=False)}
    return make_pools("toy", parts, tests, seed=0)


class Curve:
    """A finished curve, and what an independent reader finds of each run on the images that its seed did not see."""

    def __init__(self, folder: Path, pools: Pools, grid: GridSettings = GRID) -> None:
        self.folder, self.pools = folder, pools
        quiet = TrainerSettings(accelerator="cpu", progress=False)
        recipe = TrainingRecipe(LinearHead(), LossSettings(), OptimizerSettings(), SelectionSettings(), quiet)
        self.runs: dict[str, Run] = {run.key: run for run in plan_runs(pools, grid, {}, make_mixer(pools))}
        run_curve(pools, recipe, {}, grid, folder, say=lambda text: None)
        self.frame = ResultsTable(folder / RESULTS_FILE).read()
        self.store = ValidationScores(folder / "validation", pools)

    def pick(self, **given: Any) -> Picked:
        return pick_run(self.frame, self.pools, self.runs, self.folder, PickSettings(**given))

    @property
    def candidates(self) -> list[Run]:
        return [run for run in self.runs.values() if run.point.control in ("none", "paired")]

    def judged(self, run: Run, pool: str) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and labels of the images that no candidate saw."""
        records = self.store.parts[pool].records
        free = np.logical_and.reduce([unseen(self.pools, own.mixture, records) for own in self.candidates])
        return self.store.read(pool, [run.key]).probabilities[0][free], records.labels[free]

    def auroc(self, run: Run, pool: str) -> float:
        scores, labels = self.judged(run, pool)
        return float(roc_auc_score(labels, scores))

    def both_right(self, run: Run) -> tuple[float, int]:
        scores, labels = self.judged(run, "pairs")
        right = ((scores >= 0.5) == labels).reshape(-1, 2).all(axis=1)
        return float(right.mean()), len(right)


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory, pools: Pools) -> Curve:
    return Curve(tmp_path_factory.mktemp("curve"), pools)


def test_real_images_alone_would_pick_the_context(curve: Curve) -> None:
    """What the others are worth: by the real pool the best run is one without pairs, which is lost on them."""
    best = max(curve.candidates, key=lambda run: curve.auroc(run, "real"))
    assert best.point.ratio == 0
    assert curve.both_right(best)[0] < max(curve.both_right(run)[0] for run in curve.candidates) - 0.1


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_picks_a_run_that_is_right_on_pairs_within_noise_of_the_best(curve: Curve, metric: str) -> None:
    picked = curve.pick(metric=metric)
    run = curve.runs[picked.run]
    assert run.point.control == "paired"
    mine, n = curve.both_right(run)
    best = max(curve.both_right(other)[0] for other in curve.candidates)
    assert best - mine <= 2 * np.sqrt((mine * (1 - mine) + best * (1 - best)) / n)
    assert (picked.of, picked.controls, picked.behind) == (len(curve.candidates), 12, ())


@pytest.mark.parametrize("best", ["run", "setting"])
def test_of_equals_the_one_of_fewest_images_is_picked_in_whatever_order_they_ended(curve: Curve, best: str) -> None:
    """Every run has the same value here, and AUROCs too near to tell apart."""
    rows = curve.frame[(curve.frame["test"] == "in_domain") & (curve.frame["slice_kind"] == "all")]
    equal = rows.assign(f1=0.5, auroc=0.9)
    given = PickSettings(metric="f1", best=best, on="test", test="in_domain")
    for order in (equal, equal[::-1], equal.sample(frac=1, random_state=0)):
        run = curve.runs[pick_run(order, curve.pools, curve.runs, curve.folder, given).run]
        assert (run.point.budget, run.point.ratio, run.point.seed) == (32, 0, 0)


def test_the_value_is_the_mean_of_both_pools(curve: Curve) -> None:
    picked = curve.pick(metric="auroc")
    means = {run.key: (curve.auroc(run, "real") + curve.auroc(run, "pairs")) / 2 for run in curve.candidates}
    assert picked.run == max(means, key=means.__getitem__)
    assert picked.value == pytest.approx(means[picked.run])
    counts = [len(curve.judged(curve.candidates[0], pool)[1]) for pool in ("real", "pairs")]
    told = f"{counts[0]} validation images of the real pool and {counts[1]} of the pair pool"
    assert picked.on.startswith(f"both pools (the mean of the two), {told} that no run to pick from")


def test_a_metric_that_is_better_when_lower_chooses_among_those_near_the_best(curve: Curve) -> None:
    values, _ = on_validation(curve.pools, curve.candidates, curve.folder)
    keys = np.array([run.key for run in curve.candidates])
    mean = np.mean([one.metrics.loc[keys, ["auroc", "brier"]].to_numpy() for one in values], axis=0)
    error = np.sqrt(sum(one.errors**2 for one in values)) / 2
    top = mean[:, 0].argmax()
    near = mean[top, 0] - mean[:, 0] <= np.hypot(error, error[top])
    picked = curve.pick(metric="brier")
    assert 1 < picked.near == near.sum() < len(keys)
    assert picked.run == keys[near][mean[near, 1].argmin()]
    told = f"{near.sum()} of the {len(keys)} runs are compared by it, with an AUROC within a standard error of the best"
    assert f"  {told}" in picked.text.splitlines()
    assert f"{told}." in picked.notes


def test_the_error_of_an_auroc_is_how_much_it_varies_over_images() -> None:
    """Of scores with exponential tails, as Hanley and McNeil have it: against AUROCs of images drawn anew."""
    g = np.random.default_rng(0)
    safe, unsafe = g.exponential(size=(2000, 60)), 4 * g.exponential(size=(2000, 40))
    areas = (unsafe[:, :, None] > safe[:, None, :]).mean(axis=(1, 2))
    one = Values("here", pd.DataFrame({"auroc": [areas.mean()]}), np.array([[100, 40, 0]]))
    assert one.errors[0] == pytest.approx(areas.std(), rel=0.05)


def test_a_control_is_picked_where_it_is_named(curve: Curve) -> None:
    named = curve.pick(metric="auroc", control="unpaired")
    assert (curve.runs[named.run].point.control, named.of, named.controls) == ("unpaired", 12, 0)
    control = next(run.key for run in curve.runs.values() if run.point.control == "unpaired")
    assert curve.pick(run=control).run == control
    only = curve.frame[curve.frame["control"] == "unpaired"]
    with pytest.raises(ConfigError, match=r"12 runs left to pick from are controls \(unpaired\).*control=unpaired"):
        pick_run(only, curve.pools, curve.runs, curve.folder, PickSettings(metric="auroc"))


def test_it_is_shown_beside_the_best_and_loudly_where_it_is_far_behind_on_pairs(curve: Curve) -> None:
    picked = curve.pick(metric="auroc", on="test", test="in_domain", budget=128)
    rows = curve.frame[(curve.frame["slice_kind"] == "all") & curve.frame["control"].isin(["none", "paired"])]
    rows = rows[rows["budget"] == 128]
    of = rows[rows["test"] == "counterfactual"].set_index("run")["pair_both_right"]
    assert curve.runs[picked.run].point.ratio == 0
    (told,) = picked.behind
    assert f"both sides are right of {of[picked.run]:.3f}".replace("0.", ".") in told
    assert f"{of.max():.3f}".replace("0.", ".") in told
    assert f"pick.run={of.idxmax()}" in told
    assert f"! {told}" in picked.text.splitlines()
    assert told in picked.notes
    line = next(text for text in picked.beside if text.strip().startswith("Pairs with both sides right"))
    assert line.split()[5:7] == [f"{value:.3f}".removeprefix("0") for value in (of[picked.run], of.max())]


def test_pairs_that_every_run_saw_are_no_judge(tmp_path: Path) -> None:
    """The real pool alone never judges in the place of both."""
    parts = {"real": _part("r", 800, 0, confounded=True), "pairs": _part("p", 96, 1, confounded=False)}
    scarce = make_pools("toy", parts, {"t": _part("t", 60, 2, confounded=True)}, seed=0)
    few = Curve(tmp_path, scarce, replace(GRID, controls=["paired"]))
    with pytest.raises(DataError, match=r"images of the pair pool that no run .*pick\.ratio=.*split: val"):
        few.pick(metric="auroc")
    assert few.pick(metric="auroc", budget=32).of == 9
