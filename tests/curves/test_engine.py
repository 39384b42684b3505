"""The curve engine on toy pools: rare classes, and starts that end in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from guardtrain.curves import engine
from guardtrain.curves.engine import make_mixer, plan_runs, run_curve, run_plan
from guardtrain.curves.folder import RESULTS_FILE, SCORES_FOLDER
from guardtrain.curves.grid import GridSettings
from guardtrain.curves.results import ResultsTable
from guardtrain.curves.scores import ScoresFolder
from guardtrain.embeddings import Embeddings
from guardtrain.encoders.spec import external_spec
from guardtrain.heads import LinearHead, MLPHead, RidgeHead
from guardtrain.records import Records
from guardtrain.training.pools import Pools, make_pools
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import (
    LossSettings,
    OptimizerSettings,
    PairSettings,
    SelectionSettings,
    TrainerSettings,
)

SELECTION = SelectionSettings("cross_validation", folds=5, smallest=8, l2=[0.1, 10.0], evaluate_every=10)
QUIET = TrainerSettings(accelerator="cpu", progress=False)


def recipe(head: Any, selection: SelectionSettings = SELECTION, trainer: TrainerSettings = QUIET) -> TrainingRecipe:
    return TrainingRecipe(head, LossSettings(), OptimizerSettings(steps=20), selection, trainer)


def part(n: int, prefix: str, every: int = 2, groups: int | None = None) -> Embeddings:
    """`n` images, each `every`-th unsafe; the unsafe ones of so many groups."""
    labels = np.arange(n) % every == every - 1
    names = [f"{prefix}{i:03d}" for i in range(n)]
    own = names if groups is None else [f"u{i % groups}" if unsafe else names[i] for i, unsafe in enumerate(labels)]
    x = np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)
    x[:, 0] += 1.5 * labels
    records = Records.from_columns(id=names, label=labels.astype(int), group=own)
    return Embeddings(records, x, external_spec({"name": "toy"}, 6))


def pools(**real: Any) -> Pools:
    return make_pools("toy", {"real": part(60, "r", **real)}, {"t": part(40, "t")}, seed=0)


def rows(folder: Path) -> pd.DataFrame:
    frame = ResultsTable(folder / RESULTS_FILE).read().drop(columns="seconds")
    return frame.sort_values(["run", "test", "slice_kind", "slice"], ignore_index=True)


@pytest.mark.parametrize("head", [LinearHead(), MLPHead(hidden=[4]), RidgeHead()], ids=lambda head: head.name)
def test_a_curve_goes_on_where_a_class_has_fewer_groups_than_folds(head: Any, tmp_path: Path) -> None:
    data = pools(every=10)  # 8, 16, 40 images hold 1, 2, 4 unsafe ones, or about
    grid = GridSettings(budgets=[4, 8, 16, 40, 60], ratios=[0.0], seeds=3)
    keys = run_curve(data, recipe(head), {}, grid, tmp_path, say=lambda text: None)
    assert len(keys) == 15
    frame = rows(tmp_path)
    assert set(frame["run"]) == keys
    assert np.isfinite(frame["auroc"]).all()
    mixer, folds = make_mixer(data), set()
    for run in plan_runs(data, grid, {}, mixer):
        plan = run_plan(data, mixer, run.mixture, recipe(head))
        unsafe = int(data.labels[plan.train].sum())
        count = 0 if plan.folds is None else len(set(plan.folds.tolist()))
        assert count == (min(5, unsafe) if unsafe > 1 and run.point.budget >= 8 else 0)
        folds.add(count)
    assert {0, 5} < folds, "some with fewer folds, some that choose nothing"


def test_runs_with_other_folds_than_before_have_keys_of_their_own() -> None:
    data, grid = pools(every=10), GridSettings(budgets=[8, 60], ratios=[0.0], seeds=1)

    def keys(selection: dict[str, Any]) -> list[str]:
        return [run.key for run in plan_runs(data, grid, {"selection": selection}, make_mixer(data))]

    chosen = {"method": "cross_validation", "folds": 5, "smallest": 8}
    assert len(set(keys(chosen))) == 2
    few, usual = (
        make_mixer(data).has_usual_folds(run.mixture, 5) for run in plan_runs(data, grid, {}, make_mixer(data))
    )
    assert (few, usual) == (False, True)
    # a run that is too small to choose never had folds: its key is what it was
    (small, _), (same, _) = keys(chosen | {"smallest": 9}), keys(chosen | {"smallest": 9})
    assert small == same != keys(chosen)[0]


@pytest.mark.parametrize("head", [LinearHead(), MLPHead(hidden=[4])], ids=lambda head: head.name)
@pytest.mark.parametrize("aware", [False, True])
def test_shuffled_partners_change_nothing_but_for_a_loss_that_looks_at_them(
    head: Any, aware: bool, tmp_path: Path
) -> None:
    pairs = part(80, "p")
    halves = [f"p{i // 2}" for i in range(80)]
    records = Records.from_columns(id=pairs.records.ids, label=pairs.records.labels, pair_id=halves, group=halves)
    data = make_pools(
        "toy",
        {"real": part(60, "r"), "pairs": Embeddings(records, pairs.matrix, pairs.spec)},
        {"t": part(40, "t")},
        seed=0,
    )
    looks = PairSettings(centring=1.0) if isinstance(head, LinearHead) else PairSettings(gradient=1.0)
    loss = LossSettings(pairs=looks if aware else PairSettings(mass=0.6))
    train = TrainingRecipe(head, loss, OptimizerSettings(steps=20), SelectionSettings(), QUIET)
    grid = GridSettings(budgets=[16, 32], ratios=[0.5], controls=["paired", "shuffled"], seeds=2)
    run_curve(data, train, {}, grid, tmp_path, say=lambda text: None)
    frame = rows(tmp_path).set_index(["budget", "seed"]).sort_index()
    paired, shuffled = (frame[frame["control"] == control] for control in ("paired", "shuffled"))
    same = np.isclose(paired["brier"], shuffled["brier"], rtol=1e-4)
    assert same.sum() == (0 if aware else 4)


class Killed(BaseException):
    pass


def dying(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> None:
    """Let the call number `at` of `owner.name` end the start."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = []

    def call(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return original(*arguments, **settings)

    monkeypatch.setattr(owner, name, call)


HEADS = [(LinearHead(), SELECTION), (MLPHead(hidden=[4]), SelectionSettings())]


@pytest.mark.parametrize("where", [(ResultsTable, "append"), (ScoresFolder, "write")], ids=["table", "scores"])
@pytest.mark.parametrize(("head", "selection"), HEADS, ids=["linear", "mlp"])
def test_a_killed_curve_has_the_same_bits(
    head: Any, selection: SelectionSettings, where: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, grid = pools(), GridSettings(budgets=[8, 16, 32], ratios=[0.0], seeds=3)
    train, quiet = recipe(head, selection), lambda text: None
    monkeypatch.setattr(engine, "FIRST_COMMIT", 4)
    work = engine._work(32, train, head.bank(1, 6))
    monkeypatch.setattr(engine, "BLOCK_WORK", 2.5 * work)  # blocks of few runs, of unlike sizes
    run_curve(data, train, {}, grid, tmp_path / "whole", say=quiet)
    assert 3 <= len(list((tmp_path / "whole" / SCORES_FOLDER).glob("part-*"))) < 6
    for at in (1, 2):
        with monkeypatch.context() as context:
            dying(context, *where, at)
            with pytest.raises(Killed):
                run_curve(data, train, {}, grid, tmp_path / "killed", say=quiet)
    run_curve(data, train, {}, grid, tmp_path / "killed", say=quiet)
    pd.testing.assert_frame_equal(rows(tmp_path / "killed"), rows(tmp_path / "whole"), rtol=0, atol=0)
    kept = []
    for name in ("whole", "killed"):
        keys, scores, _ = ScoresFolder(tmp_path / name / SCORES_FOLDER).read("t")
        kept.append(scores.ranked[np.argsort(keys)])
    np.testing.assert_array_equal(*kept)


def test_what_ranks_is_right_of_heads_that_are_sure(tmp_path: Path) -> None:
    data, grid = pools(), GridSettings(budgets=[6], ratios=[0.0], seeds=2)
    sure = TrainingRecipe(
        LinearHead(), LossSettings(l2=1e-7), OptimizerSettings(), SelectionSettings(method="fixed"), QUIET
    )
    run_curve(data, sure, {}, grid, tmp_path, say=lambda text: None)
    keys, scores, records = ScoresFolder(tmp_path / SCORES_FOLDER).read("t")
    table = rows(tmp_path).query("slice == 'all'").set_index("run")
    assert (scores.probabilities == 1).sum(1).max() > 2, "these tie, and their logits do not"
    for key, logits in zip(keys, scores.ranked.astype(np.float64), strict=True):
        found = table.loc[key]
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(records.labels, logits), abs=1e-9)
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(records.labels, logits), abs=1e-9)
        rates, recalls, _ = sk.roc_curve(records.labels, logits, drop_intermediate=False)
        assert found["recall_at_fpr5"] == pytest.approx(recalls[rates <= 0.05].max(), abs=1e-9)


