"""Small guards for the tests: two classes of unit-norm embeddings, a head trained on some, validation on the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from guardtrain.encoders.spec import EncoderSpec, external_spec
from guardtrain.guards.export import Exported, export_guard
from guardtrain.guards.neighbours import Neighbours
from guardtrain.guards.parts import TrainedRun
from guardtrain.guards.settings import CalibrationSettings, GuardSettings
from guardtrain.guards.validation import Validation
from guardtrain.heads import LinearHead
from guardtrain.heads.bank import HeadBank

DIM = 16
SPEC: EncoderSpec = external_spec({"name": "toy", "normalized": True}, DIM)
DEFINITION = {"_target_": "guardtrain.heads.LinearHead"}


def toy_images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`(n, D)` float32 embeddings of unit norm and their labels."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    x = g.normal(size=(n, DIM)).astype(np.float32)
    x[:, 0] += 2 * y
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


def toy_bank() -> HeadBank:
    """A linear head that is overconfident, so that there is something to calibrate."""
    bank = LinearHead().bank(1, DIM)
    with torch.no_grad():
        bank.weight[0, :, 0] = torch.from_numpy(np.random.default_rng(5).normal(size=DIM).astype(np.float32))
        bank.weight[0, 0, 0] = 16.0
        bank.bias[0, 0] = -5.0
    return bank.eval()


def toy_validation(n: int = 400, seed: int = 1) -> Validation:
    """Images of three categories, or of none."""
    x, y = toy_images(n, seed)
    names = np.array(["fire", "blood", "knife", None], dtype=object)[np.arange(n) % 4]
    return Validation(x, y, np.array([f"g{i // 2}" for i in range(n)]), names, "drawn images")


def toy_run(bank: HeadBank | None = None, definition: dict[str, Any] | None = None) -> TrainedRun:
    """A run of 40 images, every second one half of a pair."""
    x, y = toy_images(40, seed=2)
    pairs = [f"p{i // 4}" if i % 2 else None for i in range(40)]
    near = Neighbours.of(x, y, [f"train-{i}" for i in range(40)], pairs)
    training = {"data": "toy", "run": "abc", "head": "linear", "mixture": {"budget": 40}}
    data = {"real": {"licence": "cc-by-4.0", "access": "open", "url": "https://example.org", "terms": None}}
    return TrainedRun(
        bank or toy_bank(), SPEC, definition or DEFINITION, training, categories=("blood", "fire"), data=data,
        neighbours=near,
    )  # fmt: skip


def toy_settings(**changed: Any) -> GuardSettings:
    """Quick ones: no ONNX, few bootstrap draws."""
    return GuardSettings(**{"onnx": False, "calibration": CalibrationSettings(replicates=20)} | changed)


def toy_guard(out: Path, **changed: Any) -> Exported:
    """A guard in `out`."""
    return export_guard(out, toy_run(), toy_validation(), toy_settings(**changed))
