from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from guardtrain.errors import ConfigError
from guardtrain.heads import LinearHead, MLPHead, PrototypeHead, RidgeHead, TipAdapterFHead
from guardtrain.training.batches import RunPlan
from guardtrain.training.datamodule import EmbeddingDataModule
from guardtrain.training.fit import fit_bank
from guardtrain.training.losses import contrastive_terms, squared_norms
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import (
    LossSettings,
    OptimizerSettings,
    PairSettings,
    SelectionSettings,
    TrainerSettings,
)
from tests.heads.toys import anchors
from tests.training.interruption import assert_resumes_to_the_same_bits

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


def test_where_the_client_of_slurm_is_installed_nothing_is_said_of_it(tmp_path, monkeypatch):
    """Lightning advises to start every command by `srun`."""
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*srun.*")
        fitted = fit_bank(_recipe(LinearHead(), steps=2, batch_size=8), *_data(), _plans([20]))
    assert fitted.bank(_data()[0]).isfinite().all()


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
        loss=LossSettings(class_weight, l2=l2),
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


def test_cross_validation_picks_a_strong_penalty_where_means_tell_all_and_a_weak_one_where_they_do_not():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    rows, signs = torch.randn(200, 60, generator=generator), 2.0 * labels[:, None] - 1
    shifted = rows + 0.2 * signs  # spherical classes: the difference of means is the best direction
    hidden = 10 * rows
    hidden[:, :2] = hidden[:, :1] + 0.3 * torch.cat([-signs, signs], dim=1)  # the difference of two large columns
    selection = SelectionSettings("cross_validation", folds=5, l2=[0.1, 1000.0])
    plan = RunPlan(np.arange(200), seed=0, folds=np.arange(200) // 2 % 5)
    recipe = _recipe(LinearHead(), selection=selection)
    assert fit_bank(recipe, shifted, labels, [plan]).l2[0] == 1000
    fitted = fit_bank(recipe, hidden, labels, [plan])
    assert fitted.l2[0] == pytest.approx(0.1)
    assert roc_auc_score(labels, fitted.probabilities(hidden)[0]) > 0.95


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
    assert_resumes_to_the_same_bits(
        lambda folder: fit_bank(recipe, x, y, plans, folder=folder),
        tmp_path,
        monkeypatch,
        cut_at=3,
        steps_after=range(40, 100, 20),
    )


# --- linear heads on shared rows: selection, failures, pairs, resumption ---


def _folded(size: int, seed: int = 0, n: int = 600, folds: int = 4) -> RunPlan:
    train = np.random.default_rng([7, seed]).permutation(n)[:size]
    return RunPlan(train, seed, folds=np.arange(size) % folds)


def _scikit_choice(x, y, plan, penalties, rule) -> float:
    """The penalty by scikit-learn's heads on the folds, and the rule in plain words; balanced classes."""
    losses = np.empty((len(penalties), plan.folds.max() + 1))
    for fold in range(losses.shape[1]):
        inside, out = plan.train[plan.folds != fold], plan.train[plan.folds == fold]
        mean = x[inside].mean(0)
        scale = (x[inside] - mean).square().mean().sqrt()
        z, held = (((x[rows] - mean) / scale).double().numpy() for rows in (inside, out))
        for c, l2 in enumerate(penalties):
            head = LogisticRegression(C=1 / l2, class_weight="balanced", tol=1e-9, max_iter=5000).fit(z, y[inside])
            losses[c, fold] = 1 - roc_auc_score(y[out], head.decision_function(held))
    means = losses @ np.bincount(plan.folds) / len(plan.train)
    best = int(means.argmin())
    error = losses[best].std(ddof=1) / losses.shape[1] ** 0.5 if rule == "one_standard_error" else 0.0
    limit = means[best] + error
    others = np.delete(means, best)
    assert np.abs(others - limit).min() > 1e-3, "a case that rounding decides is no test"
    return max(l2 for l2, mean in zip(penalties, means, strict=True) if mean <= limit)


@pytest.mark.parametrize("rule", ["best", "one_standard_error"])
def test_linear_heads_choose_the_penalty_that_scikit_learns_folds_choose(rule):
    x, y = _data(noise=0.7)
    penalties = [300.0, 0.1, 3.0, 30.0]  # in no order
    selection = SelectionSettings("cross_validation", folds=4, l2=penalties, rule=rule)
    plans = [_folded(size, seed) for size, seed in ((120, 2), (200, 0), (200, 1), (300, 0))]
    fitted = fit_bank(_recipe(LinearHead(), selection=selection), x, y, plans)
    expected = [_scikit_choice(x, y, plan, penalties, rule) for plan in plans]
    np.testing.assert_allclose(fitted.l2, expected, rtol=1e-6)
    # the head is the one that the penalty alone gives
    for r, plan in enumerate(plans):
        fixed = fit_bank(_recipe(LinearHead(), loss=LossSettings(l2=expected[r])), x, y, [plan])
        assert (fixed.bank(x)[0] - fitted.bank(x)[r]).abs().max() <= 1e-3


def test_one_standard_error_chooses_no_weaker_penalty_than_the_best_and_sometimes_a_stronger_one():
    x, y = _data(noise=1.5)
    plans = [_folded(60, seed) for seed in range(6)]
    best, safe = (
        fit_bank(
            _recipe(
                LinearHead(),
                selection=SelectionSettings("cross_validation", folds=4, l2=[0.1, 1.0, 10.0, 100.0], rule=rule),
            ),
            x,
            y,
            plans,
        ).l2
        for rule in ("best", "one_standard_error")
    )
    assert (safe >= best).all()
    assert (safe > best).any()


@pytest.mark.parametrize(("method", "images", "chooses"), [("fixed", 500, False), ("cross_validation", 63, False)])
def test_small_runs_and_fixed_settings_choose_nothing(method, images, chooses):
    recipe = _recipe(LinearHead(), selection=SelectionSettings(method, smallest=64))
    assert recipe.chooses(images) == chooses
    assert _recipe(LinearHead(), selection=SelectionSettings("cross_validation", smallest=64)).chooses(64)


@pytest.mark.parametrize("head", [LinearHead(), MLPHead(hidden=[4])], ids=lambda head: head.name)
def test_plans_without_folds_keep_their_settings_beside_plans_that_choose(head):
    x, y = _data()
    selection = SelectionSettings("cross_validation", folds=4, l2=[0.5, 50.0], evaluate_every=10)
    recipe = _recipe(head, loss=LossSettings(l2=7.0), selection=selection, steps=30, batch_size=32)
    folded = [_folded(100, 1), _folded(200, 2)]
    plain = RunPlan(folded[0].train[:20], 3)
    mixed = fit_bank(recipe, x, y, [folded[0], plain, folded[1]])
    assert mixed.l2[1] == 7
    assert mixed.steps[1] == recipe.steps
    assert set(mixed.l2[[0, 2]].tolist()) <= {0.5, 50.0}
    chosen, fixed = fit_bank(recipe, x, y, folded), fit_bank(recipe, x, y, [plain])
    np.testing.assert_array_equal(mixed.l2[[0, 2]], chosen.l2)
    np.testing.assert_array_equal(mixed.steps[[0, 2]], chosen.steps)
    torch.testing.assert_close(mixed.bank(x)[[0, 2]], chosen.bank(x), rtol=0, atol=1e-4)
    torch.testing.assert_close(mixed.bank(x)[1], fixed.bank(x)[0], rtol=0, atol=1e-4)


def test_folds_mean_nothing_to_fixed_settings():
    x, y = _data()
    recipe = _recipe(LinearHead(), loss=LossSettings(l2=7.0))
    folded = _folded(100)
    with_folds, without = (fit_bank(recipe, x, y, [plan]) for plan in (folded, RunPlan(folded.train, 0)))
    assert with_folds.l2.tolist() == [7]
    torch.testing.assert_close(with_folds.bank(x), without.bank(x), rtol=0, atol=1e-6)


def test_a_penalty_that_is_not_set_falls_with_the_number_of_images():
    x, y = _data()
    assert fit_bank(_recipe(LinearHead()), x, y, _plans([16, 64, 500])).l2.tolist() == pytest.approx([8, 2, 0.3])


@pytest.mark.parametrize("choose", [False, True], ids=["fixed", "cross-validation"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_broken_row_sets_aside_the_linear_heads_that_use_it_and_no_others(value, choose):
    x, y = _data()
    broken = x.clone()
    plans = [_folded(size, seed) for seed in (0, 1) for size in (30, 90, 300)]
    row = int(plans[2].train[150])  # of the largest run of seed 0 alone …
    uses = np.array([row in plan.train for plan in plans])
    assert uses[2]
    assert not uses[:2].any()  # … and perhaps of seed 1's
    broken[row, 5] = value
    selection = SelectionSettings("cross_validation", folds=4, l2=[0.5, 50.0]) if choose else None
    recipe = _recipe(LinearHead(), selection=selection)
    whole, hurt = fit_bank(recipe, x, y, plans), fit_bank(recipe, broken, y, plans)
    assert not whole.failed.any()
    np.testing.assert_array_equal(hurt.failed, uses)
    np.testing.assert_array_equal(hurt.l2[~uses], whole.l2[~uses])
    probabilities = hurt.probabilities(x)
    assert bool(probabilities[uses].isnan().all())
    torch.testing.assert_close(probabilities[~uses], whole.probabilities(x)[~uses], rtol=0, atol=1e-5)


def test_a_broken_row_that_no_run_uses_changes_no_bit():
    x, y = _data()
    plans = _plans([30, 200])
    unused = sorted(set(range(600)) - set(np.concatenate([plan.train for plan in plans]).tolist()))
    broken = x.clone()
    broken[unused] = np.nan
    first, second = (fit_bank(_recipe(LinearHead()), data, y, plans) for data in (x, broken))
    assert not second.failed.any()
    for name, value in first.bank.state_dict().items():
        assert torch.equal(value, second.bank.state_dict()[name]), name


def test_embeddings_of_nothing_but_nan_fail_every_head():
    x, y = _data()
    assert (
        fit_bank(_recipe(LinearHead()), torch.full_like(x, np.nan), y, _plans([30, 200])).failed.tolist() == [True] * 2
    )


def _pairs(n_pairs: int = 60, dim: int = 16, seed: int = 3):
    """Confounded real images (their labels follow a nuisance), and pairs that differ in the feature alone."""
    generator = torch.Generator().manual_seed(seed)
    feature, nuisance = torch.linalg.qr(torch.randn(dim, 2, generator=generator))[0].T
    y = torch.randint(0, 2, (300,), generator=generator)
    side = (2 * y - 1).float()[:, None]
    real = 0.5 * torch.randn(300, dim, generator=generator) + side * (0.3 * feature + 2 * nuisance)
    base = (
        0.5 * torch.randn(n_pairs, dim, generator=generator)
        + 2 * torch.randn(n_pairs, 1, generator=generator) * nuisance
    )
    halves = torch.stack([base + 0.7 * feature, base - 0.7 * feature], dim=1).flatten(0, 1)
    x = torch.cat([real, halves]) * 0.1 + 0.5
    labels = torch.cat([y, torch.tensor([1, 0]).repeat(n_pairs)])
    pairs = 300 + 2 * np.arange(n_pairs)[:, None] + np.arange(2)
    return x, labels, pairs


def _pair_plan(pairs, n_real, n_pairs, *, aware=True, folds=None, seed=0):
    train = np.concatenate([np.arange(n_real), pairs[:n_pairs].reshape(-1)])
    if folds is not None:
        folds = np.concatenate([np.arange(n_real), np.repeat(np.arange(n_pairs), 2)]) % folds
    return RunPlan(train, seed, folds=folds, split=n_real, pairs=pairs[:n_pairs] if aware else None)


AWARE = PairSettings(mass=0.5, centring=0.5, logistic=0.5, offset=2.0)


def test_a_pair_aware_recipe_tells_more_held_out_pairs_apart():
    x, y, pairs = _pairs(n_pairs=520)
    plan = _pair_plan(pairs, 300, 6)

    def share(settings: PairSettings) -> float:
        recipe = _recipe(LinearHead(), loss=LossSettings(l2=1.0, pairs=settings))
        p = fit_bank(recipe, x, y, [plan]).probabilities(x)[0]
        return float(((p[pairs[20:, 0]] > 0.5) & (p[pairs[20:, 1]] < 0.5)).double().mean())

    assert share(PairSettings(mass=2 / 3, centring=0.5, offset=30.0)) > share(PairSettings()) + 0.05


def test_only_runs_that_know_of_pairs_are_changed_by_pair_terms():
    x, y, pairs = _pairs()
    plans = [_pair_plan(pairs, 100, 20), _pair_plan(pairs, 100, 20, aware=False), _pair_plan(pairs, 100, 0)]
    terms = PairSettings(centring=0.5, logistic=0.5)
    plain, aware = (
        fit_bank(_recipe(LinearHead(), loss=LossSettings(pairs=settings)), x, y, plans).bank(x)
        for settings in (PairSettings(), terms)
    )
    torch.testing.assert_close(plain[1:], aware[1:], rtol=0, atol=1e-3)
    assert (plain[0] - aware[0]).abs().max() > 0.1


def test_pair_aware_heads_of_a_bank_are_those_trained_alone_and_choose_the_same():
    x, y, pairs = _pairs()
    selection = SelectionSettings("cross_validation", folds=4, l2=[0.5, 50.0])
    recipe = _recipe(LinearHead(), loss=LossSettings(pairs=AWARE), selection=selection)
    shapes = [(100, 10), (200, 60), (0, 40), (80, 0)]
    plans = [_pair_plan(pairs, n_real, n_pairs, folds=4) for n_real, n_pairs in shapes]
    together = fit_bank(recipe, x, y, plans)
    assert not together.failed.any()
    for r, plan in enumerate(plans):
        alone = fit_bank(recipe, x, y, [plan])
        assert alone.l2[0] == together.l2[r]
        torch.testing.assert_close(alone.probabilities(x)[0], together.probabilities(x)[r], rtol=0, atol=1e-4)


# --- pair losses on features and gradients, by steps ---

SHAPING = PairSettings(mass=0.5, centring=0.5, contrastive=0.5, gradient=0.5)


@pytest.mark.parametrize(
    "head",
    [
        MLPHead(hidden=[16], dropout=0.2),
        MLPHead(hidden=[12, 8]),
        PrototypeHead(prototypes=2, scale=20.0),
        TipAdapterFHead().anchored(anchors(16)),
    ],
    ids=lambda head: f"{head.name}{getattr(head, 'hidden', '')}",
)
def test_a_head_shaped_by_pairs_is_the_same_in_a_bank_and_alone(head):
    x, y, pairs = _pairs()
    plans = [_pair_plan(pairs, 100, k, seed=k) for k in (3, 9, 10, 20, 40, 0)]
    plans.append(_pair_plan(pairs, 100, 20, aware=False))
    recipe = _recipe(head, loss=LossSettings(pairs=SHAPING), steps=40, batch_size=64)
    together = fit_bank(recipe, x, y, plans)
    assert not together.failed.any()
    for r in range(len(plans)):
        alone = fit_bank(recipe, x, y, plans[r : r + 1])
        torch.testing.assert_close(alone.probabilities(x)[0], together.probabilities(x)[r], rtol=0, atol=1e-4)
    plain = fit_bank(
        _recipe(head, loss=LossSettings(pairs=PairSettings(mass=0.5)), steps=40, batch_size=64), x, y, plans
    )
    changed = (plain.probabilities(x) - together.probabilities(x)).abs().amax(1)
    assert bool((changed[:5] > 1e-3).all())
    assert bool((changed[5:] < 1e-5).all())  # no pairs, or none known


@pytest.mark.parametrize("settings", [{"contrastive": 2.0}, {"gradient": 2.0}], ids=str)
def test_pair_losses_do_to_held_out_pairs_what_they_are_for(settings):
    """Features of one class come together, and away from the other's; gradients turn to the differences."""
    x, y, pairs = _pairs(n_pairs=120)
    plan = _pair_plan(pairs, 200, 20)
    unsafe, safe = (x[half][None] for half in pairs[60:].T)

    def measure(pair_settings: PairSettings) -> float:
        bank = fit_bank(_recipe(MLPHead(hidden=[16]), loss=LossSettings(pairs=pair_settings)), x, y, [plan]).bank
        if "gradient" in settings:
            return 1 - bank.slope_cosines(unsafe, unsafe - safe).mean().item()
        features = [bank.with_features(half)[1] for half in (unsafe, safe)]
        return contrastive_terms(*features, torch.ones(1, len(unsafe[0]), dtype=torch.bool), 0.3).mean().item()

    plain, shaped = measure(PairSettings(mass=0.5)), measure(PairSettings(mass=0.5, **settings))
    assert shaped < (0.96 if "contrastive" in settings else 0.7) * plain


@pytest.mark.parametrize("name", ["contrastive", "gradient"])
@pytest.mark.parametrize(
    ("head", "optimizer", "why"),
    [
        (LinearHead(), {}, "features|gradient is the same"),
        (LinearHead(), {"kind": "adamw"}, "features|gradient is the same"),
        (MLPHead(), {"kind": "lbfgs"}, "L-BFGS"),
        (RidgeHead(), {}, "solved"),
    ],
    ids=["linear", "linear by adamw", "mlp by lbfgs", "solved"],
)
def test_heads_that_cannot_use_a_pair_loss_refuse_it(head, optimizer, why, name):
    with pytest.raises(ConfigError, match=rf"loss\.pairs\.{name} is 0\.5, .*'{head.name}'.*({why}).*{name}=0"):
        _recipe(head, loss=LossSettings(pairs=PairSettings(**{name: 0.5})), **optimizer)


def test_an_mlp_of_whole_batches_reaches_an_optimum_with_pairs(caplog):
    """More pairs than an eighth of the images: each evaluation must see them all."""
    x, y, pairs = _pairs()
    loss = LossSettings(l2=3.0, pairs=PairSettings(centring=0.5))
    recipe = _recipe(MLPHead(hidden=[2]), loss=loss, kind="lbfgs", tolerance=1e-3)
    plan = _pair_plan(pairs, 4, 40)
    bank = fit_bank(recipe, x, y, [plan]).bank.double()
    assert "not at their optimum" not in caplog.text
    settings = {"class_weight": "balanced", "pairs": loss.pairs, "all_pairs": True}
    data = EmbeddingDataModule(x.double(), y, [plan], batch_size=84, steps=1, steps_per_epoch=1, **settings)
    (data.batch(0).losses(bank) + 3.0 / (2 * 84) * squared_norms(bank.parameters())).sum().backward()
    assert max(p.grad.abs().max() for p in bank.parameters()) < 1e-2


@pytest.mark.parametrize("pairs_settings", [PairSettings(), AWARE], ids=["plain", "pair-aware"])
def test_an_interrupted_linear_training_resumes_to_the_same_head(pairs_settings, tmp_path, monkeypatch):
    x, y, pairs = _pairs()
    plans = [_pair_plan(pairs, 300, 40), _pair_plan(pairs, 100, 10)]
    trainer = TrainerSettings(accelerator="cpu", progress=False, checkpoint_every=10)
    recipe = _recipe(LinearHead(), loss=LossSettings(l2=0.01, pairs=pairs_settings), trainer=trainer)
    whole = fit_bank(recipe, x, y, plans)

    from guardtrain.training.optimum import LinearOptimum
    from guardtrain.training.optimum_module import OptimumModule

    step, load = OptimumModule.training_step, LinearOptimum.load_state_dict
    seen: list[int] = []
    loaded: list[torch.Tensor] = []

    def crash(self, batch, batch_idx):
        seen.append(batch)
        if len(seen) == 3:
            raise RuntimeError("power cut")
        return step(self, batch, batch_idx)

    def remember(self, state):
        loaded.append(state["points"].clone())
        load(self, state)

    monkeypatch.setattr(OptimumModule, "training_step", crash)
    monkeypatch.setattr(LinearOptimum, "load_state_dict", remember)
    with pytest.raises(RuntimeError, match="power cut"):
        fit_bank(recipe, x, y, plans, folder=tmp_path)
    resumed = fit_bank(recipe, x, y, plans, folder=tmp_path)
    assert len(loaded) == 1
    assert bool(loaded[0].any())  # not from the start
    for name, value in whole.bank.state_dict().items():
        torch.testing.assert_close(resumed.bank.state_dict()[name], value, rtol=1e-4, atol=1e-4)


def test_a_finished_linear_training_is_not_done_again(tmp_path, monkeypatch):
    x, y = _data()
    trainer = TrainerSettings(accelerator="cpu", progress=False, checkpoint_every=10)
    recipe = _recipe(LinearHead(), loss=LossSettings(l2=0.1), trainer=trainer)
    first = fit_bank(recipe, x, y, _plans([200]), folder=tmp_path)

    from guardtrain.training.optimum import LinearOptimum

    counts: list[int] = []
    evaluate = LinearOptimum._evaluate
    monkeypatch.setattr(LinearOptimum, "_evaluate", lambda self: counts.append(1) or evaluate(self))
    second = fit_bank(recipe, x, y, _plans([200]), folder=tmp_path)
    assert len(counts) <= 10  # one step at most
    torch.testing.assert_close(first.bank(x), second.bank(x), rtol=0, atol=1e-4)
