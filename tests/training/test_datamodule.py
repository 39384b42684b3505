from __future__ import annotations

import numpy as np
import pytest
import torch

from guardtrain.heads import LinearHead
from guardtrain.training.batches import RunPlan
from guardtrain.training.datamodule import EmbeddingDataModule
from guardtrain.training.optimum import whole_heads
from guardtrain.training.prefixes import PrefixLoss
from guardtrain.training.settings import PairSettings


def _problem(n_real: int, n_pairs: int, dim: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, dim, generator=generator)
    y = torch.randint(0, 2, (200,), generator=generator)
    y[100:] = torch.tensor([1, 0]).repeat(50)
    pairs = 100 + 2 * np.arange(n_pairs)[:, None] + np.arange(2)
    train = np.concatenate([np.arange(n_real), pairs.reshape(-1)])
    return x, y, RunPlan(train, seed, split=n_real, pairs=pairs)


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
@pytest.mark.parametrize("settings", [PairSettings(), PairSettings(mass=0.8), PairSettings(0.7, 0.5, 0.3)], ids=str)
def test_a_step_on_all_images_and_pairs_has_the_loss_of_the_whole_run(
    settings: PairSettings, class_weight: str
) -> None:
    """`PrefixLoss`, which is tested against autograd, is the reference."""
    x, y, first = _problem(40, 5)
    second = RunPlan(first.train[:44], 1, split=40, pairs=first.pairs[:2])
    real = RunPlan(np.arange(30), 2, split=30, pairs=first.pairs[:0])
    plans = [first, second, real]
    bank = LinearHead().bank(3, x.shape[1])
    with torch.no_grad():
        bank.weight.normal_(generator=torch.Generator().manual_seed(1))
        bank.bias.normal_(generator=torch.Generator().manual_seed(2))
    data = EmbeddingDataModule(
        x, y, plans, batch_size=64, steps=3, steps_per_epoch=3, class_weight=class_weight, pairs=settings
    )
    ours = data.batch(0).losses(bank)
    loss = PrefixLoss(x, y, plans, whole_heads(plans), balanced=class_weight == "balanced", pairs=settings)
    theirs, _, _ = loss.evaluate(torch.cat([bank.weight[:, :, 0], bank.bias], dim=1).detach())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_pairs_of_a_step_are_whole_pairs_of_the_run_and_all_come_up() -> None:
    x, y, plan = _problem(40, 30)
    settings = PairSettings(centring=0.5)
    data = EmbeddingDataModule(x, y, [plan], batch_size=64, steps=8, steps_per_epoch=8, pairs=settings)
    seen = set()
    for step in range(8):
        batch = data.batch(step)
        count = batch.pair_weights.shape[1]
        assert count == 8  # an eighth of the batch
        rows = batch.x[0, -2 * count :]
        place = (rows[:, None, :] == x[None]).all(2).float().argmax(1).view(2, count).T
        for unsafe, safe in place.tolist():
            assert [unsafe, safe] in plan.pairs.tolist()
            seen.add(unsafe)
    assert len(seen) == 30
    again = EmbeddingDataModule(x, y, [plan], batch_size=64, steps=8, steps_per_epoch=8, pairs=settings).batch(5)
    assert torch.equal(again.x, data.batch(5).x)


def test_held_out_batches_hold_no_pairs() -> None:
    x, y, plan = _problem(40, 5)
    plan = plan.inside(np.arange(50) < 45, held_out=True)
    data = EmbeddingDataModule(x, y, [plan], batch_size=64, steps=1, steps_per_epoch=1, pairs=PairSettings(0.5, 0.5))
    (batch,) = data.val_dataloader()
    assert data.on_after_batch_transfer(batch, 0).pair_weights.shape == (1, 0)
