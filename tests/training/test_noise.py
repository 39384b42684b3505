"""Noise on the embeddings of a step (`optimizer.noise`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guardtrain.errors import ConfigError
from guardtrain.heads import LinearHead, MLPHead, RidgeHead
from guardtrain.training.batches import RowNoise, RunPlan
from guardtrain.training.fit import fit_bank
from guardtrain.training.recipe import TrainingRecipe
from guardtrain.training.settings import LossSettings, OptimizerSettings, PairSettings, SelectionSettings
from guardtrain.training.settings import TrainerSettings as Trainer
from tests.training.interruption import assert_resumes_to_the_same_bits

G = np.random.default_rng(0)
X = torch.from_numpy(G.normal(0.5, 0.1, (400, 12)).astype(np.float32))
Y = (X[:, 0] + 0.05 * torch.from_numpy(G.normal(size=400).astype(np.float32)) > 0.5).long()


def recipe(head: object, noise: float, pairs: float = 0.0, every: int = 0, **optimizer: object) -> TrainingRecipe:
    loss = LossSettings(pairs=PairSettings(centring=pairs, gradient=2 * pairs))
    settings = OptimizerSettings(noise=noise, **({"steps": 40, "batch_size": 32} | optimizer))  # type: ignore[arg-type]
    trainer = Trainer(accelerator="cpu", progress=False, checkpoint_every=every)
    return TrainingRecipe(head, loss, settings, SelectionSettings(), trainer)  # type: ignore[arg-type]


def plans(*sizes: int) -> list[RunPlan]:
    """Runs of which the first 20 images are 10 pairs."""
    unsafe, safe = (torch.nonzero(label == Y)[:10, 0].numpy() for label in (1, 0))
    halves = np.stack([unsafe, safe], axis=1)
    rest = np.setdiff1d(np.arange(400), halves)
    rows = [np.concatenate([np.random.default_rng(size).permutation(rest)[:size], halves.ravel()]) for size in sizes]
    return [RunPlan(own, seed, split=len(own) - 20, pairs=halves) for seed, own in enumerate(rows)]


def test_it_has_the_spread_asked_for_and_leaves_the_difference_of_a_pair() -> None:
    runs = plans(200, 16)
    noise = RowNoise(0.7, X, runs)
    x = X[torch.arange(80)].expand(2, -1, -1)
    added = torch.stack([noise.added(x, 60, step) - x for step in range(30)])  # (S, R, B, D)
    assert torch.equal(x[0], X[:80]), "the rows themselves are as they were"
    for r, run in enumerate(runs):
        spread = 0.7 * float(np.std(X[run.train].numpy() - X[run.train].numpy().mean(0)))
        assert float(added[:, r].std()) == pytest.approx(spread, rel=0.03)
        assert abs(float(added[:, r].mean())) < 0.02 * spread
    halves = added[:, :, 60:]
    torch.testing.assert_close(halves[:, :, 0::2], halves[:, :, 1::2], rtol=0, atol=1e-6)
    flat = added[:, :, :60].flatten(2)[:, 0]
    assert np.abs(np.corrcoef(flat.numpy()) - np.eye(30)).max() < 0.2, "each step has its own"
    # fewer rows have the beginning of the same
    torch.testing.assert_close(noise.added(x[:, :40], 40, 3), noise.added(x, 60, 3)[:, :40])


@pytest.mark.parametrize("pairs", [0.0, 0.5])
def test_a_head_is_the_same_in_a_bank_and_alone(pairs: float) -> None:
    runs, noisy = plans(12, 50, 300), recipe(MLPHead(hidden=[8]), 1.0, pairs)
    together = fit_bank(noisy, X, Y, runs)
    quiet = fit_bank(recipe(MLPHead(hidden=[8]), 0.0, pairs), X, Y, runs)
    for r in range(len(runs)):
        alone = fit_bank(noisy, X, Y, runs[r : r + 1])
        assert (alone.bank(X)[0] - together.bank(X)[r]).abs().max() <= 1e-4
        assert (quiet.bank(X)[r] - together.bank(X)[r]).abs().max() > 1e-2, "noise does something"


def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, runs = recipe(MLPHead(hidden=[8]), 1.0, every=20, steps=60), plans(300)
    assert_resumes_to_the_same_bits(
        lambda folder: fit_bank(noisy, X, Y, runs, folder=folder),
        tmp_path,
        monkeypatch,
        cut_at=2,
        steps_after=[20, 40],
    )


def test_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowNoise, "added", lambda *given: pytest.fail("noise of 0 was drawn"))
    fit_bank(recipe(MLPHead(hidden=[8]), 0.0, steps=5), X, Y, plans(12))


def test_heads_that_take_no_steps_refuse_it() -> None:
    for head, optimizer, how in (
        (LinearHead(), {}, "found by L-BFGS"),
        (MLPHead(), {"kind": "lbfgs"}, "found by L-BFGS"),
        (RidgeHead(), {}, "solved"),
    ):
        with pytest.raises(ConfigError, match=rf"optimizer\.noise is 1, .*'{head.name}' is {how}"):
            recipe(head, 1.0, **optimizer)
    with pytest.raises(ConfigError, match=r"optimizer\.noise must be >= 0; got -1"):
        OptimizerSettings(noise=-1)
