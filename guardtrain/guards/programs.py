"""Write a guard's programs: `head.onnx`, `guard.onnx` and `guard.pt2`, each checked against the guard's own path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from guardtrain.guards.directory import GUARD_ONNX, HEAD_ONNX, PROGRAM
from guardtrain.guards.guard import head_logits
from guardtrain.guards.onnx_export import (
    HEAD_TOLERANCE,
    WHOLE_TOLERANCE,
    Agreement,
    Judge,
    agreement,
    onnx_judge,
    program_judge,
    traced,
    write_onnx,
    write_program,
)
from guardtrain.guards.torch_modules import HeadModule, WholeModule

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.guards.calibration import Calibrator
    from guardtrain.heads.bank import HeadBank

_IMAGES = 17  # that whole programs are compared on


def export_head(folder: Path, bank: HeadBank, calibrator: Calibrator, rows: np.ndarray) -> Agreement:
    """Write `head.onnx`: `embeddings` (N, D) float32 to `logit` (N,) and calibrated `probability` (N,).

    Args:
        rows: (n, D) embeddings it is compared on.

    Raises:
        OnnxDisagrees: probabilities differ by more than 1e-5.
    """
    path = folder / HEAD_ONNX
    opset = write_onnx(traced(HeadModule(bank, calibrator), rows), path, "embeddings")
    judge = _of_embeddings(bank, calibrator)
    return agreement(HEAD_ONNX, onnx_judge(path), judge, np.asarray(rows, dtype=np.float32), HEAD_TOLERANCE, opset)


def export_whole(
    folder: Path, bank: HeadBank, calibrator: Calibrator, encoder: Encoder, *, onnx: bool, program: bool
) -> list[Agreement]:
    """Write `guard.onnx` and `guard.pt2`: `pixels` (N, 3, H, W) float32, preprocessed, to the same two outputs.

    They are compared on drawn images of smooth colours and noise, through the encoder's own preprocessing arithmetic.

    Raises:
        GuardError: an encoder that does not compute in float32.
        OnnxDisagrees: probabilities differ by more than 1e-4.
    """
    pixels = _images(encoder)
    head = HeadModule(bank, calibrator)
    made = traced(WholeModule(encoder, head), pixels)
    of_embeddings = _of_embeddings(bank, calibrator)

    def wanted(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return of_embeddings(encoder.forward(torch.from_numpy(rows)).cpu().numpy())

    found = []
    if onnx:
        opset = write_onnx(made, folder / GUARD_ONNX, "pixels")
        judge = onnx_judge(folder / GUARD_ONNX)
        found.append(agreement(GUARD_ONNX, judge, wanted, pixels, WHOLE_TOLERANCE, opset))
    if program:
        write_program(made, folder / PROGRAM)
        judge = program_judge(torch.export.load(folder / PROGRAM))
        found.append(agreement(PROGRAM, judge, wanted, pixels, WHOLE_TOLERANCE))
    return found


def _of_embeddings(bank: HeadBank, calibrator: Calibrator) -> Judge:
    """The guard's own path."""

    def judge(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = head_logits(bank, rows)
        return logits, calibrator.probabilities(logits)

    return judge


def _images(encoder: Encoder) -> np.ndarray:
    """(n, 3, H, W) float32 model inputs of drawn images."""
    from PIL import Image

    height, width = encoder.spec.image_size or (224, 224)
    rng = np.random.default_rng(0)
    inputs = []
    for i in range(_IMAGES):
        coarse = rng.integers(0, 256, (2 + i % 7, 2 + i % 5, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width + 8, height + 8), Image.Resampling.BICUBIC)
        inputs.append(encoder.preprocess(image).numpy())
    return np.stack(inputs).astype(np.float32)
