"""Predictions as lines for people: the image, its probability, what was decided and from which probability on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from guardtrain.guards.described import DescribedGuard
from guardtrain.guards.operating_points import ThreeWay

_NAMED = 48  # characters that names are lined up to; longer ones stick out
_MOST_DIGITS = 6
_UNKNOWN = "–"


class Answers:
    """Lines of images judged at one operating point.

    Args:
        guard: which.
        point: the operating point's name.
        names: of the images, as far as they are lined up.
    """

    def __init__(self, guard: DescribedGuard, point: str, names: list[str]) -> None:
        chosen, calibrator = guard.points[point], guard.calibration.calibrator
        limits = [chosen.lower, chosen.upper] if isinstance(chosen, ThreeWay) else [chosen.threshold]
        self._limits = [float(p) for p in calibrator.probabilities(np.array(limits))]
        self._width = min(_NAMED, max(map(len, names), default=0))

    def line(self, row: Mapping[str, Any]) -> str:
        """A row of `Predictions.rows` as a line: `photo.png  .52  not flagged (unsafe from .74)`."""
        name = f"{row['id']:<{self._width}}"
        if row["error"] is not None:
            return f"{name}  {_UNKNOWN:<3}  unreadable: {row['error']}"
        p, decision = row["probability"], row["decision"]
        digits = next((n for n in range(2, _MOST_DIGITS) if self._told_apart(p, n)), _MOST_DIGITS)
        low, high = (share(limit, digits) for limit in (self._limits[0], self._limits[-1]))
        text = {
            "unsafe": f"flagged (unsafe from {high})",
            "safe": f"not flagged (unsafe from {high})" if low == high else f"not flagged (safe below {low})",
            "review": f"for review ({low} to {high})",
        }[decision]
        if row.get("category") is not None:
            text = text.replace(" (", f": {row['category']} (", 1)
        near = ", ".join(f"{one['id']} ({'unsafe' if one['label'] else 'safe'})" for one in row.get("neighbours") or ())
        return f"{name}  {share(p, digits)}  {text}" + (f"; nearest: {near}" if near else "")

    def _told_apart(self, p: float, digits: int) -> bool:
        """Whether the image and each limit look as they are compared: `.74 not flagged (unsafe from .74)` says nothing.

        Where the two are one probability, on a step of the calibration, no digits tell them apart.
        """
        return all(p >= limit or round(p, digits) < round(limit, digits) for limit in self._limits)


def share(p: float, digits: int) -> str:
    """A probability without its zero.

    >>> share(0.5249, 2), share(0.999, 2)
    ('.52', '1.00')
    """
    return f"{p:.{digits}f}".removeprefix("0")
