"""What `import guardtrain as gt` gives: the commands' work as functions, with the commands' defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door

if TYPE_CHECKING:
    from guardtrain.api.audit import run_audit
    from guardtrain.api.curves import Curve, run_curve, train_curve
    from guardtrain.api.data import (
        create_encoder,
        embed,
        from_arrays,
        hold_out,
        list_encoders,
        make_pools,
        read_records,
    )
    from guardtrain.api.fitting import grid_check, require_mixture
    from guardtrain.api.guards import export_guard, write_guard
    from guardtrain.api.recipe import build_recipe, each_head, recipe_settings
    from guardtrain.api.training import TrainedHead, create_head, list_heads, train_head, used

_MODULES = {
    "audit": ["run_audit"],
    "curves": ["Curve", "run_curve", "train_curve"],
    "data": ["create_encoder", "embed", "from_arrays", "hold_out", "list_encoders", "make_pools", "read_records"],
    "fitting": ["grid_check", "require_mixture"],
    "guards": ["export_guard", "write_guard"],
    "recipe": ["build_recipe", "each_head", "recipe_settings"],
    "training": ["TrainedHead", "create_head", "list_heads", "train_head", "used"],
}

__all__ = [
    "Curve",
    "TrainedHead",
    "build_recipe",
    "create_encoder",
    "create_head",
    "each_head",
    "embed",
    "export_guard",
    "from_arrays",
    "grid_check",
    "hold_out",
    "list_encoders",
    "list_heads",
    "make_pools",
    "read_records",
    "recipe_settings",
    "require_mixture",
    "run_audit",
    "run_curve",
    "train_curve",
    "train_head",
    "used",
    "write_guard",
]

__getattr__, __dir__ = door(__name__, {name: module for module, names in _MODULES.items() for name in names})
