"""The weights of a guard's encoder, where others could not get them by its spec: kept in the guard's directory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardtrain.encoders.resolve import OPEN_CLIP_CONFIG, resolve
from guardtrain.encoders.spec import LOCAL_DIR, EncoderSpec, require_same, settings_for
from guardtrain.errors import EncoderError, GuardError

FOLDER = "encoder"  # in the guard's directory
_PACKAGES = ("pkg://guardtrain/", "pkg://nudenet/")  # that whoever loads a guard has, or installs
_SUFFIXES = (".safetensors", ".onnx")


def only_here(spec: EncoderSpec) -> bool:
    """Whether an encoder's weights are a file of the user's, and not published ones that anybody can load."""
    return spec.weights_sha256 is not None and not (spec.location or "").startswith(_PACKAGES)


def kept_weights(folder: Path, config: Mapping[str, Any]) -> Path | None:
    """The encoder's weights in a guard's directory (open_clip's folder, or a file); None where it keeps none."""
    names = [name for name in config["files"] if name.startswith(f"{FOLDER}/")]
    if not names:
        return None
    return folder / FOLDER if config["encoder"]["model"] == LOCAL_DIR else folder / names[0]


def copy_weights(spec: EncoderSpec, out: Path, checkpoint: str | None = None) -> None:
    """Copy the weights of an encoder into the guard's directory `out`.

    Args:
        spec: the encoder.
        out: the directory.
        checkpoint: where its weights lie; None for where they lay when the guard was made.

    Raises:
        GuardError: weights that are not there, are others, or are a pickle.
    """
    try:
        found = resolve(settings_for(spec, checkpoint=checkpoint))
        require_same(found.spec, spec, f"the weights at {checkpoint or spec.location}")
    except EncoderError as error:
        raise GuardError(
            f"The encoder's weights cannot be pushed: {error}\n  Say where they lie: checkpoint=PATH."
        ) from error
    weights = found.weights
    if weights is None or weights.suffix.lower() not in _SUFFIXES:
        raise GuardError(
            f"The encoder's weights {weights} may hold a pickle, and guards hold none. Write them as safetensors and "
            "train on that file, or export the guard with whole=true: guard.onnx holds the encoder."
        )
    (out / FOLDER).mkdir()
    shutil.copyfile(weights, out / FOLDER / weights.name)
    if spec.model == LOCAL_DIR and found.config_folder is not None:
        shutil.copyfile(found.config_folder / OPEN_CLIP_CONFIG, out / FOLDER / OPEN_CLIP_CONFIG)
