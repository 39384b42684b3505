from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from guardtrain.heads import LinearHead, MLPHead
from guardtrain.training.batches import RunPlan
from guardtrain.training.fit import TrainingRecipe, fit_bank
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

QUIET = TrainerSettings(accelerator="cpu", progress=False)


def _data(n=600, dim=16, seed=0, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=generator)
    direction = torch.randn(dim, generator=generator)
    y = (x @ direction / dim**0.5 + noise * torch.randn(n, generator=generator) > 0).long()
    return x * 0.1 + 0.5, y


def _plans(sizes, n=600):
    return [RunPlan(np.random.default_rng([7, i]).permutation(n)[:size], seed=i) for i, size in enumerate(sizes)]


def _recipe(head, *, loss=None, selection=None, trainer=QUIET, **optimizer):
    loss, selection = loss or LossSettings(), selection or SelectionSettings()
    return TrainingRecipe(head, loss, OptimizerSettings(**optimizer), selection, trainer)


@pytest.mark.parametrize("head", [LinearHead(), MLPHead(hidden=[32])], ids=lambda head: head.name)
def test_a_head_of_a_bank_is_the_same_head_trained_alone(head):
    x, y = _data()
    recipe = _recipe(head, steps=200, batch_size=64)
    plans = _plans([16, 40, 64, 200, 500, 33])
    together = fit_bank(recipe, x, y, plans)
    for r in range(len(plans)):
        alone = fit_bank(recipe, x, y, plans[r : r + 1])
        assert (alone.bank(x)[0] - together.bank(x)[r]).abs().max() <= 1e-4


@pytest.mark.parametrize("head", [LinearHead(), MLPHead(hidden=[8], dropout=0.2)], ids=lambda head: head.name)
def test_the_same_seed_gives_the_same_bits(head):
    x, y = _data()
    recipe = _recipe(head, steps=60, batch_size=32)
    first, second = (fit_bank(recipe, x, y, _plans([20, 300])).bank.state_dict() for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_banks_split_by_memory_train_the_same_heads():
    x, y = _data()
    recipe = _recipe(LinearHead(), steps=50, batch_size=32)
    plans = _plans([16, 64, 128, 256])
    whole = fit_bank(recipe, x, y, plans)
    split = fit_bank(recipe, x, y, plans, memory_gb=1e-9)  # one head a bank
    torch.testing.assert_close(whole.bank(x), split.bank(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["lbfgs", "adamw"])
@pytest.mark.parametrize("l2", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_linear_head_reaches_scikit_learns_optimum(class_weight, l2, kind):
    """Classes that overlap, or a penalty, make the optimum unique; l2 is scikit-learn's 1/C on standardised inputs."""
    x, y = _data(n=600, dim=8, noise=2.0)
    rows = np.concatenate([np.flatnonzero(y == 0)[:200], np.flatnonzero(y == 1)[:80]])
    recipe = _recipe(
        LinearHead(),
        loss=LossSettings(class_weight, l2),
        kind=kind,
        steps=1500,
        batch_size=300,
        lr=0.05,
        tolerance=1e-7,
    )
    fitted = fit_bank(recipe, x, y, [RunPlan(rows, seed=0)]).bank
    standardised = ((x - fitted.input_mean) / fitted.input_scale).numpy()
    theirs = LogisticRegression(
        C=1 / max(l2, 1e-9), class_weight=None if class_weight == "none" else "balanced", max_iter=10_000, tol=1e-9
    )
    expected = theirs.fit(standardised[rows], y[rows]).decision_function(standardised)
    np.testing.assert_allclose(fitted(x)[0].detach().numpy(), expected, atol=5e-3)


def test_cross_validation_picks_a_strong_penalty_for_noise_and_a_weak_one_for_signal():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 60, generator=generator)
    direction = torch.randn(60, generator=generator)
    signal = (x @ direction > 0).long()
    noise = torch.randint(0, 2, (80,), generator=generator)
    selection = SelectionSettings("cross_validation", folds=5, l2=[0.1, 1000.0])
    recipe = _recipe(LinearHead(), selection=selection, steps=200, batch_size=80)
    plan = RunPlan(np.arange(80), seed=0, folds=np.arange(80) % 5)
    easy, hard = (fit_bank(recipe, x, y, [plan]) for y in (signal, noise))
    assert easy.l2[0] == pytest.approx(0.1)
    assert hard.l2[0] == 1000
    assert roc_auc_score(signal, easy.probabilities(x)[0]) > 0.95


def test_cross_validation_looks_at_the_runs_own_images_only():
    x, y = _data()
    selection = SelectionSettings("cross_validation", folds=4, l2=[0.1, 10.0])
    recipe = _recipe(LinearHead(), selection=selection, steps=60, batch_size=64)
    plan = RunPlan(np.arange(100), seed=0, folds=np.arange(100) % 4)
    before = fit_bank(recipe, x, y, [plan])
    x[100:], y[100:] = 1e3, 1 - y[100:]
    after = fit_bank(recipe, x, y, [plan])
    assert before.steps.tolist() == after.steps.tolist()
    for name, value in before.bank.state_dict().items():
        assert torch.equal(value, after.bank.state_dict()[name]), name


def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path, monkeypatch):
    x, y = _data()
    plans = _plans([300])
    trainer = TrainerSettings(accelerator="cpu", progress=False, checkpoint_every=20)
    recipe = _recipe(MLPHead(hidden=[8], dropout=0.3), trainer=trainer, steps=100, batch_size=32)
    whole = fit_bank(recipe, x, y, plans).bank.state_dict()

    from guardtrain.training.module import GuardModule

    original = GuardModule.training_step
    seen: list[int] = []

    def crash(self, batch, batch_idx):
        seen.append(batch.step)
        if len(seen) == 51:
            raise RuntimeError("power cut")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(GuardModule, "training_step", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        fit_bank(recipe, x, y, plans, folder=tmp_path)
    resumed = fit_bank(recipe, x, y, plans, folder=tmp_path).bank.state_dict()
    assert seen[51:] == list(range(40, 100))  # from the last checkpoint on, and no further
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
