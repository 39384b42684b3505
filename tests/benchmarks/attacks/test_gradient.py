"""The attacks on models whose worst case is known in closed form."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guardtrain.benchmarks.attacks.gradient import Margins, deepfool, eight_bit, fgsm, pgd, within

SHAPE = (3, 4, 5)


def linear(seed: int) -> tuple[Margins, np.ndarray, float]:
    """The margins of `x·w + b`, with w and b."""
    g = np.random.default_rng(seed)
    w, b = g.normal(size=SHAPE), float(g.normal())

    def margins(pixels: Tensor, labels: Tensor) -> Tensor:
        logits = (pixels.double() * torch.from_numpy(w)).flatten(1).sum(1) + b
        return torch.where(labels == 1, 1.0, -1.0) * logits

    return margins, w, b


def curved(pixels: Tensor, labels: Tensor) -> Tensor:
    """A margin that is not linear: of a quarter of the pixels the slope changes its sign within the ball."""
    x = pixels.flatten(1)
    return (torch.sin(40 * x) + x * torch.linspace(-3, 3, x.shape[1])).sum(1) * torch.where(labels == 1, 1.0, -1.0)


def grey(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images away from black and white, and labels."""
    g = np.random.default_rng(seed)
    return torch.from_numpy(g.uniform(0.3, 0.7, (n, *SHAPE)).astype(np.float32)), torch.arange(n) % 2


def test_fgsm_takes_the_step_that_is_worst_for_a_linear_model() -> None:
    margins, w, _ = linear(0)
    x, y = grey(6, 1)
    found = fgsm(margins, x, y, 0.02)
    sides = np.where(y.numpy() == 1, 1, -1)[:, None, None, None]
    np.testing.assert_allclose(found.pixels.numpy(), x.numpy() - 0.02 * sides * np.sign(w), atol=1e-6)
    # the closed form: the margin falls by ε·|w|₁, and by no change of that size by more
    fall = (margins(x, y) - margins(found.pixels, y)).numpy()
    np.testing.assert_allclose(fall, 0.02 * np.abs(w).sum(), rtol=1e-4)
    assert not found.flat.any()


def test_fgsm_follows_the_slope_by_finite_differences_and_stays_between_black_and_white() -> None:
    x, y = grey(3, 2)
    found = fgsm(curved, x, y, 0.01).pixels
    for i in range(3):
        for place in ((0, 0, 0), (1, 2, 3), (2, 3, 4)):
            up, down = x.double().clone(), x.double().clone()
            up[(i, *place)] += 1e-4
            down[(i, *place)] -= 1e-4
            slope = float((curved(up, y) - curved(down, y))[i])
            assert float(found[(i, *place)] - x[(i, *place)]) == pytest.approx(-0.01 * np.sign(slope), abs=1e-6)
    bright = fgsm(curved, torch.ones(1, *SHAPE), torch.ones(1, dtype=torch.int64), 0.1).pixels
    assert float(bright.max()) <= 1
    assert float(bright.min()) >= 0.9 - 1e-6


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.001, 0.6), st.integers(1, 12), st.booleans())
def test_pgd_stays_in_the_ball_and_between_black_and_white(seed: int, epsilon: float, steps: int, inside: bool) -> None:
    g = np.random.default_rng(seed)
    x = torch.from_numpy(g.uniform(0, 1, (4, *SHAPE)).astype(np.float32))
    y = torch.arange(4) % 2
    start = torch.from_numpy(g.uniform(-1, 1, x.shape).astype(np.float32)) if inside else None
    found = pgd(curved, x, y, epsilon, steps=steps, step_size=epsilon / 3, start=start).pixels
    assert float((found - x).abs().max()) <= epsilon + 1e-6
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_pgd_reaches_the_worst_case_of_a_linear_model_and_beats_one_step_on_a_curved_one() -> None:
    margins, w, _ = linear(3)
    x, y = grey(6, 4)
    never = lambda pixels, rows: torch.zeros(len(rows), dtype=torch.bool)  # noqa: E731
    found = pgd(margins, x, y, 0.02, steps=30, step_size=0.002, settled=never)
    worst = margins(x, y).numpy() - 0.02 * np.abs(w).sum()
    np.testing.assert_allclose(margins(found.pixels, y).numpy(), worst, atol=1e-4)
    assert found.steps.tolist() == [30] * 6
    once, often = fgsm(curved, x, y, 0.1).pixels, pgd(curved, x, y, 0.1, steps=40, step_size=0.01, settled=never).pixels
    assert (curved(often, y) < curved(once, y)).all()


