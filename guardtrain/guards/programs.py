"""Write a guard's programs, ONNX and `torch.export`, each checked against the guard's own path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from guardtrain.guards.directory import CATEGORIES_ONNX, GUARD_ONNX, HEAD_ONNX, PROGRAM
from guardtrain.guards.logits import head_function
from guardtrain.guards.onnx_export import (
    CATEGORY_TOLERANCE,
    HEAD_TOLERANCE,
    OUTPUTS,
    WHOLE_TOLERANCE,
    Agreement,
    Judge,
    agreement,
    onnx_judge,
    program_judge,
    remembered,
    save_onnx,
    traced,
    write_onnx,
    write_program,
)
from guardtrain.guards.onnx_graphs import category_graph, head_graph
from guardtrain.guards.torch_modules import CategoryModule, HeadModule, WholeModule

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.guards.calibration import Calibrator
    from guardtrain.guards.category_head import CategoryHead
    from guardtrain.heads.bank import HeadBank

_IMAGES = 17  # that whole programs are compared on


def export_head(folder: Path, bank: HeadBank, calibrator: Calibrator, rows: np.ndarray) -> Agreement:
    """Write `head.onnx`: `embeddings` (N, D) float32 to `logit` (N,) and calibrated `probability` (N,).

    Args:
        rows: (n, D) embeddings it is compared on.

    Raises:
        OnnxDisagrees: logits differ by more than rounding, or probabilities by 1e-5 more than these logits' would.
    """
    path = folder / HEAD_ONNX
    if (graph := head_graph(bank, calibrator)) is not None:
        opset = save_onnx(graph, path)
    else:
        opset = write_onnx(traced(HeadModule(bank, calibrator), rows), path, "embeddings")
    judge, rows = _of_embeddings(bank, calibrator), np.asarray(rows, dtype=np.float32)
    return agreement(HEAD_ONNX, onnx_judge(path), judge, rows, HEAD_TOLERANCE, opset, calibrator)


def export_categories(folder: Path, head: CategoryHead, rows: np.ndarray) -> Agreement:
    """Write `categories.onnx`: `embeddings` (N, D) float32 to `logits` and `categories` (N, C), of an unsafe image.

    It is a file of its own so that whoever takes all outputs of `head.onnx` still gets two.

    Args:
        rows: (n, D) embeddings it is compared on.

    Raises:
        OnnxDisagrees: probabilities differ by more than 1e-4.
    """
    path = folder / CATEGORIES_ONNX
    opset = save_onnx(category_graph(head), path)

    def judge(batch: np.ndarray) -> tuple[np.ndarray, ...]:
        return batch @ head.weight.T + head.bias, head.probabilities(batch)

    rows = np.asarray(rows, dtype=np.float32)
    return agreement(CATEGORIES_ONNX, onnx_judge(path), judge, rows, CATEGORY_TOLERANCE, opset)


def export_whole(
    folder: Path,
    bank: HeadBank,
    calibrator: Calibrator,
    encoder: Encoder,
    *,
    onnx: bool,
    program: bool,
    categories: CategoryHead | None = None,
) -> list[Agreement]:
    """Write `guard.onnx` and `guard.pt2`: `pixels` (N, 3, H, W) float32, preprocessed, to the same two outputs.

    Where categories are named, `categories` (N, C) is the third. They are compared on drawn images of smooth colours
    and noise, through the encoder's own preprocessing arithmetic.

    Raises:
        GuardError: an encoder that does not compute in float32.
        OnnxDisagrees: logits differ by more than rounding, or probabilities by 1e-4 more than these logits' would.
    """
    pixels = _images(encoder)
    head = HeadModule(bank, calibrator)
    third = None if categories is None else CategoryModule(categories)
    made = traced(WholeModule(encoder, head, third), pixels)
    of_embeddings = _of_embeddings(bank, calibrator, categories)

    @remembered
    def wanted(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return of_embeddings(encoder.forward(torch.from_numpy(rows)).cpu().numpy())

    found = []
    if onnx:
        opset = write_onnx(made, folder / GUARD_ONNX, "pixels", OUTPUTS if categories else OUTPUTS[:2])
        judge = onnx_judge(folder / GUARD_ONNX)
        found.append(agreement(GUARD_ONNX, judge, wanted, pixels, WHOLE_TOLERANCE, opset, calibrator))
    if program:
        write_program(made, folder / PROGRAM)
        judge = program_judge(torch.export.load(folder / PROGRAM))
        found.append(agreement(PROGRAM, judge, wanted, pixels, WHOLE_TOLERANCE, None, calibrator))
    return found


def _of_embeddings(bank: HeadBank, calibrator: Calibrator, categories: CategoryHead | None = None) -> Judge:
    """The guard's own path."""
    head = head_function(bank)

    def judge(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        logits = head(rows)
        found = logits, calibrator.probabilities(logits)
        return found if categories is None else (*found, categories.probabilities(rows))

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
