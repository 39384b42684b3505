"""The guard: calibrated, thresholded for a target, exported, loaded and used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door

if TYPE_CHECKING:
    from guardtrain.guards.guard import Guard
    from guardtrain.guards.predictions import Predictions

__all__ = ["Guard", "Predictions"]

# The command line imports this package's settings at its start, and a guard needs more than these.
__getattr__, __dir__ = door(
    __name__,
    {"Guard": "guard", "Predictions": "predictions"},
)
