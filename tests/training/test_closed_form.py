from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from guardtrain.heads import GDAHead, HeadData, NeighboursHead, PairDirectionHead, RidgeHead, ZeroShotHead
from guardtrain.training.batches import RunPlan
from guardtrain.training.closed_form import fit_direct, head_data
from guardtrain.training.settings import LossSettings, SelectionSettings
from tests.heads.toys import anchors, toy_data

STRENGTHS = [0.01, 0.3, 10.0, 300.0]
FIXED = SelectionSettings()
CROSS = SelectionSettings(method="cross_validation", folds=4, l2=STRENGTHS)


def _problem(seed: int = 0, dim: int = 20):
    data = toy_data(60, dim, seed=seed, pairs=10)
    g = np.random.default_rng(seed)
    plans = []
    for n, k in ((20, 4), (40, 10), (60, 0)):
        real, halves = g.permutation(60)[:n], data.pairs[g.permutation(10)[:k]].ravel()
        train = np.concatenate([real, halves])
        folds = np.concatenate([g.choice(4, n, p=[0.6, 0.2, 0.1, 0.1]), np.arange(k).repeat(2) % 4])  # uneven
        plans.append(RunPlan(train, seed=n, folds=folds, split=n, pairs=data.pairs[g.permutation(10)]))
    return torch.from_numpy(data.x), torch.from_numpy(data.y), plans


@pytest.mark.parametrize("class_weight", ["balanced", "none"])
@pytest.mark.parametrize("head", [RidgeHead(), GDAHead(), PairDirectionHead(), NeighboursHead(neighbours=3)], ids=str)
def test_the_strength_is_the_best_on_held_out_folds(head, class_weight: str) -> None:
    """Against a loop over folds with scikit-learn's weights and log-loss."""
    x, y, plans = _problem()
    loss = LossSettings(class_weight=class_weight)
    banks, chosen, _ = fit_direct(head, x, y, plans, selection=CROSS, loss=loss)
    assert len(banks) == len(plans)
    for r, plan in enumerate(plans):
        total = np.zeros(len(STRENGTHS))
        for fold in range(4):
            inside, held = plan.train[plan.folds != fold], plan.train[plan.folds == fold]
            weight = compute_class_weight(
                None if class_weight == "none" else "balanced", classes=np.array([0, 1]), y=y[inside].numpy()
            )
            known = {int(row): i for i, row in enumerate(inside)}
            pairs = [[known[int(i)] for i in pair] for pair in plan.pairs if set(map(int, pair)) <= set(known)]
            data = HeadData.of(
                x[inside].numpy(),
                y[inside].numpy(),
                weight[y[inside].numpy()],
                np.array(pairs, dtype=np.int64),
                int((plan.folds[: plan.split] != fold).sum()),
            )
            for c, bank in enumerate(head.solve(data, STRENGTHS)):
                p = torch.sigmoid(bank(x[held]).double())[0].detach().numpy()
                per_image = weight[y[held].numpy()]
                total[c] += len(held) * log_loss(y[held].numpy(), p, sample_weight=per_image, labels=[0, 1])
        assert chosen[r] == STRENGTHS[int(total.round(9).argmin())]
        whole = head.solve(head_data(x, y, plan, class_weight), [float(chosen[r])])[0]
        torch.testing.assert_close(banks[r](x), whole(x))


def test_choices_differ_and_a_run_does_not_depend_on_its_neighbours() -> None:
    x, y, plans = _problem(seed=1)
    banks, chosen, _ = fit_direct(GDAHead(), x, y, plans, selection=CROSS, loss=LossSettings())
    assert set(chosen) <= set(STRENGTHS)
    alone, own, _ = fit_direct(GDAHead(), x, y, plans[1:2], selection=CROSS, loss=LossSettings())
    assert own[0] == chosen[1]
    torch.testing.assert_close(alone[0](x), banks[1](x), rtol=1e-6, atol=1e-6)


