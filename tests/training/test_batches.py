from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.training.batches import IndexStream, RunPlan, batch_width


def _plan(n, seed=0, offset=0):
    return RunPlan(np.arange(offset, offset + n), seed)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 70), batch=st.integers(1, 40), epochs=st.integers(1, 3), seed=st.integers(0, 9))
def test_every_image_is_seen_once_an_epoch(n, batch, epochs, seed):
    stream = IndexStream([_plan(n, seed)], batch)
    if n <= batch:
        one = stream.batch(3)
        assert sorted(one.index[0][one.weight[0] > 0].tolist()) == list(range(n))
        return
    steps = -(-epochs * n // batch)
    seen = torch.cat([stream.batch(step).index[0] for step in range(steps)])[: epochs * n]
    for epoch in range(epochs):
        assert sorted(seen[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_a_batch_depends_neither_on_the_bank_nor_on_what_was_drawn_before():
    plans = [_plan(50, 1), _plan(300, 2, 1000), _plan(10, 3, 5000)]
    stream = IndexStream(plans, 32)
    for step in range(30):
        stream.batch(step)
    together, alone = stream.batch(30), IndexStream(plans[1:2], 32).batch(30)
    assert torch.equal(together.index[1], alone.index[0])
    assert torch.equal(together.weight[1], alone.weight[0])


def test_orders_differ_between_epochs_and_seeds():
    first, second = (IndexStream([_plan(64, seed)], 32) for seed in (0, 1))
    epochs = [torch.cat([first.batch(2 * e).index, first.batch(2 * e + 1).index], 1) for e in (0, 1)]
    assert not torch.equal(*epochs)
    assert not torch.equal(first.batch(0).index, second.batch(0).index)


def test_short_runs_are_padded_with_weight_zero():
    batch = IndexStream([_plan(3), _plan(8)], 100).batch(0)
    assert batch.index.shape == (2, 13)  # an eighth of the batch size, rounded up
    assert batch.weight.sum(1).tolist() == [3, 8]


@given(images=st.integers(1, 500), batch=st.integers(1, 300))
def test_a_batch_has_room_for_the_run_and_little_more(images, batch):
    width = batch_width(images, batch)
    assert min(images, batch) <= width <= batch
    assert width - min(images, batch) < -(-batch // 8)


def test_there_are_few_widths():
    assert {batch_width(images, 128) for images in range(1, 1000)} == {16, 32, 48, 64, 80, 96, 112, 128}
