from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from guardtrain.commands.data import load_pools
from guardtrain.config import TrainConfig, conf_dir, register_schemas
from guardtrain.config_checks import typed
from guardtrain.curves.engine import make_mixer
from guardtrain.curves.grid import GridPoint
from guardtrain.curves.tuning.scoring import Candidate, Judge, Judged
from guardtrain.heads import MLPHead
from guardtrain.training.pools import Pools
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings
from tests.commands.conftest import SMALL_DATA

pytest.importorskip("optuna")

BUDGET = 128
OUT = Path("outputs/tune/scenes")
# real images alone, and no pair losses: what scikit-learn can do, too
TUNE = ["tune", *SMALL_DATA, "guard=false", "loss=bce", "mixture.ratio=0", f"mixture.budget={BUDGET}", "sampler=grid"]
SPACE = "space={loss.l2: {low: 0.01, high: 100, log: true, points: 5}}"


def _composed(command: str, *overrides: str):
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, overrides=list(overrides))


@pytest.fixture(scope="module")
def pools(cache_dir: Path) -> Pools:
    return load_pools(typed(_composed("train", *SMALL_DATA), TrainConfig), lambda _: None)


def _scikit_learns_losses(pools: Pools, penalties: list[float], seeds: int, ratio: float = 0.0) -> np.ndarray:
    """Held-out losses of scikit-learn's heads, by penalty and seed, on the same folds; both classes weighed alike.

    Of the images of each pool by themselves, the mean of the two; a fold is as heavy as it has images of the pool.
    """
    mixer = make_mixer(pools)
    losses = np.zeros((len(penalties), seeds))
    for seed in range(seeds):
        mixture = mixer.mix(budget=BUDGET, ratio=ratio, arm="replace", control="paired", seed=seed)
        folds = mixer.folds(mixture, 5)
        assert folds is not None
        x, y = pools.matrix[pools.rows(mixture)].astype(np.float64), pools.labels[pools.rows(mixture)]
        real = np.arange(len(y)) < mixture.n_real
        sets = [own for own in (real, ~real) if own.any()]
        for fold in range(5):
            inside, out = folds != fold, folds == fold
            mean = x[inside].mean(0)
            scale = np.sqrt(((x[inside] - mean) ** 2).mean())
            weight = inside.sum() / (2 * np.bincount(y[inside]))
            for p, l2 in enumerate(penalties):
                head = LogisticRegression(C=1 / l2, class_weight="balanced", solver="newton-cholesky", tol=1e-10)
                head.fit((x[inside] - mean) / scale, y[inside])
                for own in sets:
                    held = out & own
                    probability = head.predict_proba((x[held] - mean) / scale)
                    loss = log_loss(y[held], probability, sample_weight=weight[y[held]], labels=[0, 1])
                    losses[p, seed] += loss * held.sum() / own.sum() / len(sets)
    return losses


def test_the_tuned_penalty_is_scikit_learns_and_its_run_is_that_of_the_printed_command(run, pools: Pools) -> None:
    text = run(*TUNE, SPACE, "seeds=2", "batch=3")
    assert "5 of 5 trials" in text
    assert "5 trials by log_loss on 5 folds inside the budget, 2 seeds" in text
    table = pq.read_table(OUT / "trials.parquet").to_pandas().sort_values("loss.l2")
    penalties = table["loss.l2"].tolist()
    assert penalties == [0.01, 0.1, 1.0, 10.0, 100.0]
    theirs = _scikit_learns_losses(pools, penalties, seeds=2).mean(1)
    np.testing.assert_allclose(table["score"], theirs, atol=2e-3)
    best = penalties[int(theirs.argmin())]
    assert json.loads((OUT / "best/head.json").read_text())["chosen"]["l2"] == pytest.approx(best)

    command = next(line for line in text.splitlines() if line.strip().startswith("guardtrain train"))
    assert f"loss.l2={best}" in command
    assert "this run is there already" in run(*shlex.split(command)[1:])

    again = run(*TUNE, SPACE, "seeds=2", "batch=3")  # nothing is trained again
    assert "5 of 5 trials are there already" in again
    assert "a minute" not in again
    assert "differs in settings" in run(*TUNE, SPACE, "seeds=2", "loss.class_weight=none", code=2)


