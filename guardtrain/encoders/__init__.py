"""Frozen encoders: specs and fingerprints (light), and models from open_clip and timm (loaded when asked for)."""

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
