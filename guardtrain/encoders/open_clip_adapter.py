"""Encoders of open_clip: built-in names with a tag or a local file, hub repositories, local folders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from guardtrain.encoders.encoder import Encoder, pick_device
from guardtrain.encoders.hub import hub_file, unavailable
from guardtrain.encoders.resolve import OPEN_CLIP_WEIGHTS, open_clip_tag
from guardtrain.encoders.resolved import Resolved
from guardtrain.encoders.spec import EncoderSettings, EncoderSpec
from guardtrain.errors import EncoderError


def load_open_clip(settings: EncoderSettings, resolved: Resolved) -> Encoder:
    """The encoder of `resolved`, its model made by open_clip.

    Raises:
        EncoderError: weights that cannot be had, are pickled code, or do not fit the model.
    """
    import open_clip

    spec = resolved.spec
    weights = resolved.weights or _hub_weights(spec)
    source = spec.model if resolved.config_folder is None else f"local-dir:{resolved.config_folder}"
    device = pick_device(settings.device)
    arguments: dict[str, Any] = dict(spec.model_kwargs)
    with _quiet():
        try:
            # The weights are loaded below, from the very file that was hashed; here only the architecture is made.
            model = open_clip.create_model(
                source,
                load_weights=False,
                pretrained_text=False,
                force_image_size=settings.image_size,
                **({"quick_gelu": spec.quick_gelu} | arguments),
            )
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise EncoderError(f"open_clip cannot build {spec.label} from its configuration: {error}") from error
    _load_weights(model, weights, spec)
    model = model.eval().requires_grad_(False).to(device)
    if spec.output == "pooled":
        _drop_projection(model, spec)
    return Encoder(
        spec,
        model,
        image_features=lambda inputs: model.encode_image(inputs),
        text_features=_text_features(model, spec, source, device),
        device=device,
        batch_size=settings.batch_size,
    )


def _hub_weights(spec: EncoderSpec) -> Path:
    """The weights file of a tag or hub repository: cached, or downloaded."""
    from open_clip import download_pretrained
    from open_clip.pretrained import _get_safe_alternatives

    what = f"open_clip {spec.model}" + (f" ({spec.pretrained})" if spec.pretrained else "")
    if spec.model.startswith("hf-hub:"):
        return hub_file(spec.model.removeprefix("hf-hub:"), OPEN_CLIP_WEIGHTS, what, spec.pretrained)
    tag = open_clip_tag(spec.model, str(spec.pretrained))
    if tag.get("hf_hub"):
        # `org/name/file.bin`, or `org/name/` for the default file names.
        repo, _, filename = str(tag["hf_hub"]).rpartition("/")
        candidates = [*_get_safe_alternatives(filename), filename] if filename else OPEN_CLIP_WEIGHTS
        return hub_file(repo, candidates, what)
    try:
        return Path(download_pretrained(tag))
    except Exception as error:  # urllib's and open_clip's own, of no common class
        raise EncoderError(
            f"The weights of {what} cannot be downloaded from {tag.get('url')}: {error}. Set encoder.checkpoint= to "
            "a local copy, or use encoder=demo."
        ) from error


def _load_weights(model: torch.nn.Module, weights: Path, spec: EncoderSpec) -> None:
    from open_clip.factory import load_checkpoint

    try:
        load_checkpoint(model, str(weights), strict=True, weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and key errors here
        text = str(error)
        if "TorchScript" in text or "Weights only" in text or "weights_only" in text:
            raise EncoderError(
                f"{weights} holds code (a TorchScript archive or other pickled objects) and is not loaded. OpenAI's "
                "original .pt files are such archives; the same weights are published as safetensors: "
                "timm/vit_base_patch32_clip_224.openai on the hub, for ViT-B-32."
            ) from error
        lines = "\n  ".join(line.strip() for line in text.splitlines()[:4])
        raise EncoderError(f"The weights {weights} do not fit the model {spec.model}:\n  {lines}") from error


def _drop_projection(model: torch.nn.Module, spec: EncoderSpec) -> None:
    """Make the image tower return what goes into its projection."""
    visual: Any = model.visual
    if getattr(visual, "proj", None) is not None:
        visual.proj = None
    elif hasattr(visual, "trunk") and hasattr(visual, "head"):
        visual.head = torch.nn.Identity()
    else:
        raise EncoderError(
            f"encoder.output=pooled: the image tower of {spec.label} ({type(visual).__name__}) has no projection "
            "that can be left out; use encoder.output=projected."
        )


def _text_features(
    model: Any, spec: EncoderSpec, source: str, device: torch.device
) -> Callable[[list[str]], torch.Tensor]:
    tokenizer: Any = None

    def features(texts: list[str]) -> torch.Tensor:
        nonlocal tokenizer
        if tokenizer is None:
            tokenizer = _tokenizer(spec, source)
        return model.encode_text(tokenizer(texts).to(device))  # type: ignore[no-any-return]

    return features


def _tokenizer(spec: EncoderSpec, source: str) -> Any:
    import open_clip

    # A hub model's own tokenizer is more files of its repository, which only open_clip's hub form fetches.
    own = (spec.model_config or {}).get("text_cfg", {}).get("hf_tokenizer_name")
    name = spec.model if own and spec.model.startswith("hf-hub:") else source
    try:
        with _quiet():
            return open_clip.get_tokenizer(name)
    except Exception as error:  # some tokenizers are files of the hub, too
        repo = spec.model.removeprefix("hf-hub:")
        raise unavailable(f"the tokenizer of {spec.label}", repo, ["tokenizer.json"], str(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip tells the root logger what it loads, and that a model without weights is random (ours get theirs)."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