def test_both_pools_are_judged_apart_and_the_score_is_the_mean_of_what_is_kept_of_each_seed(run, pools: Pools) -> None:
    given = [text.replace("mixture.ratio=0", "mixture.ratio=0.25") for text in TUNE]
    text = run(*given, SPACE, "seeds=2", "batch=5")
    assert "5 trials by log_loss on 5 folds inside the budget, the mean of both pools, 2 seeds" in text
    table = pq.read_table(OUT / "trials.parquet").to_pandas()
    by_seed = np.stack(table["by_seed"].to_list())
    theirs = _scikit_learns_losses(pools, table["loss.l2"].tolist(), seeds=2, ratio=0.25)
    np.testing.assert_allclose(by_seed, theirs, atol=2e-3)
    np.testing.assert_allclose(by_seed.mean(axis=1), table["score"], rtol=1e-12)
    assert table["score"].tolist() == sorted(table["score"])
    assert "5 runs: no auroc on 'validation' of scenes (there are: log_loss)" in run("results")
    found = run("results", "metric=log_loss", "test=validation")
    lines = [line.split() for line in found.splitlines() if line.strip()[:3] in ("1  ", "2  ", "3  ")]
    scores = [line[2].partition("±")[0] for line in lines]
    assert scores == [f"{value:.3f}".removeprefix("0") for value in table["score"][:3]]


def test_folds_of_other_sizes_count_by_their_images() -> None:
    scores, weights = np.array([[[1.0, np.nan], [4.0, 2.0]]]), np.array([[[30.0, 0.0], [10.0, 5.0]]])
    judged = Judged(scores, weights, 0.0)
    assert judged.by_seed.tolist() == [(1.75 + 2) / 2]
    assert judged.by_fold.tolist() == [[1.0, 3.0]]
    assert judged.score == judged.by_seed.mean()
    assert Judged(scores, weights, 0.0, "a head is not finite").score is None


def test_a_bank_of_trials_scores_as_each_alone(pools: Pools, tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = Judge(pools, make_mixer(pools), score="folds", metric="auroc", folds=2, folder=tmp_path, memory_gb=1.0)
    candidates = []
    for l2, lr, budget in ((0.1, 0.003, 64), (10.0, 0.003, 64), (0.1, 0.03, 32)):
        recipe = TrainingRecipe(
            MLPHead(hidden=[8], dropout=0.2),
            LossSettings("balanced", l2),
            OptimizerSettings("adamw", steps=20, lr=lr, batch_size=32),
            SelectionSettings(),
            TrainerSettings(progress=False),
        )
        points = [GridPoint(seed=seed, budget=budget, ratio=0.5, arm="replace", control="paired") for seed in (0, 1)]
        plain = {"head": {}, "loss": {"l2": l2}, "optimizer": {"lr": lr}}
        candidates.append(Candidate(recipe, points, "exact", plain))
    assert len({candidate.bank for candidate in candidates}) == 1
    together = judge.judge(candidates)
    for candidate, banked in zip(candidates, together, strict=True):
        (alone,) = judge.judge([candidate])
        np.testing.assert_allclose(banked.scores, alone.scores, atol=2e-3)
    assert abs(together[0].scores - together[1].scores).max() > 0.005  # they are not one and the same
    assert abs(together[0].scores - together[2].scores).max() > 0.005


def test_mixtures_and_heads_are_searched_on_images_that_no_trial_trains_on(run) -> None:
    space = "space={head: [linear, mlp], mixture.ratio: [0, 0.5], optimizer.lr: {low: 0.01, high: 0.02, "
    space += "points: 2, when: {head: mlp}}}"
    text = run(
        "tune", *SMALL_DATA, "guard=false", "mixture.budget=64", "sampler=grid", "optimizer.steps=10", "seeds=1", space,
        "metric=auroc", "trials=99",
    )  # fmt: skip
    assert "6 trials by auroc on validation images that no trial trains on, the mean of both pools, one seed" in text
    table = pq.read_table(OUT / "trials.parquet").to_pandas()
    assert sorted(table["score"], reverse=True) == table["score"].tolist()
    assert table["optimizer.lr"].notna().tolist() == (table["head"] == "mlp").tolist()
    assert (OUT / "best/head.json").is_file()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["selection=cross_validation"], "leave selection=fixed"),
        (["loss.l2=3"], "loss.l2 is set and searched"),
        (["space={mixture.ratio: [0,0.5]}", "score=folds"], "Take score=validation"),
        (["space={loss.class_weight: [none,balanced]}"], "Take metric=auroc or metric=brier"),
        (["space={head.hiden: [[4]]}"], "hiden"),
    ],
)
def test_searches_that_make_no_sense_are_refused(run, overrides: list[str], message: str) -> None:
    assert message in run("tune", *SMALL_DATA, *overrides, code=2)


def test_a_trial_starts_from_what_train_starts_from() -> None:
    tune, train = _composed("tune"), _composed("train", "selection=fixed")
    for name in train:
        if name != "out":
            assert OmegaConf.to_container(tune)[name] == OmegaConf.to_container(train)[name], name
