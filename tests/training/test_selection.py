from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from guardtrain.training.selection import Candidates, at_edge, pick
from guardtrain.training.settings import BEST, ONE_STANDARD_ERROR


def _by_hand(losses: list[list[float]], held_out: list[int], l2: list[float], rule: str) -> int:
    """One run's choice, from the rule's words; `losses` are those of each candidate on each fold."""
    means = []
    for candidate in losses:
        judged = [(loss, images) for loss, images in zip(candidate, held_out, strict=True) if not math.isnan(loss)]
        means.append(sum(loss * n for loss, n in judged) / sum(n for _, n in judged))
    best = min(range(len(means)), key=lambda c: (means[c], c))
    of_best = [loss for loss in losses[best] if not math.isnan(loss)]
    error = statistics.stdev(of_best) / math.sqrt(len(of_best)) if rule != BEST and len(of_best) > 1 else 0.0
    limit = means[best] + error
    for mean, candidate in zip(means, losses, strict=True):  # two ways to round may fall on two sides of the limit
        assume(str(candidate) == str(losses[best]) or not math.isclose(mean, limit, rel_tol=1e-9, abs_tol=1e-9))
    if rule == BEST:
        return best
    near = [c for c in range(len(means)) if means[c] <= limit]
    return max(near, key=lambda c: l2[c])


@st.composite
def _runs(draw: st.DrawFn) -> tuple[list[list[list[float]]], list[list[int]], list[float]]:
    """Losses of R runs, C candidates and K folds on a coarse grid (ties), whole folds unjudged, and ascending l2."""
    runs, candidates, folds = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    loss = st.integers(0, 16).map(lambda v: v / 8)
    losses, held_out = [], []
    for _ in range(runs):
        judged = draw(st.lists(st.booleans(), min_size=folds, max_size=folds).filter(any))
        own = [[draw(loss) if j else math.nan for j in judged] for _ in range(candidates)]
        losses.append(own)
        held_out.append([draw(st.sampled_from([4, 8, 16])) for _ in range(folds)])
    l2 = sorted(draw(st.lists(st.integers(0, 50), min_size=candidates, max_size=candidates, unique=True)))
    return losses, held_out, [float(v) for v in l2]


@pytest.mark.parametrize("rule", [BEST, ONE_STANDARD_ERROR])
@settings(max_examples=60, deadline=None)
@given(_runs())
def test_every_run_gets_the_candidate_that_the_rule_says(rule: str, runs) -> None:
    losses, held_out, l2 = runs
    found = pick(torch.tensor(losses, dtype=torch.float64), torch.tensor(held_out), l2, rule)
    assert found.tolist() == [_by_hand(own, images, l2, rule) for own, images in zip(losses, held_out, strict=True)]


def test_one_standard_error_takes_the_stronger_penalty_that_folds_cannot_tell_apart() -> None:
    # folds' losses of the best: 0.1 … 0.5, mean 0.3, standard error 0.0707
    best = [0.1, 0.2, 0.3, 0.4, 0.5]
    losses = torch.tensor([[[2.0] * 5, best, [0.37] * 5, [0.38] * 5]])
    held_out, l2 = torch.full((1, 5), 10), [0.1, 1.0, 10.0, 100.0]
    assert pick(losses, held_out, l2, BEST).tolist() == [1]
    assert pick(losses, held_out, l2, ONE_STANDARD_ERROR).tolist() == [2]
    # of candidates in another order the strongest is taken all the same
    order = [3, 2, 0, 1]
    assert pick(losses[:, order], held_out, [l2[c] for c in order], ONE_STANDARD_ERROR).tolist() == [1]


def test_folds_count_by_their_images() -> None:
    losses = torch.tensor([[[0.0, 1.0], [0.9, 0.0]]])
    assert pick(losses, torch.tensor([[9, 1]]), [1.0, 2.0], BEST).tolist() == [0]
    assert pick(losses, torch.tensor([[1, 9]]), [1.0, 2.0], BEST).tolist() == [1]


@pytest.mark.parametrize("rule", [BEST, ONE_STANDARD_ERROR])
def test_a_candidate_that_diverged_is_not_chosen(rule: str) -> None:
    losses = torch.tensor([[[0.5, 0.6], [torch.inf, 0.1], [0.9, 0.8]]])
    assert pick(losses, torch.tensor([[5, 5]]), [1.0, 2.0, 3.0], rule).tolist() == [0]


@pytest.mark.parametrize("rule", [BEST, ONE_STANDARD_ERROR])
def test_a_run_of_which_no_fold_was_judged_leaves_the_others_alone(rule: str) -> None:
    losses = torch.tensor([[[torch.nan] * 2] * 3, [[0.5, 0.5], [0.2, 0.2], [0.4, 0.4]]])
    found = pick(losses, torch.full((2, 2), 5), [1.0, 2.0, 3.0], rule)
    assert 0 <= found[0] < 3
    assert found[1] == 1


def test_candidates_of_some_heads() -> None:
    taken = Candidates(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([7, 8, 9])).take(
        torch.tensor([2, 0])
    )
    assert taken.lr.tolist() == pytest.approx([0.3, 0.1])
    assert taken.l2.tolist() == [3, 1]
    assert taken.steps.tolist() == [9, 7]


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ([100.0] * 39 + [1.0] * 6, "39 of 45 runs chose the strongest penalty there is, l2 = 100"),
        ([0.1] * 3 + [10.0] * 7, "3 of 10 runs chose the weakest penalty there is, l2 = 0.1"),
        ([100.0] * 2 + [10.0] * 8, ""),
        ([10.0, 1.0, 10.0], ""),
        ([], ""),
    ],
)
def test_an_edge_of_the_candidates_is_told(chosen: list[float], told: str) -> None:
    text = at_edge(chosen, [10.0, 0.1, 1.0, 100.0])
    assert text.startswith(told) and bool(text) == bool(told)
    if "strongest" in told:
        assert text.endswith("selection.l2=[0.1,1,10,100,1000]")
    assert at_edge(chosen, [10.0]) == "", "with one candidate there is nothing to choose"
