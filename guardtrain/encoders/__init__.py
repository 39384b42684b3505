"""Frozen encoders: specs and fingerprints (light), and models from open_clip and timm (loaded when asked for)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door

if TYPE_CHECKING:
    from guardtrain.encoders.load import load_encoder
    from guardtrain.encoders.resolve import resolve_spec
    from guardtrain.encoders.spec import EncoderSettings, EncoderSpec, external_spec, require_same, settings_for

__all__ = [
    "EncoderSettings",
    "EncoderSpec",
    "external_spec",
    "load_encoder",
    "require_same",
    "resolve_spec",
    "settings_for",
]

# A spec is read without what loads a model.
__getattr__, __dir__ = door(
    __name__,
    {
        "EncoderSettings": "spec",
        "EncoderSpec": "spec",
        "external_spec": "spec",
        "load_encoder": "load",
        "require_same": "spec",
        "resolve_spec": "resolve",
        "settings_for": "spec",
    },
)
