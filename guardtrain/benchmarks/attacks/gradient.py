"""Adversarial pixels from a guard's gradient: FGSM, PGD and DeepFool, and Gaussian noise to compare them with.

Written here and not taken from a library. What UnsafeBench's authors used (foolbox) had its last release in 2024 and
imports from SciPy what SciPy 2 takes away; torchattacks wants `requests` of 2020; adversarial-robustness-toolbox works
with current versions, but takes every image through every step. None can stop at the moment when the image still fools
the guard after it was written with eight bits. That moment is what counts for a file, and it saves nine tenths of the
work. For one logit and two classes the attacks are a few lines each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Pixels (B, 3, H, W) in [0, 1] and labels (B,) to margins (B,), above 0 where the guard is right; differentiable.
Margins = Callable[[Tensor, Tensor], Tensor]
# Pixels (M, 3, H, W) that fool the guard and their places (M,) in the batch to (M,) bool: no more work on these.
Settled = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack made of a batch.

    Args:
        pixels: (B, 3, H, W) float32 in [0, 1].
        steps: (B,) int64, gradients taken.
        flat: (B,) bool, the gradient was zero from the start: nothing to go by, so that surviving says little.
    """

    pixels: Tensor
    steps: Tensor
    flat: Tensor


def fgsm(model: Margins, pixels: Tensor, labels: Tensor, epsilon: float) -> Attacked:
    """The fast gradient sign method (Goodfellow et al., ICLR 2015, arXiv 1412.6572).

    The loss is the margin itself: of one logit the cross-entropy's gradient has the same sign, and this one does not
    vanish where the guard is sure.

    Args:
        model: the guard.
        pixels: (B, 3, H, W) float32 in [0, 1].
        labels: (B,) int64, 1 is unsafe.
        epsilon: largest change of a pixel, in [0, 1].
    """
    _, slope = _slope(model, pixels, labels)
    return Attacked((pixels - epsilon * slope.sign()).clamp(0, 1), torch.ones_like(labels), _flat(slope))


def pgd(
    model: Margins,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int,
    step_size: float,
    start: Tensor | None = None,
    settled: Settled | None = None,
) -> Attacked:
    """Projected gradient descent in the ε-ball of the largest change (Madry et al., ICLR 2018, arXiv 1706.06083).

    Of an image that never settles, the pixels with the lowest margin on the way are given, so that more steps never
    make the attack weaker.

    Args:
        model, pixels, labels, epsilon: as for `fgsm`.
        steps: gradients at most.
        step_size: change of a pixel in a step.
        start: (B, 3, H, W) in [-1, 1], where in the ball to start, times ε; None for its centre.
        settled: which of the images that fool the guard need no more steps; None for all of them.
    """
    low, high = (pixels - epsilon).clamp_min(0), (pixels + epsilon).clamp_max(1)
    now = pixels if start is None else torch.clamp(pixels + epsilon * start, low, high)
    best, lowest = now.clone(), torch.full(labels.shape, torch.inf, device=pixels.device)
    taken, flat = torch.zeros_like(labels), torch.zeros_like(labels, dtype=torch.bool)
    rows = torch.arange(len(labels), device=pixels.device)
    for step in range(steps + 1):
        if step < steps:
            margin, slope = _slope(model, now, labels[rows])
        else:  # the last step's pixels are judged, too
            with torch.no_grad():
                margin = model(now, labels[rows]).to(pixels.dtype)
        better = margin < lowest[rows]
        best[rows[better]], lowest[rows[better]] = now[better], margin[better]
        done = margin < 0
        if settled is not None and done.any():
            certain = settled(now[done], rows[done])
            done[done.clone()] = certain
            # of several that fool the guard, one that does so as a file
            best[rows[done]] = now[done]
        if step == steps or done.all():
            break
        if step == 0:
            flat[rows] = _flat(slope)
        going = ~done
        rows = rows[going]
        taken[rows] = step + 1
        moved = now[going] - step_size * slope[going].sign()
        now = torch.clamp(moved, low[rows], high[rows])
    return Attacked(best, taken, flat)


