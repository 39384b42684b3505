"""How many real and how many pair images a mixture has: exact shares, or the nearest."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np

from guardtrain.errors import MixtureError

ARMS = ("replace", "add")
CONTROLS = ("paired", "shuffled", "unpaired", "balanced", "real")
OF_REAL = ("balanced", "real")  # controls that put real images in the place of pair images
ROUNDINGS = ("exact", "nearest")

_NOISE = 1e-9  # budget * ratio this close to a whole number, relative to the budget, is that number


def counts(
    budget: int, ratio: float, arm: str = "replace", rounding: str = "exact", control: str = "paired"
) -> tuple[int, int]:
    """How many real and how many pair images a mixture has: (n_real, n_pair_images).

    With m = budget * ratio pair images: `replace` has budget - m real ones, `add` has budget. The controls `balanced`
    and `real` have the m as further real images, the others have them of the pair pool. m is even for every control,
    so that all controls of a point of the grid have as many images.

    Args:
        budget: n >= 2.
        ratio: rho in [0, 1].
        arm: one of `ARMS`.
        rounding: `exact` refuses an m that is not an even whole number (noise of floats aside); `nearest` takes the
            nearest even number, the larger of two equally near, but never more than the budget. In `replace` the
            total is the budget with either.
        control: one of `CONTROLS`.

    Raises:
        MixtureError: an argument out of its range, or an m that `exact` refuses, with the nearest ratios and
            budgets that work.

    >>> counts(80, 0.1), counts(80, 0.1, "add"), counts(80, 0.1, "add", control="real")
    ((72, 8), (80, 8), (88, 0))
    >>> counts(10, 0.5, rounding="nearest")
    (4, 6)
    """
    _allowed("arm", arm, ARMS)
    _allowed("control", control, CONTROLS)
    _allowed("rounding", rounding, ROUNDINGS)
    if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)) or budget < 2:
        raise MixtureError(
            f"The budget is {budget!r}; a whole number of at least 2 images (one of each class) is needed."
        )
    if not 0 <= ratio <= 1:  # also refuses NaN
        raise MixtureError(f"The ratio is {ratio!r}; a share between 0 (real images only) and 1 is needed.")
    budget = int(budget)
    wanted = budget * float(ratio)
    if rounding == "exact":
        m = round(wanted)
        if abs(wanted - m) > _NOISE * budget or m % 2:
            raise MixtureError(_inexact(budget, float(ratio), wanted))
    else:
        m = 2 * floor(wanted / 2 + 0.5 + _NOISE)
        m -= 2 * (m > budget)
    n_real = budget - m if arm == "replace" else budget
    return (n_real + m, 0) if control in OF_REAL else (n_real, m)


def _allowed(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MixtureError(f"Unknown {what} {value!r}; it must be one of {', '.join(allowed)}.")


def _inexact(budget: int, ratio: float, wanted: float) -> str:
    """Why budget * ratio cannot be had exactly, and the nearest that can."""
    below = 2 * floor(wanted / 2)
    ratios = " or ".join(f"{m / budget:.6g}" for m in (below, below + 2) if m <= budget)
    message = (
        f"Budget {budget} at ratio {ratio:.6g} asks for {wanted:.6g} pair images; an even whole number is needed, "
        f"since a pair has two. At this budget the nearest ratios that work are {ratios}"
    )
    share = Fraction(ratio).limit_denominator(10_000)
    step = share.denominator * (1 if share.numerator % 2 == 0 else 2)  # budget * share is even at multiples of it
    if abs(float(share) - ratio) < _NOISE:
        lower = budget // step * step
        budgets = " or ".join(str(b) for b in (lower, lower + step) if b >= 2)
        message += f"; at this ratio the nearest budgets are {budgets}"
    return message + ". rounding='nearest' takes the nearest even number instead."
