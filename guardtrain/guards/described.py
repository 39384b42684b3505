"""What a guard's directory says of it, checked; the head is not read, so that it takes no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import GuardError
from guardtrain.guards.base_rates import base_rate, shift_to
from guardtrain.guards.calibration_choice import Calibration
from guardtrain.guards.directory import read_config
from guardtrain.guards.encoder_weights import kept_weights
from guardtrain.guards.hub import located
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints


@dataclass(frozen=True, eq=False)
class DescribedGuard:
    """All of a guard but its head.

    Args:
        path: the directory it was read from.
        spec: the encoder whose embeddings it reads.
        calibration: the calibrator, and how it was come by.
        points: the operating points; their thresholds are logits.
        category_points: thresholds of single categories; empty where there are none.
        about: all of `config.json`.
    """

    path: Path
    spec: EncoderSpec
    calibration: Calibration = field(repr=False)
    points: OperatingPoints = field(repr=False)
    category_points: Mapping[str, OperatingPoint] = field(repr=False)
    about: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path_or_hub_id: str | Path, revision: str | None = None) -> DescribedGuard:
        """Load it from a directory or a repository on the Hugging Face hub; every file is the one that was exported.

        Raises:
            GuardError: no such guard, or one that is refused; the message says what differs and what to do.
        """
        folder, root = located(path_or_hub_id, revision)
        config = read_config(folder, root)
        try:
            spec = EncoderSpec.from_dict({k: v for k, v in config["encoder"].items() if k != "fingerprint"})
            calibration = Calibration.from_dict(config["calibration"])
            points = OperatingPoints.from_dict(config["operating_points"])
            by_category = config.get("category_points") or {}
            category_points = {name: OperatingPoint.from_dict(point) for name, point in by_category.items()}
            base_rate(config)
        except Exception as error:  # of the parts' own reading, or of what is no mapping
            raise GuardError(f"{folder}: the config cannot be used: {error}") from error
        if config["encoder"].get("fingerprint") != spec.fingerprint:
            raise GuardError(f"{folder}: the encoder's fields do not have the fingerprint that is written beside them.")
        if (weights := kept_weights(folder, config)) is not None:
            spec = replace(spec, location=str(weights))
        return cls(folder, spec, calibration, points, category_points, config)

    def at(self, prior: float | None) -> DescribedGuard:
        """The guard with probabilities for another share of unsafe images; its thresholds, which are logits, stay.

        Args:
            prior: the share where it works; None for the one it was made for.

        Raises:
            ConfigError: no share between 0 and 1.
            GuardError: it was not calibrated, so that nobody knows for which share its probabilities hold.
        """
        if prior is None:
            return self
        moved = self.calibration.calibrator.moved(shift_to(prior, self.about))
        return replace(
            self, calibration=replace(self.calibration, calibrator=moved), about={**self.about, "prior": prior}
        )

    @property
    def prior(self) -> float | None:
        """The share of unsafe images that its probabilities hold for; None where nothing calibrated it."""
        return base_rate(self.about)

    @property
    def name(self) -> str:
        """Return what the guard is called."""
        return str(self.about.get("name") or self.path.name)

    @property
    def category_names(self) -> tuple[str, ...]:
        """The categories that it names; none where it does not."""
        return tuple(map(str, (self.about.get("category_head") or {}).get("names", ())))