def deepfool(
    model: Margins, pixels: Tensor, labels: Tensor, *, steps: int, overshoot: float = 0.02, norm: str = "linf"
) -> Attacked:
    """DeepFool for two classes (Moosavi-Dezfooli et al., CVPR 2016, arXiv 1511.04599): a small change that is enough.

    Each step goes to where the margin would be 0 if it were linear: for `l2` along the gradient g by `m / |g|₂`, for
    `linf` every pixel by `m / |g|₁`. How large the change becomes is for the caller to limit.

    Args:
        model, pixels, labels: as for `fgsm`.
        steps: gradients at most.
        overshoot: share by which the sum of all steps is stretched, to end beyond the boundary.
        norm: the change that is kept small: `linf`, the largest of a pixel, or `l2`.
    """
    total = torch.zeros_like(pixels)
    now = pixels.clone()
    taken, flat = torch.zeros_like(labels), torch.zeros_like(labels, dtype=torch.bool)
    rows = torch.arange(len(labels), device=pixels.device)
    for step in range(steps):
        margin, slope = _slope(model, now[rows], labels[rows])
        if step == 0:
            flat = _flat(slope)
        going = (margin >= 0) & ~_flat(slope)
        if not going.any():
            break
        rows, margin, slope = rows[going], margin[going], slope[going]
        taken[rows] = step + 1
        wide = (len(rows), *[1] * (pixels.ndim - 1))
        if norm == "l2":
            direction, size = slope, margin / slope.flatten(1).square().sum(1)
        else:
            direction, size = slope.sign(), margin / slope.flatten(1).abs().sum(1)
        # a margin of almost 0 would end in steps of no length
        total[rows] -= size.clamp_min(1e-8 / max(overshoot, 1e-3)).view(wide) * direction
        now[rows] = (pixels[rows] + (1 + overshoot) * total[rows]).clamp(0, 1)
    return Attacked(now, taken, flat)


def gaussian(pixels: Tensor, noise: Tensor, deviation: float) -> Attacked:
    """White noise on every pixel and colour, cut off at black and white.

    Args:
        pixels: (B, 3, H, W) in [0, 1].
        noise: (B, 3, H, W) of the standard normal distribution.
        deviation: its standard deviation, in [0, 1].
    """
    none = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    return Attacked((pixels + deviation * noise).clamp(0, 1), none, none.bool())


def within(pixels: Tensor, original: Tensor, epsilon: float) -> Tensor:
    """`pixels`, no further than `epsilon` from `original` and in [0, 1]."""
    return torch.clamp(pixels, (original - epsilon).clamp_min(0), (original + epsilon).clamp_max(1))


def eight_bit(pixels: Tensor, original: Tensor | None = None, epsilon: float = 1.0) -> Tensor:
    """(B, 3, H, W) uint8: the pixels as a file holds them, rounded.

    Args:
        pixels: (B, 3, H, W) in [0, 1].
        original: uint8 of the same shape; then no pixel is further from it than the whole levels in ε (2 of 255 for
            0.01), where rounding to the nearest would leave the ball.
        epsilon: of that ball, in [0, 1].
    """
    levels = (pixels.clamp(0, 1) * 255).round()
    if original is not None:
        reach = int(epsilon * 255 + 1e-6)
        levels = torch.clamp(levels, original.float() - reach, original.float() + reach)
    return levels.clamp(0, 255).to(torch.uint8)


def _slope(model: Margins, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Margins (B,) and their gradient in the pixels."""
    with torch.enable_grad():
        leaf = pixels.detach().requires_grad_()
        margin = model(leaf, labels)
        (slope,) = torch.autograd.grad(margin.sum(), leaf)
    return margin.detach().to(pixels.dtype), slope  # some published heads give float64


def _flat(slope: Tensor) -> Tensor:
    return ~(slope != 0).flatten(1).any(1)
