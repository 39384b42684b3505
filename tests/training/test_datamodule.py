from __future__ import annotations

import numpy as np
import pytest
import torch

from guardtrain.heads import LinearHead, MLPHead, PrototypeHead, TipAdapterFHead
from guardtrain.training.batches import RunPlan
from guardtrain.training.datamodule import EmbeddingDataModule
from guardtrain.training.losses import class_weights
from guardtrain.training.optimum import whole_heads
from guardtrain.training.prefixes import PrefixLoss
from guardtrain.training.settings import PairSettings
from tests.heads.toys import anchors


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


def test_all_pairs_are_in_a_step_where_that_is_asked_for() -> None:
    """L-BFGS minimises one function: it must not change from one evaluation to the next."""
    x, y, plan = _problem(20, 30)
    settings = PairSettings(0.7, 0.5, 0.3)
    bank = LinearHead().bank(1, x.shape[1])
    with torch.no_grad():
        bank.weight.normal_(generator=torch.Generator().manual_seed(1))
    data = EmbeddingDataModule(x, y, [plan], batch_size=80, steps=3, steps_per_epoch=3, pairs=settings, all_pairs=True)
    loss = PrefixLoss(x, y, [plan], whole_heads([plan]), balanced=False, pairs=settings)
    theirs, _, _ = loss.evaluate(torch.cat([bank.weight[:, :, 0], bank.bias], dim=1).detach())
    for step in range(3):
        torch.testing.assert_close(data.batch(step).losses(bank), theirs, rtol=1e-5, atol=1e-5)


def _loss_of_a_run(bank, r: int, x, y, plan: RunPlan, settings: PairSettings) -> torch.Tensor:
    """The whole loss of run `r`, a term at a time, with gradients of gradients by autograd."""
    rows = torch.from_numpy(plan.train)
    weights = class_weights(y[rows], "balanced")[y[rows]]
    pair = torch.arange(len(rows)) >= plan.split
    real, lone = weights[~pair].sum(), weights[pair].sum()
    lift = max(1.0, float(settings.mass / (1 - settings.mass) * real / lone)) if len(plan.pairs) else 1.0
    weights = torch.where(pair, lift * weights, weights)
    total = weights.sum()

    def of(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits, features and input gradients of head r."""
        own = x[rows].expand(bank.heads, -1, -1).clone().requires_grad_()
        logits, features = bank.with_features(own)
        (slopes,) = torch.autograd.grad(logits.sum(), own, create_graph=True)
        return logits[r], features[r], slopes[r]

    logits = of(rows)[0]
    bce = torch.nn.functional.softplus(torch.where(y[rows] == 1, -logits, logits))
    loss = (weights * bce).sum() / total
    if not len(plan.pairs):
        return loss
    unsafe, safe = (torch.from_numpy(half) for half in plan.pairs.T)
    (u, fu, su), (s, fs, ss) = of(unsafe), of(safe)
    terms = settings.centring * ((u + s) / 2).square() + settings.logistic * torch.nn.functional.softplus(s - u)
    features, count = torch.nn.functional.normalize(torch.cat([fu, fs]), dim=1), len(unsafe)
    like = (features @ features.T / settings.temperature).exp()
    for i in range(2 * count):
        mine = i // count
        push = like[i, (1 - mine) * count : (2 - mine) * count].sum()
        others = [j for j in range(mine * count, (mine + 1) * count) if j != i]
        drawn = sum(-torch.log(like[i, j] / (like[i, j] + push)) for j in others) / max(1, len(others))
        terms = terms + settings.contrastive * drawn / 2 * (torch.arange(count) == i % count)
    for slopes in (su, ss):
        cosine = torch.nn.functional.cosine_similarity(slopes, x[unsafe] - x[safe], dim=1)
        terms = terms + settings.gradient * (1 - cosine) / 2
    return loss + lift * terms.sum() / total


@pytest.mark.parametrize(
    "head",
    [
        MLPHead(hidden=[9]),
        MLPHead(hidden=[9, 5]),
        PrototypeHead(prototypes=2, scale=5.0),
        TipAdapterFHead(beta=1.0).anchored(anchors(6)),
    ],
    ids=lambda head: f"{head.name}{getattr(head, 'hidden', '')}",
)
def test_a_step_with_every_pair_loss_is_the_loss_of_each_run_and_has_its_gradient(head) -> None:
    """Runs with 8, 2, 1 and no pairs stand side by side: padding adds nothing."""
    x, y, first = _problem(40, 8)
    sizes = [(8, 0), (2, 1), (1, 2), (0, 3)]
    plans = [RunPlan(first.train[: 40 + 2 * k], seed, split=40, pairs=first.pairs[:k]) for k, seed in sizes]
    settings = PairSettings(0.7, 0.5, 0.3, contrastive=0.4, temperature=0.5, gradient=0.6)
    bank = head.bank(4, x.shape[1])
    bank.precision = "float32"  # of the MLP's products
    bank.reset([plan.seed for plan in plans])
    indices = [torch.from_numpy(plan.train) for plan in plans]
    bank.fit_input(x, indices)
    bank.start(x, y, indices)
    data = EmbeddingDataModule(
        x, y, plans, batch_size=64, steps=3, steps_per_epoch=3, class_weight="balanced", pairs=settings
    )
    ours = data.batch(0).losses(bank.train(), 0)
    ours.sum().backward()
    gradients = [p.grad.clone() for p in bank.parameters()]
    for r, plan in enumerate(plans):
        bank.eval().zero_grad()
        expected = _loss_of_a_run(bank, r, x, y, plan, settings)
        torch.testing.assert_close(ours[r], expected, rtol=1e-4, atol=1e-4)
        expected.backward()
        for parameter, gradient in zip(bank.parameters(), gradients, strict=True):
            torch.testing.assert_close(gradient[r], parameter.grad[r], rtol=1e-3, atol=1e-5)


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
        place = (rows[:, None, :] == x[None]).all(2).float().argmax(1).view(count, 2)
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
