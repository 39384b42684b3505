from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guardtrain import metrics as gm
from guardtrain.errors import DataError
from guardtrain.metrics import PairBothRight, PairMargin, PairRanking

CLASSES = [(PairBothRight, gm.pair_both_right), (PairRanking, gm.pair_ranking), (PairMargin, gm.pair_margin)]


def _images(n_pairs: int = 12, n_single: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities, labels and pair numbers (with gaps) of images in random order."""
    generator = torch.Generator().manual_seed(n_pairs)
    pair = torch.cat([torch.arange(n_pairs).repeat(2) * 3 + 1, torch.full((n_single,), -1)])
    label = torch.cat([torch.zeros(n_pairs), torch.ones(n_pairs), torch.ones(n_single)]).long()
    order = torch.randperm(len(pair), generator=generator)
    return torch.randint(0, 11, (len(pair),), generator=generator) / 10, label[order], pair[order]


def _pairs(labels: torch.Tensor, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    names = [int(p) for p in pair.unique() if p >= 0]
    safe, unsafe = ([int(((pair == p) & (labels == y)).nonzero()) for p in names] for y in (0, 1))
    return torch.tensor(safe), torch.tensor(unsafe)


@pytest.mark.parametrize(("cls", "function"), CLASSES)
@given(size=st.integers(1, 40))
def test_batches_equal_the_function_wherever_they_cut_pairs(cls, function, size: int) -> None:  # type: ignore[no-untyped-def]
    probs, labels, pair = _images()
    metric = cls()
    for start in range(0, len(probs), size):
        batch = slice(start, start + size)
        metric.update(probs[batch], labels[batch], pair[batch])
    assert metric.compute().item() == pytest.approx(function(probs[None], _pairs(labels, pair)).item(), abs=1e-12)


@pytest.mark.parametrize(("cls", "function"), CLASSES)
def test_two_processes_merge(cls, function) -> None:  # type: ignore[no-untyped-def]
    probs, labels, pair = _images()
    first, second = cls(), cls()
    first.update(probs[:13], labels[:13], pair[:13])
    second.update(probs[13:], labels[13:], pair[13:])
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(function(probs[None], _pairs(labels, pair)).item(), abs=1e-12)


def test_states_are_concatenated_over_processes() -> None:
    metric = PairRanking()
    assert {reduce.__name__ for reduce in metric._reductions.values()} == {"dim_zero_cat"}  # type: ignore[union-attr]
    metric.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]), torch.tensor([4, 4]))
    assert pickle.loads(pickle.dumps(metric)).compute().item() == 1.0


def test_half_pairs_do_not_count_and_repeated_images_count_once() -> None:
    metric = PairRanking()
    metric.update(torch.tensor([0.9, 0.1, 0.3]), torch.tensor([1, 0, 1]), torch.tensor([0, 0, 1]))
    assert metric.compute().item() == 1.0
    metric.update(torch.tensor([0.8, 0.9]), torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert metric.compute().item() == 0.5


def test_without_whole_pairs_the_value_is_nan() -> None:
    metric = PairMargin()
    metric.update(torch.tensor([0.9, 0.1]), torch.tensor([1, 0]), torch.tensor([3, -1]))
    assert metric.compute().isnan()
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().isnan()


def test_forward_gives_the_batch_and_keeps_the_rest() -> None:
    metric = PairBothRight()
    assert metric(torch.tensor([0.9, 0.1]), torch.tensor([1, 0]), torch.tensor([0, 0])).item() == 1.0
    assert metric(torch.tensor([0.1, 0.1]), torch.tensor([1, 0]), torch.tensor([1, 1])).item() == 0.0
    assert metric.compute().item() == 0.5


def test_the_threshold_is_taken() -> None:
    metric = PairBothRight(threshold=0.8)
    metric.update(torch.tensor([0.7, 0.1]), torch.tensor([1, 0]), torch.tensor([0, 0]))
    assert metric.compute().item() == 0.0


@pytest.mark.parametrize(
    ("probs", "labels", "pair", "message"),
    [
        ([2.0, 0.1], [1, 0], [0, 0], "must lie in"),
        ([0.9, 0.1], [2, 0], [0, 0], "Labels must be 0"),
        ([0.9, 0.1], [1, 0], [0], r"shapes \(2,\), \(2,\) and \(1,\)"),
        ([0.9, 0.1], [1, 0], [0.0, 0.0], "Pair numbers must be whole numbers"),
    ],
)
def test_bad_batches_are_refused(probs: list[float], labels: list[int], pair: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PairMargin().update(torch.tensor(probs), torch.tensor(labels), torch.tensor(pair))