def test_a_checkpoint_is_taken_up_by_the_banks_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, grid = pools(), GridSettings(budgets=[8, 16, 32], ratios=[0.0], seeds=3)
    monkeypatch.setattr(engine, "FIRST_COMMIT", 4)
    trainer = TrainerSettings(accelerator="cpu", progress=False, checkpoint_every=10)
    train, quiet = recipe(MLPHead(hidden=[4]), SelectionSettings(), trainer), lambda text: None
    run_curve(data, train, {}, grid, tmp_path / "whole", say=quiet)

    def killed(folder: Path) -> Path:
        with monkeypatch.context() as context:
            dying(context, engine, "score_tests", 2)
            with pytest.raises(Killed):
                run_curve(data, train, {}, grid, folder, say=quiet)
        (kept,) = (folder / "checkpoints").iterdir()
        assert list(kept.rglob("last.ckpt"))
        return kept

    kept = killed(tmp_path / "killed")
    run_curve(data, train, {}, grid, tmp_path / "killed", say=quiet)
    assert not kept.exists()
    pd.testing.assert_frame_equal(rows(tmp_path / "killed"), rows(tmp_path / "whole"), rtol=0, atol=0)
    # in a smaller grid the first missing run is the same, but not its company
    killed(tmp_path / "other")
    fewer = GridSettings(budgets=[8, 16, 32], ratios=[0.0], seeds=2)
    keys = run_curve(data, train, {}, fewer, tmp_path / "other", say=quiet)
    whole = rows(tmp_path / "whole")
    expected = whole[whole["run"].isin(keys)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows(tmp_path / "other"), expected, rtol=1e-5)