def test_of_equal_candidates_the_first_is_taken_and_fixed_takes_the_losss() -> None:
    x, y, plans = _problem()
    head = ZeroShotHead().anchored(anchors(20))  # the same at every strength
    selection = replace(CROSS, l2=[3.0, 1.0])
    assert fit_direct(head, x, y, plans, selection=selection, loss=LossSettings())[1].tolist() == [3.0] * 3
    assert fit_direct(head, x, y, plans, selection=FIXED, loss=LossSettings(l2=7.0))[1].tolist() == [7.0] * 3
    assert fit_direct(head, x, y, plans, selection=FIXED, loss=LossSettings(l2=None))[1].tolist() == [1.0] * 3
    only = replace(CROSS, l2=[])
    assert fit_direct(head, x, y, plans, selection=only, loss=LossSettings(l2=7.0))[1].tolist() == [7.0] * 3


@dataclass
class _Witness:
    """A user's own direct head, which keeps what it was given."""

    name: str = "witness"
    seen: list[HeadData] = field(default_factory=list)
    convex: ClassVar[bool] = True

    def bank(self, heads: int, dim: int):
        return RidgeHead().bank(heads, dim)

    def solve(self, data: HeadData, strengths):
        self.seen.append(data)
        return RidgeHead().solve(data, strengths)


def test_a_head_sees_its_runs_images_complete_pairs_and_class_weights() -> None:
    x, y = torch.arange(24.0).view(12, 2), torch.tensor([0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1])
    # rows 6/7, 8/9, 11/10 are pairs; of 8/9 the run has one half only
    plan = RunPlan(np.array([3, 1, 0, 7, 10, 6, 8, 11]), seed=0, split=3, pairs=np.array([[8, 9], [11, 10], [6, 7]]))
    head = _Witness()
    fit_direct(head, x, y, [plan], selection=FIXED, loss=LossSettings())
    (data,) = head.seen
    assert np.array_equal(data.x, x[plan.train].numpy())
    assert data.x.dtype == np.float32
    assert data.y.tolist() == [0, 1, 0, 0, 0, 1, 1, 1]
    assert data.pairs.tolist() == [[7, 4], [5, 3]]
    assert data.n_real == 3
    np.testing.assert_allclose(data.weights, 1)  # four of each class
    head = _Witness()
    folded = replace(plan, folds=np.array([0, 1, 1, 0, 1, 0, 1, 1]))
    fit_direct(head, x, y, [folded], selection=replace(CROSS, l2=[1.0, 2.0]), loss=LossSettings())
    without_0, without_1, whole = head.seen
    assert (without_0.pairs.tolist(), without_0.n_real) == ([[4, 2]], 2)
    assert (without_1.pairs.tolist(), without_1.n_real) == ([[2, 1]], 1)
    np.testing.assert_allclose(without_0.weights, np.where(without_0.y == 1, 5 / 6, 5 / 4))
    assert len(whole.x) == 8


def test_a_plan_without_pairs_is_all_real() -> None:
    x, y, plans = _problem()
    data = head_data(x, y, RunPlan(plans[0].train, seed=0), "none")
    assert data.pairs.shape == (0, 2)
    assert data.n_real == len(data.x)
    assert (data.weights == 1).all()


def test_a_fold_that_leaves_one_class_is_passed_over() -> None:
    x, y, _ = _problem()
    train = np.concatenate([np.flatnonzero(y == 0)[:10], np.flatnonzero(y == 1)[:4]])
    folds = np.concatenate([np.arange(10) % 2, np.zeros(4, dtype=np.int64)])  # fold 0 holds all unsafe images
    plan = RunPlan(train, seed=0, folds=folds)
    _, chosen, _ = fit_direct(RidgeHead(), x, y, [plan], selection=CROSS, loss=LossSettings())
    assert chosen[0] in STRENGTHS


def test_a_run_that_cannot_be_fitted_is_named_and_set_aside(caplog) -> None:
    x, y, plans = _problem()
    broken = next(int(row) for row in plans[1].train if row not in plans[0].train and row not in plans[2].train)
    x[broken] = torch.nan
    _, _, failed = fit_direct(GDAHead(), x, y, plans, selection=FIXED, loss=LossSettings())
    assert failed.tolist() == [False, True, False]
    assert "'gda' cannot be fitted on the 60 images of the run with seed 40" in caplog.text
    one_class = RunPlan(np.flatnonzero(y == 0)[:9], seed=5)
    *_, failed = fit_direct(GDAHead(), torch.nan_to_num(x), y, [one_class], selection=FIXED, loss=LossSettings())
    assert failed.tolist() == [True]
    assert "9 images of the run with seed 5: they are 9 safe and 0 unsafe" in caplog.text
