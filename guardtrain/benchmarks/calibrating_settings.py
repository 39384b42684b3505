"""What `guardtrain calibrate` is told: a guard, labelled images, and what `guardtrain export` is told of a guard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from guardtrain.benchmarks.training_images import LEAVE_OUT, require_choice
from guardtrain.errors import ConfigError
from guardtrain.guards.settings import UNUSED, GuardSettings


@dataclass
class CalibrateSettings(GuardSettings):
    """`guardtrain calibrate`: a guard, calibrated and with thresholds chosen on labelled images of yours → a guard.

    Its head stays as it is. See `GuardSettings` for what is decided of it; `name`, `licence` and `taxonomy` are the
    guard's where they are null.

    Args:
        guard: its folder, or its name on the Hugging Face Hub; such as one that `guardtrain import-guard` wrote.
        revision: of the Hub: branch, tag or commit.
        data_sets: the labelled images, which the guard must not have been trained on; `data=…` is the same. A table, a
            folder with safe/ and unsafe/, a store, arrays, or NAME:PART of a data config: as for `benchmark`.
        training_images: what becomes of images that the guard was trained on: `leave_out`, or `keep`.
        validation: nothing here: the images are those of `data=…`.
        neighbours: nothing here: those are training images, which only `guardtrain export` has.
        out: the new guard's folder; null for the guard's with `-calibrated`.
        trusted_heads: dotted names of head definitions outside guardtrain that may be imported.
        checkpoint: where the encoder's weights lie; null for where the guard says.
        device: auto, cpu, cuda, cuda:1, mps.
        batch_size: images a forward pass of the encoder.
        data_dir: where data configs look for files; default: `$GUARDTRAIN_DATA`, else `data`.
        cache_dir: where embeddings are kept; default: `$GUARDTRAIN_CACHE`, else `~/.cache/guardtrain`.
    """

    guard: str = MISSING
    revision: str | None = None
    data_sets: Any = MISSING
    out: str | None = None
    training_images: str = LEAVE_OUT
    trusted_heads: list[str] = field(default_factory=list)
    checkpoint: str | None = None
    device: str = "auto"
    batch_size: int = 256
    data_dir: str = MISSING
    cache_dir: str = MISSING

    def __post_init__(self) -> None:
        require_choice(self.training_images)
        if self.validation != UNUSED:
            raise ConfigError("validation is what `guardtrain export` asks; here the images are those of data=….")
        if self.neighbours:
            raise ConfigError("neighbours are training images, which only `guardtrain export` has; leave them out.")
