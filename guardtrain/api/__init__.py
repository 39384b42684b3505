"""The commands' work as functions, with the commands' defaults; users have those that are theirs from `guardtrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door

if TYPE_CHECKING:
    from guardtrain.api.curves import Curve, train_curve
    from guardtrain.api.fitting import grid_check, require_mixture
    from guardtrain.api.guards import write_guard
    from guardtrain.api.recipe import build_recipe, each_head, recipe_settings
    from guardtrain.api.training import TrainedHead, used

__all__ = [
    "Curve",
    "TrainedHead",
    "build_recipe",
    "each_head",
    "grid_check",
    "recipe_settings",
    "require_mixture",
    "train_curve",
    "used",
    "write_guard",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Curve": "curves",
        "TrainedHead": "training",
        "build_recipe": "recipe",
        "each_head": "recipe",
        "grid_check": "fitting",
        "recipe_settings": "recipe",
        "require_mixture": "fitting",
        "train_curve": "curves",
        "used": "training",
        "write_guard": "guards",
    },
)
