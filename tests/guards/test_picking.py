"""Which run of a curve becomes a guard, on a toy curve whose largest runs leave nearly no image of the real pool."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from guardtrain.curves.engine import Run, make_mixer, plan_runs, run_curve
from guardtrain.curves.folder import RESULTS_FILE, VALIDATION_FOLDER
from guardtrain.curves.grid import GridSettings
from guardtrain.curves.results import ResultsTable
from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.curves.validation import ValidationScores
from guardtrain.embeddings import Embeddings
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.picking import Picked, pick_run
from guardtrain.guards.settings import PickSettings
from guardtrain.heads import LinearHead
from guardtrain.records import Records
from guardtrain.training.pools import Pools, make_pools
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

GRID = GridSettings(budgets=[8, 60, 112], ratios=[0.0, 0.5], controls=["paired"], seeds=4)


def part(n: int, prefix: str, pairs: bool = False, **columns: Any) -> Embeddings:
    labels = np.arange(n) % 2
    if pairs:
        columns["pair_id"] = [f"{prefix}{i // 2}" for i in range(n)]
    x = np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)
    x[:, 0] += 1.5 * labels
    records = Records.from_columns(id=[f"{prefix}-{i:03d}" for i in range(n)], label=labels, **columns)
    return Embeddings(records, x, external_spec({"name": "toy"}, 6))


def pools(**real: Any) -> Pools:
    return make_pools(
        "toy", {"real": part(120, "r", **real), "pairs": part(120, "p", True)}, {"t": part(40, "t")}, seed=0
    )


def recipe() -> TrainingRecipe:
    quiet = TrainerSettings(accelerator="cpu", progress=False)
    return TrainingRecipe(LinearHead(), LossSettings(), OptimizerSettings(steps=20), SelectionSettings(), quiet)


class Curve:
    """A finished curve, and what an independent reader finds in its folder."""

    def __init__(self, folder: Path, data: Pools, grid: GridSettings = GRID) -> None:
        self.folder, self.pools = folder, data
        self.runs: dict[str, Run] = {run.key: run for run in plan_runs(data, grid, {}, make_mixer(data))}
        run_curve(data, recipe(), {}, grid, folder, say=lambda text: None)
        self.frame: pd.DataFrame = ResultsTable(folder / RESULTS_FILE).read()

    def pick(self, **given: Any) -> Picked:
        return pick_run(self.frame, self.pools, self.runs, self.folder, PickSettings(**given))

    def scores(self, name: str) -> tuple[dict[str, np.ndarray], Records]:
        store = ScoresFolder(self.folder / VALIDATION_FOLDER)
        (test,) = (one for one in store.tests() if one.startswith(name))
        keys, scores, records = store.read(test)
        return dict(zip(keys.tolist(), scores.probabilities, strict=True)), records

    def unseen(self, records: Records, runs: list[Run]) -> np.ndarray:
        used: set[str] = set()
        for run in runs:
            used |= set(self.pools.real.records.ids[run.mixture.real]) | set(
                self.pools.pairs.records.pair_ids[run.mixture.pairs]
            )
        return np.array([group not in used for group in records.groups])


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    return Curve(tmp_path_factory.mktemp("curve"), pools())


@pytest.mark.parametrize(("budget", "apart"), [(8, False), (60, True)])
def test_the_best_run_on_images_of_both_pools_that_no_candidate_saw(curve: Curve, budget: int, apart: bool) -> None:
    picked = curve.pick(metric="auroc", budget=budget)
    runs = [run for run in curve.runs.values() if run.point.budget == budget]
    means = dict.fromkeys((run.key for run in runs), 0.0)
    sizes: dict[str, set[int]] = {"real": set(), "pairs": set()}
    for pool, counts in sizes.items():
        scores, records = curve.scores(pool)
        for run in runs:
            judges = [other for other in runs if not apart or other.point.seed == run.point.seed]
            mask = curve.unseen(records, judges)
            counts.add(int(mask.sum()))
            means[run.key] += roc_auc_score(records.labels[mask], scores[run.key][mask]) / 2
    assert picked.run == max(means, key=means.__getitem__)
    assert picked.value == pytest.approx(means[picked.run])
    assert picked.of == 8
    told = {name: f"{min(n)}" if len(n) == 1 else f"{min(n)} to {max(n)}" for name, n in sizes.items()}
    assert f"{told['real']} validation images of the real pool and {told['pairs']} of the pair pool" in picked.on
    assert ("of the same seed" in picked.on) == apart
    assert f"picked of 8 by auroc on {picked.on}: {picked.value:.3f}, which is better" in picked.notes[0]
    assert "test sets: they had no part in the choice" in picked.notes[0]


def test_pair_metrics_are_of_pairs_that_no_candidate_saw(curve: Curve) -> None:
    picked = curve.pick(metric="pair_both_right", budget=8, ratio=0.5)
    scores, records = curve.scores("pairs")
    runs = [run for run in curve.runs.values() if (run.point.budget, run.point.ratio) == (8, 0.5)]
    mask = curve.unseen(records, runs)
    assert 2 * 20 < mask.sum() < 120
    right = {run.key: ((scores[run.key] >= 0.5) == records.labels)[mask].reshape(-1, 2).all(1).mean() for run in runs}
    assert picked.value == pytest.approx(right[picked.run]) == pytest.approx(max(right.values()))


def test_the_best_by_another_set_may_be_a_run_that_the_judging_set_lacks(curve: Curve) -> None:
    (test,) = set(curve.frame["test"])
    absent = curve.frame["run"].iloc[-1]
    other = curve.frame.assign(test="other", auroc=0.5)
    other.loc[other["run"] == absent, "auroc"] = 1.0
    frame = pd.concat([curve.frame[curve.frame["run"] != absent], other], ignore_index=True)
    picked = pick_run(
        frame, curve.pools, curve.runs, curve.folder, PickSettings(metric="auroc", on="test", test=str(test))
    )
    assert picked.run != absent
    point = curve.runs[absent].point
    assert any(f"n {point.budget:,}, ρ {point.ratio:g}, seed {point.seed}" in line for line in picked.beside)


def test_what_is_seen_or_a_test_set_is_never_asked(curve: Curve) -> None:
    with pytest.raises(DataError, match=r"of seed 0 there are 4 and 4: .*pick\.budget=.*split: val.*pick\.on=test"):
        curve.pick(metric="auroc")
    ids = set(curve.scores("real")[1].ids) | set(curve.scores("pairs")[1].ids)
    assert len(ids) == 240
    assert not ids & set(curve.pools.tests["t"].records.ids)
    picked = curve.pick(metric="auroc", on="test", test="t")
    assert picked.value == curve.frame["auroc"].max()
    assert (picked.is_test, picked.of) == (True, 24)
    assert "on the test set t: its metrics there are better" in picked.notes[0]
    with pytest.raises(ConfigError, match=r"Leave pick\.test out, or say pick\.on=test"):
        curve.pick(metric="auroc", test="t")


def test_the_best_setting_over_seeds_then_its_best_seed(curve: Curve) -> None:
    picked = curve.pick(metric="auroc", on="test", test="t", best="setting")
    means = curve.frame.groupby(["budget", "ratio"])["auroc"].mean()
    mine = curve.frame[(curve.frame["budget"] == means.idxmax()[0]) & (curve.frame["ratio"] == means.idxmax()[1])]
    assert picked.run == mine.loc[mine["auroc"].idxmax(), "run"]
    assert "the mean over seeds of auroc on the test set t, the best of 6 settings" in picked.notes[0]


def test_one_run_that_is_named_is_no_choice(curve: Curve) -> None:
    key = next(iter(curve.runs))
    assert curve.pick(run=key) == Picked(key, 1)
    assert (Picked(key, 1).notes, Picked(key, 1).about) == ((), {})


def test_a_curve_without_validation_scores_says_what_can_be_done(curve: Curve, tmp_path: Path) -> None:
    shutil.copytree(curve.folder, tmp_path / "old", ignore=shutil.ignore_patterns(VALIDATION_FOLDER))
    old = replace_folder(curve, tmp_path / "old")
    with pytest.raises(DataError, match=r"8 of 8 runs to pick from have no scores .*out=PATH.*pick\.on=test"):
        old.pick(metric="auroc", budget=8)
    keys = run_curve(old.pools, recipe(), {}, GRID, old.folder, say=lambda text: None)
    assert len(ResultsTable(old.folder / RESULTS_FILE).read()) == len(curve.frame), "nothing is trained again"
    assert keys == set(old.runs)


def replace_folder(curve: Curve, folder: Path) -> Curve:
    other = object.__new__(Curve)
    other.__dict__.update(curve.__dict__, folder=folder)
    return other


def test_records_with_split_val_pick_and_a_curve_that_grows_keeps_its_scores(tmp_path: Path) -> None:
    split = ["val" if i % 6 in (0, 1) else "train" for i in range(120)]
    grid = GridSettings(budgets=[80], ratios=[0.0], seeds=2)
    small = Curve(tmp_path, pools(split=split), grid)
    picked = small.pick(metric="auroc")
    assert "40 validation images of the real pool" in picked.on
    assert set(small.scores("real")[1].ids) == {f"r-{i:03d}" for i in range(120) if i % 6 in (0, 1)}
    grown = Curve(tmp_path, pools(split=split), replace(grid, seeds=3))
    assert grown.pick(metric="auroc").of == 3
    assert len(grown.scores("real")[0]) == 3
    other = ValidationScores(tmp_path / VALIDATION_FOLDER, pools())
    with pytest.raises(DataError, match="split: val changed since"):
        other.read("real", list(small.runs))
    # the same ids, and other files: what was said of the old ones is of no image that is there
    same = pools(split=split)
    marked = same.validation["real"]
    moved = replace(same, validation={"real": replace(marked, matrix=marked.matrix[::-1].copy())})
    with pytest.raises(DataError, match="split: val changed since"):
        ValidationScores(tmp_path / VALIDATION_FOLDER, moved).read("real", list(small.runs))


def test_scores_that_older_curves_kept_by_ids_alone_are_read(tmp_path: Path) -> None:
    split = ["val" if i % 6 in (0, 1) else "train" for i in range(120)]
    curve = Curve(tmp_path, pools(split=split), GridSettings(budgets=[80], ratios=[0.0], seeds=2))
    scores = ValidationScores(tmp_path / VALIDATION_FOLDER, curve.pools)
    before = scores.read("real", list(curve.runs))
    records = scores.parts["real"].records
    shutil.rmtree(tmp_path / VALIDATION_FOLDER)
    older, called = ScoresFolder(tmp_path / VALIDATION_FOLDER), f"real-{records.digest()[:12]}"
    older.write_test_records(called, records)
    older.write(list(curve.runs), {called: Scores.of_probabilities(before.probabilities[::-1])})
    read = scores.read("real", list(curve.runs))
    np.testing.assert_array_equal(read.ranked, before.probabilities[::-1])
