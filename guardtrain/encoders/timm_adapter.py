"""Encoders of timm: pooled features of any of its models, from the hub or a local weights file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from guardtrain.encoders.encoder import Encoder, pick_device
from guardtrain.encoders.hub import hub_file
from guardtrain.encoders.resolve import TIMM_WEIGHTS, read_timm_config
from guardtrain.encoders.resolved import Resolved
from guardtrain.encoders.spec import EncoderSettings, EncoderSpec
from guardtrain.errors import EncoderError

_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn")


def load_timm(settings: EncoderSettings, resolved: Resolved) -> Encoder:
    """The encoder of `resolved`: its embedding is what timm's `reset_classifier(0)` leaves, pooled features.

    Raises:
        EncoderError: weights that cannot be had or do not fit, or a constructor argument timm refuses.
    """
    import timm

    spec = resolved.spec
    arguments: dict[str, Any] = dict(spec.model_kwargs)
    weights, name = resolved.weights, spec.model
    published = None  # timm's own settings of the model, which it knows by name
    if resolved.config_folder is not None:
        written = read_timm_config(resolved.config_folder)
        name, published = str(written["architecture"]), written.get("pretrained_cfg")
        if weights is None:
            repo = spec.model.partition(":")[2]
            weights = hub_file(repo, TIMM_WEIGHTS, f"timm {spec.model}", spec.pretrained)
        arguments.setdefault("num_classes", written.get("num_classes"))
    elif weights is None:
        name = f"{spec.model}.{spec.pretrained}"
    entry = timm.models.get_pretrained_cfg(name)
    if settings.image_size is not None and entry is not None and entry.fixed_input_size:
        arguments.setdefault("img_size", settings.image_size)
    if weights is None:
        _fetch(entry, name)
    try:
        model = timm.create_model(name, pretrained=weights is None, pretrained_cfg=published, **arguments)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise EncoderError(f"timm cannot build {name} with {arguments or 'no further arguments'}: {error}") from error
    if weights is None:
        model.reset_classifier(0)
    else:
        _load_weights(model, weights, spec)
    device = pick_device(settings.device)
    model = model.eval().requires_grad_(False).to(device)
    return Encoder(spec, model, model, None, device, settings.batch_size)


def _fetch(entry: Any, name: str) -> None:
    """See that the weights are cached, so that timm finds them there; the error otherwise is ours."""
    if entry is None or not entry.hf_hub_id:
        return
    filenames = [entry.hf_hub_filename] if entry.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    hub_file(entry.hf_hub_id, filenames, f"timm {name}")


def _load_weights(model: Any, weights: Path, spec: EncoderSpec) -> None:
    """Load every weight but the classifier's, which is dropped from the model and the file alike."""
    from timm.models import load_state_dict

    classifier = model.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{c}." for c in ((classifier,) if isinstance(classifier, str) else classifier))
    try:
        state = load_state_dict(str(weights), device="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors errors
        raise EncoderError(f"The weights {weights} cannot be read: {str(error).splitlines()[0]}") from error
    model.reset_classifier(0)

    def load(found: Mapping[str, Any]) -> None:
        kept = {key: value for key, value in found.items() if not (prefixes and key.startswith(prefixes))}
        model.load_state_dict(kept, strict=True)

    try:
        load(state)
    except RuntimeError as error:
        try:
            load(_filtered(model, state))
        except Exception:  # timm's filters raise errors of any class where a file is none of theirs
            lines = "\n  ".join(line.strip()[:200] for line in str(error).splitlines()[:4])
            raise EncoderError(f"The weights {weights} do not fit the model {spec.model}:\n  {lines}") from error
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise EncoderError(f"The weights {weights} hold values that are not finite.")


def _filtered(model: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights as timm itself changes them before it loads them: other names, other image sizes, parts left out.

    Its filters are functions of the model's module, under one of a few names.
    """
    module = sys.modules[type(model).__module__]
    for name in _FILTERS:
        if (change := getattr(module, name, None)) is not None:
            return dict(change(dict(state), model))
    raise LookupError(f"{module.__name__} has no filter")
