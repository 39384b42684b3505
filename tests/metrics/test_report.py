from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from guardtrain import metrics as gm
from guardtrain.errors import DataError
from guardtrain.metrics import report


def _bank(
    r: int = 4, n: int = 40, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    return torch.rand(r, n, generator=generator), labels, (torch.arange(0, n, 2), torch.arange(1, n, 2))


def test_guard_metrics_are_the_functions_in_the_order_of_the_table() -> None:
    probs, labels, pairs = _bank()
    metrics = gm.guard_metrics(probs, labels, pairs, threshold=0.4, fpr=0.2)
    assert tuple(metrics) == gm.METRICS
    expected = {
        "auroc": gm.auroc(probs, labels),
        "average_precision": gm.average_precision(probs, labels),
        "f1": gm.f1(probs, labels, 0.4),
        "accuracy": gm.accuracy(probs, labels, 0.4),
        "recall_at_fpr": gm.recall_at_fpr(probs, labels, 0.2),
        "brier": gm.brier(probs, labels),
        "ece": gm.ece(probs, labels),
        "pair_both_right": gm.pair_both_right(probs, pairs, 0.4),
        "pair_ranking": gm.pair_ranking(probs, pairs),
        "pair_margin": gm.pair_margin(probs, pairs),
    }
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value, rtol=0, atol=1e-12, msg=name)


@given(
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([0.01, 1.0, 60.0]),
    st.sampled_from([None, 5]),
    st.integers(0, 999),
)
def test_logits_rank_what_probabilities_no_longer_do(
    dtype: torch.dtype, scale: float, steps: int | None, seed: int
) -> None:
    """Heads that are surer than a float32 is, some with ties, negative zeros among them."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, scale, (3, 60))).to(dtype)
    if steps is not None:
        logits = (logits / scale).mul(steps).round() / steps * scale
    labels = torch.from_numpy((rng.random(60) < 0.4).astype(np.int64))
    labels[:2] = torch.tensor([0, 1])
    halves = torch.arange(0, 60, 2), torch.arange(1, 60, 2)
    found = gm.guard_metrics(torch.sigmoid(logits.float()), labels, halves, logits=logits)
    truth, exact = labels.numpy(), logits.double().numpy()
    for r, row in enumerate(exact):
        rates, recalls, _ = sk.roc_curve(truth, row, drop_intermediate=False)
        difference = row[halves[1]] - row[halves[0]]
        assert found["auroc"][r].item() == pytest.approx(sk.roc_auc_score(truth, row), abs=1e-9)
        assert found["average_precision"][r].item() == pytest.approx(sk.average_precision_score(truth, row), abs=1e-9)
        assert found["recall_at_fpr"][r].item() == pytest.approx(recalls[rates <= 0.05].max(), abs=1e-9)
        assert found["pair_margin"][r].item() == pytest.approx(difference.mean(), rel=1e-9, abs=1e-9)
        assert found["pair_ranking"][r].item() == pytest.approx(
            ((difference > 0).mean() + (difference >= 0).mean()) / 2
        )
    alone = gm.guard_metrics(torch.sigmoid(logits.float()), labels, halves)
    for name in ("f1", "accuracy", "brier", "ece", "pair_both_right"):
        assert torch.equal(alone[name], found[name])


def test_logits_that_are_no_logits_of_these_probabilities_are_refused() -> None:
    probs, labels, _ = _bank()
    for logits, message in (
        (probs[:, :3], r"shape of the probabilities, \(4, 40\); they are torch.float32 of \(4, 3\)"),
        (torch.full_like(probs, torch.nan), "Logits must not be NaN"),
    ):
        with pytest.raises(DataError, match=message):
            gm.guard_metrics(probs, labels, logits=logits)


def test_without_pairs_the_pair_columns_are_nan() -> None:
    probs, labels, _ = _bank()
    metrics = gm.guard_metrics(probs, labels)
    assert tuple(metrics) == gm.METRICS
    assert [name for name, value in metrics.items() if value.isnan().all()] == list(gm.METRICS[-3:])


def test_blocks_of_heads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, labels, pairs = _bank(r=7)
    whole = gm.guard_metrics(probs, labels, pairs)
    monkeypatch.setattr(report, "_BLOCK", 3 * probs.shape[1])
    blocks = gm.guard_metrics(probs, labels, pairs)
    for name in gm.METRICS:
        torch.testing.assert_close(blocks[name], whole[name], rtol=0, atol=1e-12, msg=name)


def test_no_heads() -> None:
    probs, labels, pairs = _bank()
    assert {tuple(v.shape) for v in gm.guard_metrics(probs[:0], labels, pairs).values()} == {(0,)}


def test_slices_are_the_metrics_of_their_images_and_whole_pairs() -> None:
    probs, labels, pairs = _bank(n=40)
    rows = np.arange(40)
    # The third slice ends in the middle of a pair, which then does not count.
    slices = {("all", "all"): rows >= 0, ("category", "a"): rows < 20, ("category", "b"): (rows >= 20) & (rows < 31)}
    sliced = gm.sliced_guard_metrics(probs, labels, pairs, slices)
    assert list(sliced) == list(slices)
    by_hand = {
        ("all", "all"): gm.guard_metrics(probs, labels, pairs),
        ("category", "a"): gm.guard_metrics(
            probs[:, :20], labels[:20], (torch.arange(0, 20, 2), torch.arange(1, 20, 2))
        ),
        ("category", "b"): gm.guard_metrics(
            probs[:, 20:31], labels[20:31], (torch.arange(0, 10, 2), torch.arange(1, 10, 2))
        ),
    }
    for key, expected in by_hand.items():
        for name in gm.METRICS:
            torch.testing.assert_close(sliced[key][name], expected[name], rtol=0, atol=1e-12, msg=f"{key} {name}")


def test_small_slices_give_nan_instead_of_stopping() -> None:
    probs, labels, pairs = _bank()
    rows = np.arange(40)
    slices = {("category", "safe only"): rows % 2 == 0, ("source", "none"): rows < 0}
    sliced = gm.sliced_guard_metrics(probs, labels, pairs, slices)
    safe_only = {name: math.isnan(value[0]) for name, value in sliced["category", "safe only"].items()}
    assert [name for name, undefined in safe_only.items() if undefined] == [
        "auroc",
        "average_precision",
        "recall_at_fpr",
        "pair_both_right",
        "pair_ranking",
        "pair_margin",
    ]
    assert all(value.isnan().all() for value in sliced["source", "none"].values())


def test_bad_masks_are_refused() -> None:
    probs, labels, pairs = _bank()
    for mask in (np.arange(40), np.ones(39, dtype=bool)):
        with pytest.raises(DataError, match=r"slice \('category', 'a'\) must be bool of shape \(40,\)"):
            gm.sliced_guard_metrics(probs, labels, pairs, {("category", "a"): mask})
