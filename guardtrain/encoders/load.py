"""Loading an encoder by its settings or its spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.encoders.resolve import resolve
from guardtrain.encoders.spec import EncoderSettings, EncoderSpec, require_same, settings_for

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder


def load_encoder(encoder: EncoderSettings | EncoderSpec) -> Encoder:
    """The frozen model with its preprocessing, ready to embed.

    Args:
        encoder: what a user configures, or the spec of embeddings, a head or a guard (then what is loaded must be
            exactly that encoder).

    Raises:
        ConfigError: settings outside the allowed sets.
        EncoderError: an unknown model, weights that cannot be had or do not fit, or another encoder than the spec's.
    """
    settings = settings_for(encoder) if isinstance(encoder, EncoderSpec) else encoder
    resolved = resolve(settings)
    if isinstance(encoder, EncoderSpec):
        require_same(resolved.spec, encoder, f"the weights at {resolved.spec.location}")
    if settings.family == "open_clip":
        from guardtrain.encoders.open_clip_adapter import load_open_clip

        return load_open_clip(settings, resolved)
    if settings.family == "nudenet":
        from guardtrain.encoders.nudenet_adapter import load_nudenet

        return load_nudenet(settings, resolved)
    from guardtrain.encoders.timm_adapter import load_timm

    return load_timm(settings, resolved)
