"""A tuned encoder on disk, in the layout of its library, and the settings that load it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardtrain.encoders.resolve import OPEN_CLIP_CONFIG
from guardtrain.encoders.spec import EncoderSettings, EncoderSpec, settings_for

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder

TUNED_FILE = "tuned.json"
_OPEN_CLIP_WEIGHTS, _TIMM_WEIGHTS = "open_clip_model.safetensors", "model.safetensors"


def save_tuned(folder: Path, encoder: Encoder, settings: EncoderSettings, name: str, about: Mapping[str, Any]) -> None:
    """Write a tuned encoder: `folder` is there whole or as it was.

    Args:
        folder: of open_clip's layout (config and weights), or with timm's weights; what was in it is replaced.
        encoder: its model, adapters merged.
        settings: those the encoder was loaded with before it was tuned.
        name: what it is called from now on.
        about: how it was tuned, as plain data; `key` says from what.
    """
    from safetensors.torch import save_file

    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        spec = encoder.spec
        state = {key: value.detach().cpu().contiguous() for key, value in _whole_model(encoder, settings).items()}
        weights = _OPEN_CLIP_WEIGHTS if spec.family == "open_clip" else _TIMM_WEIGHTS
        save_file(state, temporary / weights)
        (temporary / weights).chmod(0o644)  # safetensors makes files that nobody else can read
        if spec.family == "open_clip":
            text = json.dumps(_open_clip_config(spec), indent=2) + "\n"
            (temporary / OPEN_CLIP_CONFIG).write_text(text, encoding="utf-8")
        loading = _loading(spec, folder, name, settings)
        description = {**about, "base": json.loads(spec.to_json()), "encoder": asdict(loading)}
        (temporary / TUNED_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_tuned(folder: Path) -> dict[str, Any] | None:
    """What `save_tuned` wrote of the encoder in `folder`; None where there is none."""
    try:
        described = json.loads((folder / TUNED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return described if isinstance(described, dict) and "encoder" in described else None


def tuned_settings(folder: Path, base: EncoderSettings) -> EncoderSettings:
    """The settings that load the tuned encoder in `folder`, with the device and batch size of `base`."""
    described = read_tuned(folder)
    assert described is not None, "it was just written"
    weights = folder if (folder / OPEN_CLIP_CONFIG).is_file() else folder / _TIMM_WEIGHTS
    own = EncoderSettings(**described["encoder"])
    return replace(own, checkpoint=str(weights.resolve()), device=base.device, batch_size=base.batch_size)


def _loading(spec: EncoderSpec, folder: Path, name: str, settings: EncoderSettings) -> EncoderSettings:
    loading = replace(settings_for(spec), name=name, pretrained=None, dtype=settings.dtype)
    if spec.family == "open_clip":
        return replace(loading, model="", checkpoint=str(folder))
    return replace(loading, checkpoint=str(folder / _TIMM_WEIGHTS))


def _whole_model(encoder: Encoder, settings: EncoderSettings) -> Mapping[str, Any]:
    """All weights, those of a projection among them that the encoder was loaded without (`output=pooled`)."""
    from guardtrain.encoders.load import load_encoder

    state: dict[str, Any] = encoder.model.state_dict()
    if encoder.spec.family == "timm" or encoder.spec.output == "projected":
        return state
    whole = load_encoder(replace(settings, output="projected", device="cpu")).model.state_dict()
    return {key: state.get(key, value) for key, value in whole.items()}


def _open_clip_config(spec: EncoderSpec) -> dict[str, Any]:
    """`open_clip_config.json`: architecture and preprocessing."""
    model = dict(spec.model_config or {})
    if not model:
        import open_clip

        model = dict(open_clip.get_model_config(spec.model) or {})
    height, width = spec.image_size or (0, 0)
    model["quick_gelu"] = bool(spec.quick_gelu)
    model["vision_cfg"] = {**model["vision_cfg"], "image_size": height if height == width else [height, width]}
    return {
        "model_cfg": model,
        "preprocess_cfg": {
            "size": [height, width],
            "mode": "RGB",
            "mean": list(spec.mean or ()),
            "std": list(spec.std or ()),
            "interpolation": spec.interpolation,
            "resize_mode": spec.resize_mode,
            "fill_color": spec.fill_color or 0,
        },
    }
