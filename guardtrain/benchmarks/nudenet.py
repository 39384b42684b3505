"""NudeNet as a published guard: unsafe where its detector sees one of some classes, surely enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from guardtrain.benchmarks.kinds import Read
from guardtrain.benchmarks.published import Origin
from guardtrain.benchmarks.scoring import affine, highest
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.errors import ConfigError, EncoderError, GuardError

EXPOSED = ("BUTTOCKS", "FEMALE_BREAST", "FEMALE_GENITALIA", "MALE_GENITALIA", "ANUS")


@dataclass
class NudeNet:
    """NudeNet 3: an image is unsafe if a box of one of `classes` has at least the score `threshold`.

    The detector is the encoder (`encoder=nudenet`, D scores as log-odds) and the decision a head on it, the highest of
    the chosen classes. The file is the package's (`pip install 'guardtrain[nudenet]'`), or a larger one of its authors.

    Args:
        classes: of the detector's.
        threshold: the score from which on an image is unsafe; .25 is where the package begins to report a box.
    """

    classes: list[str] = field(default_factory=lambda: [f"{part}_EXPOSED" for part in EXPOSED])
    threshold: float = 0.25
    normalize: ClassVar[bool] = False
    default_file: ClassVar[str] = "pkg://nudenet/320n.onnx"
    origin: ClassVar[Origin] = Origin(
        "Bedapudi Praneeth, NudeNet 3 (a package; no paper)",
        "https://github.com/notAI-tech/NudeNet",
        "agpl-3.0",
        "nudity: parts of the body that are exposed",
        ("Sexual",),
        (
            "The package's licence file is the AGPL 3.0, and its detector names the same; its metadata says MIT.",
            "UnsafeBench measured an older NudeNet, a Keras classifier of whole images; this is the later detector.",
            "On 647 photographs 27 of the package's 28 detections are found here, with scores at most .023 apart; the "
            "last has .267 there and .248 here. Images are not turned upright by EXIF, which the package does.",
        ),
    )

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"kind.threshold must lie between 0 and 1; it is {self.threshold}.")
        if not self.classes:
            raise ConfigError("kind.classes is empty; name some of the detector's classes, such as BUTTOCKS_EXPOSED.")

    def read(self, path: Path) -> Read:
        encoder = EncoderSettings(
            name=f"nudenet-{path.stem}", family="nudenet", model=path.stem, checkpoint=str(path), normalize=False
        )
        if _is_the_packages(path, self.default_file):
            encoder.name, encoder.checkpoint = "nudenet", self.default_file  # found again on every machine
        from guardtrain.encoders.resolve import resolve_spec

        try:
            spec = resolve_spec(encoder)
        except EncoderError as error:
            raise GuardError(str(error)) from error
        known = list((spec.model_config or {})["classes"])
        if unknown := [name for name in self.classes if name not in known]:
            raise ConfigError(f"kind.classes has '{unknown[0]}'; this detector finds {', '.join(known)}.")
        start = math.log(self.threshold) - math.log1p(-self.threshold)
        rows = np.eye(len(known))
        head = highest([affine(rows[known.index(name)], -start) for name in self.classes])
        classes = f"unsafe: a box of {', '.join(self.classes)} with a score of {self.threshold:g} or more"
        return Read("nudenet", head, (path,), encoder=encoder, classes=classes)


def _is_the_packages(path: Path, location: str) -> bool:
    from guardtrain.encoders.resolved import local_path

    try:
        return path.resolve() == local_path(location).resolve()
    except EncoderError:
        return False
