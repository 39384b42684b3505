"""The guard: calibrated, thresholded for a target, exported, loaded and used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardtrain.guards.guard import Guard
    from guardtrain.guards.predictions import Predictions

__all__ = ["Guard", "Predictions"]

# The command line imports this package's settings at its start, and a guard needs more than these.
_LAZY = {"Guard": "guard", "Predictions": "predictions"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"guardtrain.guards.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
