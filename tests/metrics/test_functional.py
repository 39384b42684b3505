from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch.utils._python_dispatch import TorchDispatchMode

from guardtrain import metrics as gm
from guardtrain.errors import DataError


@st.composite
def scored(draw: st.DrawFn, min_size: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, N) probabilities with many ties, also at 0, 1/2 and 1, and (N,) labels of both classes."""
    n = draw(st.integers(min_size, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    levels = draw(st.sampled_from([1, 4, 10, 30, 10_000]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    probs = (rng.integers(0, levels + 1, (3, n)) / levels).astype(dtype)
    labels = (rng.random(n) < draw(st.sampled_from([0.1, 0.5, 0.8]))).astype(np.int64)
    labels[:2] = [0, 1]
    return torch.from_numpy(probs), torch.from_numpy(labels)


@st.composite
def paired(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(R, N) probabilities with (P,) columns of the safe and of the unsafe halves."""
    probs, _ = draw(scored(min_size=6))
    columns = torch.from_numpy(np.random.default_rng(draw(st.integers(0, 999))).permutation(probs.shape[1]))
    p = draw(st.integers(1, len(columns) // 2))
    return probs, columns[:p], columns[p : 2 * p]


def _same(ours: torch.Tensor, reference: list[float], tolerance: float = 1e-6) -> None:
    assert ours.shape == (len(reference),) and ours.dtype == torch.float64
    assert ours.tolist() == pytest.approx([float(v) for v in reference], abs=tolerance)


@given(scored())
def test_auroc_and_average_precision(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    probs, labels = data
    _same(gm.auroc(probs, labels), [sk.roc_auc_score(labels, p) for p in probs], 1e-12)
    _same(gm.auroc(probs, labels), [tm.binary_auroc(p, labels) for p in probs])
    _same(gm.average_precision(probs, labels), [sk.average_precision_score(labels, p) for p in probs], 1e-12)
    _same(gm.average_precision(probs, labels), [tm.binary_average_precision(p, labels) for p in probs])


@given(scored(), st.sampled_from([0.0, 0.05, 0.1, 0.25, 1 / 3, 0.5, 1.0]))
def test_recall_at_fpr(data: tuple[torch.Tensor, torch.Tensor], fpr: float) -> None:
    probs, labels = data

    def reference(p: torch.Tensor) -> float:
        rates, recalls, _ = sk.roc_curve(labels, p, drop_intermediate=False)
        return float(recalls[rates <= fpr + 1e-9].max())

    ours = gm.recall_at_fpr(probs, labels, fpr)
    _same(ours, [reference(p) for p in probs])
    _same(ours, [tm.binary_sensitivity_at_specificity(p, labels, max(1 - fpr - 1e-6, 0.0))[0] for p in probs])


@given(scored())
def test_threshold_metrics(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    probs, labels = data
    called = (probs >= 0.5).long()
    _same(gm.accuracy(probs, labels), [sk.accuracy_score(labels, c) for c in called], 1e-12)
    _same(gm.f1(probs, labels), [sk.f1_score(labels, c, zero_division=0) for c in called], 1e-12)
    # torchmetrics calls unsafe what is above the threshold, so it is asked about one just below ours.
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    _same(gm.accuracy(probs, labels), [tm.binary_accuracy(p, labels, below) for p in probs])
    _same(gm.f1(probs, labels), [tm.binary_f1_score(p, labels, below) for p in probs])


@given(scored(), st.sampled_from([2, 5, 10, 15]))
def test_calibration(data: tuple[torch.Tensor, torch.Tensor], n_bins: int) -> None:
    """Also of probabilities on the edge of a bin: they belong to the bin above it."""
    probs, labels = data
    _same(gm.brier(probs, labels), [sk.brier_score_loss(labels, p) for p in probs])

    def by_definition(p: list[float]) -> float:
        terms = [
            abs(sum(p_i - y for p_i, y in zip(p, labels.tolist(), strict=True) if k / n_bins <= p_i < (k + 1) / n_bins))
            for k in range(n_bins + 1)  # the last bin is that of 1 alone
        ]
        return sum(terms) / len(p)

    _same(gm.ece(probs, labels, n_bins), [by_definition(p) for p in probs.tolist()], 1e-12)
    # torchmetrics adds up steps for its edges, so that on some processors 1/5 lies below its 1/5: none may lie there
    place = probs * n_bins
    middle = (place.floor() + 0.5) / n_bins
    probs = torch.where(((place - place.round()).abs() < 1e-3) & (probs > 0) & (probs < 1), middle, probs)
    _same(gm.ece(probs, labels, n_bins), [tm.binary_calibration_error(p, labels, n_bins, "l1") for p in probs], 1e-5)


def test_ece_by_hand() -> None:
    # Bins [0, 1/2), [1/2, 1) and {1}: |.2 - 0| * 1/4 + |.6 - 1| * 2/4 + |1 - 0| * 1/4.
    probs, labels = torch.tensor([[0.2, 0.6, 0.6, 1.0]]), torch.tensor([0, 1, 1, 0])
    assert gm.ece(probs, labels, 2).item() == pytest.approx(0.5)


@given(paired())
def test_pair_metrics(data: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    probs, safe, unsafe = data
    both, ranking, margin = [], [], []
    for p in probs.tolist():
        couples = [(p[s], p[u]) for s, u in zip(safe.tolist(), unsafe.tolist(), strict=True)]
        both.append(sum(s < 0.5 <= u for s, u in couples) / len(couples))
        ranking.append(sum(1.0 if u > s else 0.5 if u == s else 0.0 for s, u in couples) / len(couples))
        clipped = [[min(max(v, 1e-6), 1 - 1e-6) for v in couple] for couple in couples]
        logits = [[math.log(v / (1 - v)) for v in couple] for couple in clipped]
        margin.append(sum(u - s for s, u in logits) / len(couples))
    _same(gm.pair_both_right(probs, (safe, unsafe)), both, 1e-12)
    _same(gm.pair_ranking(probs, (safe, unsafe)), ranking, 1e-12)
    _same(gm.pair_margin(probs, (safe, unsafe)), margin)


def test_an_image_at_the_threshold_is_unsafe() -> None:
    probs, pairs = torch.tensor([[0.5, 0.5]]), (torch.tensor([0]), torch.tensor([1]))
    assert gm.accuracy(probs, torch.tensor([0, 1])).item() == 0.5
    assert gm.pair_both_right(probs, pairs).item() == 0
    assert gm.pair_both_right(torch.tensor([[0.49, 0.5]]), pairs).item() == 1
    assert gm.pair_both_right(torch.tensor([[0.49, 0.5]]), pairs, threshold=0.6).item() == 0


def test_negative_zero_ties_with_zero() -> None:
    assert gm.auroc(torch.tensor([[-0.0, 0.0]]), torch.tensor([0, 1])).item() == 0.5
    assert gm.auroc(torch.tensor([[0.0, -0.0]]).double(), torch.tensor([0, 1])).item() == 0.5


def test_half_precision_is_taken() -> None:
    probs, labels = torch.tensor([[0.25, 0.75, 0.5]]), torch.tensor([0, 1, 1])
    for dtype in (torch.float16, torch.bfloat16):
        assert gm.auroc(probs.to(dtype), labels).item() == 1.0
        assert gm.pair_margin(probs.to(dtype), (torch.tensor([0]), torch.tensor([1]))).isfinite().all()


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_makes_rank_metrics_nan(label: int) -> None:
    probs, labels = torch.rand(2, 5), torch.full((5,), label)
    for metric in (gm.auroc, gm.average_precision, gm.recall_at_fpr):
        assert metric(probs, labels).isnan().tolist() == [True, True]
    for metric in (gm.f1, gm.accuracy, gm.brier, gm.ece):
        assert metric(probs, labels).isfinite().all()


def test_no_images_and_no_pairs_make_nan() -> None:
    probs, labels = torch.empty(2, 0), torch.empty(0, dtype=torch.long)
    for metric in (gm.auroc, gm.average_precision, gm.recall_at_fpr, gm.f1, gm.accuracy, gm.brier, gm.ece):
        assert metric(probs, labels).isnan().tolist() == [True, True]
    none = (torch.empty(0, dtype=torch.long),) * 2
    for metric in (gm.pair_both_right, gm.pair_ranking, gm.pair_margin):
        assert metric(torch.rand(2, 4), none).isnan().tolist() == [True, True]


@pytest.mark.parametrize("value", [-0.001, 1.5, float("nan"), float("inf")])
def test_logits_and_nans_are_refused(value: float) -> None:
    probs = torch.tensor([[0.1, value, 0.5]])
    for metric in (gm.auroc, gm.f1, gm.brier, gm.ece):
        with pytest.raises(DataError, match=r"must lie in \[0, 1\]"):
            metric(probs, torch.tensor([0, 1, 1]))
    with pytest.raises(DataError, match="Pass sigmoid"):
        gm.pair_margin(probs, (torch.tensor([0]), torch.tensor([1])))


def test_malformed_input_is_refused() -> None:
    probs, labels = torch.rand(2, 3), torch.tensor([0, 1, 1])
    with pytest.raises(DataError, match=r"shapes \(3,\) and \(3,\)"):
        gm.auroc(probs[0], labels)
    with pytest.raises(DataError, match=r"shapes \(2, 3\) and \(2,\)"):
        gm.auroc(probs, labels[:2])
    with pytest.raises(DataError, match="Labels must be 0"):
        gm.auroc(probs, labels + 1)
    with pytest.raises(DataError, match="must be floats"):
        gm.auroc(probs.long(), labels)
    with pytest.raises(DataError, match=r"must lie in \[0, 3\)"):
        gm.pair_ranking(probs, (torch.tensor([0]), torch.tensor([3])))
    with pytest.raises(DataError, match="two index arrays"):
        gm.pair_ranking(probs, (torch.tensor([0, 1]), torch.tensor([2])))
    with pytest.raises(DataError, match="whole numbers"):
        gm.pair_ranking(probs, (torch.tensor([0.0]), torch.tensor([1.0])))


def test_many_heads_take_no_more_operations_than_one() -> None:
    """What makes a bank of 450 heads quick: none is worked on alone."""

    class Counted(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.operations += 1
            return func(*args, **(kwargs or {}))

    def operations(heads: int) -> int:
        generator = torch.Generator().manual_seed(0)
        probs, labels = torch.rand(heads, 40, generator=generator), torch.randint(0, 2, (40,), generator=generator)
        with Counted() as counted:
            gm.guard_metrics(probs, labels, (torch.arange(20), torch.arange(20, 40)))
        return counted.operations

    assert operations(450) == operations(1) > 10
