"""The setting `training_images`: what becomes of test images that a guard was trained on."""

from __future__ import annotations

from guardtrain.errors import ConfigError

LEAVE_OUT, KEEP = "leave_out", "keep"


def require_choice(training_images: str) -> None:
    """Raise ConfigError for a value that the setting `training_images` does not have."""
    if training_images not in (LEAVE_OUT, KEEP):
        raise ConfigError(f"training_images is '{training_images}'; allowed: {LEAVE_OUT}, {KEEP}.")
