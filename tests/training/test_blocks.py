"""MLP heads in blocks take the steps that autograd and `BankAdamW` take with the whole bank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from guardtrain.heads import MLPHead
from guardtrain.training import blocks
from guardtrain.training.batches import RowNoise, RunPlan
from guardtrain.training.blocks import BlockwiseSteps
from guardtrain.training.datamodule import EmbeddingDataModule
from guardtrain.training.optimizer import BankAdamW
from guardtrain.training.settings import PairSettings

DIM, BATCH = 12, 32
X = torch.randn(600, DIM, generator=torch.Generator().manual_seed(0)) + 0.5
Y = (X[:, 0] > 0.5).long()
Y[400:] = torch.tensor([1, 0]).repeat(100)
PAIRS = 400 + 2 * np.arange(100)[:, None] + np.arange(2)


def plans(*sizes: tuple[int, int]) -> list[RunPlan]:
    """Runs of so many real images and pairs."""
    runs = []
    for seed, (real, pairs) in enumerate(sizes):
        own = PAIRS[np.random.default_rng(seed).permutation(100)[:pairs]]
        train = np.concatenate([np.random.default_rng(seed).permutation(400)[:real], own.ravel()])
        runs.append(RunPlan(train, seed // 2, split=real, pairs=own))
    return runs


class Training:
    """A bank of MLPs at its start, and both ways to train it."""

    def __init__(self, runs: list[RunPlan], settings: PairSettings, *, noise: float = 0.0, **head: object) -> None:
        count = len(runs)
        self.bank = MLPHead(**head).bank(count, DIM).train()  # type: ignore[arg-type]
        self.bank.reset([run.seed for run in runs])
        self.bank.fit_input(X, [torch.from_numpy(run.train) for run in runs])
        self.data = EmbeddingDataModule(
            X, Y, runs, batch_size=BATCH, steps=20, steps_per_epoch=20, class_weight="balanced", pairs=settings
        )
        # neighbours of other settings: a rate, a penalty with and without decay, fewer steps
        rate, decay, penalty = torch.full((count,), 0.01), torch.zeros(count), torch.full((count,), 0.02)
        rate[0], penalty[1], decay[2], steps = 0.02, 0.0, 0.3, torch.full((count,), 20)
        steps[-1] = 5
        self.optimizer = BankAdamW(self.bank.parameters(), rate, decay, steps, 20, penalty=penalty)
        self.noise = RowNoise(noise, X, runs) if noise else None

    def by_autograd(self, stop: int) -> Tensor:
        """Takes steps until `stop`; the losses of the last one."""
        for step in range(self.optimizer.taken, stop):
            self.optimizer.zero_grad()
            batch = self.data.batch(step)
            if self.noise is not None:
                batch = batch._replace(x=self.noise.added(batch.x, batch.labels.shape[1], step))
            losses = batch.losses(self.bank, step)
            losses.sum().backward()
            self.optimizer.step()
        return losses.detach()

    def by_blocks(self, stop: int) -> Tensor:
        losses = BlockwiseSteps(self.bank, self.optimizer, self.data, self.noise).take(self.optimizer.taken, stop)
        self.optimizer.taken = stop
        return losses

    def gradients(self) -> list[Tensor]:
        """Of the first step, but for a factor: the mean of one gradient."""
        return [self.optimizer.moments(parameter)[0] for parameter in self.bank.parameters()]


@pytest.mark.parametrize(
    "settings",
    [
        PairSettings(),
        PairSettings(mass=0.6, centring=0.5, logistic=0.3),
        PairSettings(mass=0.6, gradient=1.0),
        PairSettings(0.6, centring=0.2, contrastive=0.4, gradient=0.7),
    ],
    ids=["plain", "logits", "gradient", "all"],
)
@pytest.mark.parametrize(
    "head", [{"hidden": [9]}, {"hidden": [9, 5], "dropout": 0.3}, {"hidden": [6, 7, 4]}], ids=lambda head: str(head)
)
def test_the_gradient_and_the_loss_are_autograds(head: dict[str, object], settings: PairSettings) -> None:
    runs = plans((28, 2), (28, 2), (200, 40), (28, 2))
    ours, theirs = (Training(runs, settings, noise=0.1, **head) for _ in range(2))
    torch.testing.assert_close(ours.by_blocks(1), theirs.by_autograd(1), rtol=1e-4, atol=1e-5)
    for own, other in zip(ours.gradients(), theirs.gradients(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-6)


def test_several_steps_are_those_of_the_bank_and_each_head_has_its_own_settings() -> None:
    """Constant batches, batches that walk through epochs, and a head whose steps are done."""
    settings = PairSettings(mass=0.6, gradient=1.0)
    runs = plans((28, 2), (28, 2), (200, 40), (90, 10), (50, 0))
    ours, theirs = (Training(runs, settings, hidden=[9]) for _ in range(2))
    for stop in (3, 4, 8):
        ours.by_blocks(stop), theirs.by_autograd(stop)
        for own, other in zip(ours.bank.parameters(), theirs.bank.parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-3)


def test_a_heads_numbers_depend_neither_on_threads_nor_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, settings = plans(*[(60, 20)] * 5, (16, 0)), PairSettings(mass=0.6, gradient=1.0)
    found = []
    threads = torch.get_num_threads()
    for count, size in ((1, blocks.BLOCK_BYTES), (3, blocks.BLOCK_BYTES), (2, 1)):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
        training = Training(runs, settings, hidden=[9])
        torch.set_num_threads(count)
        try:
            training.by_blocks(6)
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(threads)
        found.append([parameter.detach().clone() for parameter in training.bank.parameters()])
    for one, three, small in zip(*found, strict=True):
        assert torch.equal(one, three)
        torch.testing.assert_close(one, small, rtol=1e-4, atol=1e-4)


def test_what_fails_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(plans((60, 0), (60, 0), (16, 0)), PairSettings(), hidden=[9])
    training.data.embeddings = training.data.embeddings[:10]  # rows that are not there
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(IndexError):
            training.by_blocks(2)
    finally:
        torch.set_num_threads(threads)


def test_bfloat16_products_round_the_factors_only() -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        training = Training(plans((200, 40), (300, 40), (90, 20)), PairSettings(0.6, gradient=1.0), hidden=[33])
        training.bank.precision = precision
        training.by_blocks(1)
        found[precision] = training.gradients()
    for exact, rounded in zip(found["float32"], found["bfloat16"], strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < (exact - rounded).norm() / exact.norm() < 0.1
