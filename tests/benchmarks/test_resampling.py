"""Weighted counts and AUROC against scikit-learn on the same weights, and draws that do not depend on memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from guardtrain.benchmarks import resampling
from guardtrain.benchmarks.resampling import Replicates, resampled
from guardtrain.benchmarks.slices import Judged, masks_of
from guardtrain.curves.bootstrap import group_draws
from tests.benchmarks.judged import judged


def counted(data: Judged, replicates: int = 2) -> tuple[Replicates, dict]:
    masks = masks_of(data, [None, ("Sexual",)])
    return resampled(data, masks, replicates, seed=3), masks


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 60), st.integers(0, 12), st.integers(0, 10_000))
def test_each_replicate_is_scikit_learns_on_the_same_weights(n: int, pairs: int, seed: int) -> None:
    data = judged(n, guards=2, seed=seed, pairs=pairs, missing=seed % 3 / 10)
    found, masks = counted(data)
    draws = np.concatenate([np.ones((data.groups, 1)), group_draws(data.groups, 2, np.random.default_rng(3))], axis=1)
    safe, unsafe = data.pairs
    for place, mask in list(enumerate(masks.values()))[:: 1 + len(masks) // 6]:
        for k, b in np.ndindex(2, 3):
            own = mask & data.known[k]
            w, y = draws[data.group, b][own], data.labels[own]
            table = np.zeros((2, 2))
            np.add.at(table, (y.astype(int), data.flagged[k][own].astype(int)), w)
            np.testing.assert_allclose(
                [getattr(found, name)[k, place, b] for name in ("alarms", "hits", "unsafe", "safe")],
                [table[0, 1], table[1, 1], table[1].sum(), table[0].sum()],
            )
            if (w * y).sum() and (w * ~y).sum():
                wanted = roc_auc_score(y, data.logits[k][own], sample_weight=w)
                assert found.auroc[k, place, b] == pytest.approx(wanted, abs=1e-12 if b == 0 else 1e-5)
            else:
                assert np.isnan(found.auroc[k, place, b])
            both = own[safe] & own[unsafe]
            v = draws[data.group[safe[both]], b]
            right = data.flagged[k][unsafe[both]] & ~data.flagged[k][safe[both]]
            above = np.sign(data.logits[k][unsafe[both]] - data.logits[k][safe[both]]) / 2 + 0.5
            np.testing.assert_allclose(
                [found.pairs[k, place, b], found.both_right[k, place, b], found.ranked[k, place, b]],
                [v.sum(), v @ right, v @ above],
                atol=1e-6,
            )


def test_draws_do_not_depend_on_how_many_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = judged(80, pairs=5)
    whole = counted(data, 40)[0]
    monkeypatch.setattr(resampling, "_WIDTH", 7)
    parts = counted(data, 40)[0]
    for name in ("hits", "alarms", "auroc", "both_right", "unsafe"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-6)
    assert whole.auroc[0, 0, 1:].std() > 0


def test_a_group_is_drawn_as_one() -> None:
    data = judged(0, guards=1, pairs=30)
    found, _ = counted(data, 50)
    np.testing.assert_array_equal(found.unsafe[0, 0], found.safe[0, 0])
    np.testing.assert_array_equal(found.pairs[0, 0], found.safe[0, 0])
