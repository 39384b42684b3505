"""A training cut off in the middle of a step, as by a power cut, and continued from its last checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from guardtrain.training.fitted import FittedBank
from guardtrain.training.module import GuardModule


def assert_resumes_to_the_same_bits(
    fit: Callable[[Path | None], FittedBank],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    cut_at: int,
    steps_after: Sequence[int],
) -> None:
    """Cut the training of `fit(folder)` off at a batch, and compare what the second start makes with `fit(None)`.

    Args:
        fit: trains heads that take steps; writes checkpoints into the folder.
        folder: empty.
        monkeypatch: pytest's.
        cut_at: number of the batch, from 1.
        steps_after: the first step of each batch that the second start trains: on from the checkpoint, and no further.
    """
    whole = fit(None).bank.state_dict()
    original = GuardModule.training_step
    seen: list[int] = []

    def crash(self, batch, batch_idx):
        seen.append(batch.step)
        if len(seen) == cut_at:
            raise RuntimeError("power cut")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(GuardModule, "training_step", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(folder)
    resumed = fit(folder).bank.state_dict()
    assert seen[cut_at:] == list(steps_after)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
