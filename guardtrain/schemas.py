"""The schema of one command made known to Hydra, without importing those of all others."""

from __future__ import annotations

from importlib import import_module

from guardtrain.quick_hydra import store_schema

# Commands that are to start at once; their schema's module needs none of the others.
_ALONE = {"predict": ("guardtrain.guards.predict_settings", "PredictConfig")}
# Commands that compose no other command's config: the schemas of all take a fifth of a second.
_COMPOSES_ITS_OWN = (*_ALONE, "train", "curve")


def schema_of(command: str) -> type:
    """The dataclass that a command's settings are checked by."""
    if command in _ALONE:
        module, name = _ALONE[command]
        found: type = getattr(import_module(module), name)
        return found
    from guardtrain.config import SCHEMAS

    return SCHEMAS[command]


def register_schema(command: str) -> None:
    """Make a command's schema known to Hydra as `COMMAND_schema`; see `guardtrain.config.register_schemas`."""
    if command in _COMPOSES_ITS_OWN:
        store_schema(command, schema_of(command))
        return
    from guardtrain.config import register_schemas

    register_schemas()
