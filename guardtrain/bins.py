"""Equally wide bins of probabilities: one definition for every calibration error and every reliability diagram."""

from __future__ import annotations

import numpy as np


def bin_edges(bins: int) -> np.ndarray:
    """The edges i/n of n bins, (bins + 1,) float64.

    Each is the float64 next to its fraction. `linspace` adds up steps, which numpy and torch do in different ways, and
    torch differently again with another processor's instructions: a probability of exactly 1/5 then falls to either
    side of the edge.

    >>> bin_edges(4)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    return np.arange(bins + 1) / bins


def bin_of(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each probability in [0, 1], of any shape, int64: [i/n, (i+1)/n), and 1 has a bin of its own.

    >>> bin_of(np.array([0.0, 0.49, 0.5, 1.0]), 2)
    array([0, 0, 1, 2])
    """
    return np.searchsorted(bin_edges(bins), probabilities, side="right") - 1