def test_more_steps_never_make_pgd_weaker() -> None:
    x, y = grey(5, 5)
    lowest = [curved(pgd(curved, x, y, 0.1, steps=n, step_size=0.09).pixels, y) for n in (1, 2, 5, 9)]
    assert all((after <= before + 1e-5).all() for before, after in pairwise(lowest))


def test_pgd_stops_where_an_image_is_settled_and_goes_on_where_it_is_not() -> None:
    margins, *_ = linear(6)
    x, y = grey(6, 7)
    wrong = margins(x, y) < 0
    assert wrong.any()
    assert not wrong.all()
    at_once = pgd(margins, x, y, 0.3, steps=9, step_size=0.05)
    assert (at_once.steps[wrong] == 0).all()
    assert (at_once.steps[~wrong] > 0).all()
    assert (margins(at_once.pixels, y) < 0).all()
    picky = pgd(margins, x, y, 0.3, steps=9, step_size=0.05, settled=lambda pixels, rows: rows % 2 == 0)
    assert (picky.steps[1::2] == 9).all()
    torch.testing.assert_close(picky.steps[::2], at_once.steps[::2])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_on_a_linear_model_is_the_projection_onto_its_boundary(norm: str) -> None:
    margins, w, b = linear(8)
    x, _ = grey(6, 9)
    logits = (x.numpy() * w).sum((1, 2, 3)) + b
    y = torch.from_numpy((logits > 0).astype(np.int64))
    found = deepfool(margins, x, y, steps=5, overshoot=0.02, norm=norm)
    direction, size = (w, np.square(w).sum()) if norm == "l2" else (np.sign(w), np.abs(w).sum())
    change = -1.02 * (logits / size)[:, None, None, None] * direction
    np.testing.assert_allclose((found.pixels - x).numpy(), change, atol=2e-6)
    assert found.steps.tolist() == [1] * 6
    assert (margins(found.pixels, y) < 0).all()


def test_deepfool_crosses_a_curved_boundary_with_less_than_the_ball_that_fgsm_needs() -> None:
    x, y = grey(6, 10)
    y = (curved(x, torch.ones(6, dtype=torch.int64)) > 0).long()
    found = deepfool(curved, x, y, steps=100)
    assert (curved(found.pixels, y) < 0).all()
    reach = (found.pixels - x).abs().flatten(1).amax(1)
    for i in range(6):
        near = fgsm(curved, x[i : i + 1], y[i : i + 1], 0.5 * float(reach[i])).pixels
        assert float(curved(near, y[i : i + 1])) > 0, "half as far is not enough"


def test_without_a_gradient_nothing_moves_and_it_is_said() -> None:
    x, y = grey(3, 11)
    flat: Margins = lambda pixels, labels: (pixels * 0).flatten(1).sum(1) + 1  # noqa: E731
    for found in (
        fgsm(flat, x, y, 0.1),
        pgd(flat, x, y, 0.1, steps=3, step_size=0.05),
        deepfool(flat, x, y, steps=3),
    ):
        torch.testing.assert_close(found.pixels, x)
        assert found.flat.all()


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.0005, 0.2))
def test_eight_bits_stay_in_the_ball_and_are_the_nearest_there(seed: int, epsilon: float) -> None:
    g = np.random.default_rng(seed)
    original = torch.from_numpy(g.integers(0, 256, (2, *SHAPE)).astype(np.uint8))
    x = original.float() / 255
    moved = within(x + torch.from_numpy(g.normal(0, epsilon, x.shape).astype(np.float32)), x, epsilon)
    levels = eight_bit(moved, original, epsilon)
    assert levels.dtype == torch.uint8
    apart = (levels.double() - original.double()).abs() / 255
    assert float(apart.max()) <= epsilon + 1e-8
    # no further than one rounding, and half a one where the ball leaves room
    assert float((levels.double() / 255 - moved.double()).abs().max()) <= 1 / 255 + 1e-6
    free = eight_bit(moved)
    assert float((free.double() / 255 - moved.double()).abs().max()) <= 0.5 / 255 + 1e-6
