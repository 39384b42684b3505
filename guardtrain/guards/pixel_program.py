"""A guard by its own program from pixels, `guard.onnx`: the same answers, without torch and its seconds of imports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from guardtrain.encoders.geometry import WITHOUT_TORCH, image_geometry, resized_size, scaled
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import GuardError
from guardtrain.guards.described import DescribedGuard
from guardtrain.guards.directory import GUARD_ONNX
from guardtrain.guards.looking import UNSEEN, seen_in
from guardtrain.guards.prediction_inputs import UNREADABLE, InputImage, reason
from guardtrain.guards.predictions import Predictions, predictions_of

_THREADS = 2  # of one image's pass: more burn processors for little
_ROWS = 4  # frames a pass


def has_program(about: Mapping[str, Any], spec: EncoderSpec) -> bool:
    """Whether a guard has such a program, and this machine and this module can run it.

    Args:
        about: its `config.json`.
        spec: its encoder.
    """
    known = GUARD_ONNX in about["files"] and spec.family in WITHOUT_TORCH
    return known and find_spec("onnxruntime") is not None


class PixelProgram:
    """`guard.onnx` in onnxruntime, with the guard's preprocessing, calibration and operating points beside it.

    Args:
        guard: of whose directory.

    Raises:
        GuardError: onnxruntime cannot read the program.
    """

    def __init__(self, guard: DescribedGuard) -> None:
        import onnxruntime

        self.guard = guard
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _THREADS
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait take no processor
        options.log_severity_level = 3
        path = guard.path / GUARD_ONNX
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own, of a dozen kinds
            raise GuardError(f"{path} cannot be run by this onnxruntime: {str(error).splitlines()[0]}") from error
        self._geometry = image_geometry(guard.spec)

    @property
    def needed(self) -> tuple[int, int]:
        """(height, width) that images are resized to."""
        return resized_size(self.guard.spec)

    @property
    def rows_a_pass(self) -> int:
        """Frames of an animation that go through at once."""
        return _ROWS

    def pixels(self, image: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8: an RGB image resized and cropped for the model."""
        return self._geometry(image)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """(B,) float64 logits of (B, H, W, 3) uint8."""
        return self._run(pixels)[0]

    def predict(
        self,
        images: Sequence[InputImage],
        *,
        point: str,
        frames: int | None,
        max_pixels: int,
        advance: Callable[[int], None] = lambda rows: None,
    ) -> Predictions:
        """Judge image files one after another; see `Guard.predict`.

        Args:
            images: which.
            point: the operating point's name.
            frames: of an animation that are looked at; None for all.
            max_pixels: of an image, or of a frame; what is larger counts as unreadable.
            advance: told how many images each step was.
        """
        logits, errors, seen = list[np.ndarray](), list[str | None](), list[dict[str, int | None]]()
        names = self.guard.category_names
        shares = [np.zeros((0, len(names)))]
        for image in images:
            try:
                found = seen_in(image.read(), self, frames, max_pixels)
            except UNREADABLE as error:
                errors.append(reason(error))
                seen.append(UNSEEN)
            else:
                logit, share = self._run(found.pixels[None])
                logits.append(logit)
                shares.append(share)
                errors.append(None)
                seen.append(found.columns())
            advance(1)
        return predictions_of(
            self.guard.points[point],
            self.guard.calibration.calibrator,
            [image.id for image in images],
            np.concatenate([np.zeros(0), *logits]),
            errors,
            category_points=self.guard.category_points,
            neighbours=None,
            category_names=names,
            shares=np.concatenate(shares) if names else None,
            seen=seen,
        )

    def _run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B,) and category probabilities (B, C), float64; the calibration is done as the guard does it."""
        outputs: list[Any] = self._session.run(None, {"pixels": scaled(self.guard.spec, pixels)})
        shares = outputs[2] if len(outputs) > 2 else np.zeros((len(pixels), 0))
        return outputs[0].astype(np.float64), shares.astype(np.float64)
