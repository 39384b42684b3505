"""Guards that the tests attack, made once a process."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import yaml
from sklearn.linear_model import LogisticRegression

from guardtrain.benchmarks.attacks.target import Target
from guardtrain.config import conf_dir
from guardtrain.encoders import load_encoder
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.guards.export import export_guard
from guardtrain.guards.validation import Validation
from guardtrain.heads import LinearHead
from guardtrain.sources.images import open_image
from tests.guards.serving.small_guard import write_small_guard
from tests.guards.toys import toy_run, toy_settings

_TRAINED = 30  # photographs


@cache
def attacked_guard(base: Path) -> Path:
    """A linear guard on the demo encoder's embeddings of scenes, with an operating point for people besides."""
    return write_small_guard(base / "attacked-guard", name="attacked")


def fire_target(data: Path, out: Path, images: int) -> tuple[Target, torch.Tensor, torch.Tensor]:
    """A linear guard on MobileNetV2's embeddings of photographs, and some more of them: pixels in [0, 1], labels.

    Args:
        data: the real data.
        out: where the guard goes.
        images: correctly classified ones to give.
    """
    settings = yaml.safe_load((conf_dir() / "encoder" / "mobilenetv2.yaml").read_text())
    settings["checkpoint"] = settings["checkpoint"].replace("${data_dir}", str(data))
    encoder = load_encoder(EncoderSettings(**settings, device="cpu"))
    with (data / "fire" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    g = np.random.default_rng(0)
    fires, others = (g.permutation([row["path"] for row in rows if row["unsafe"] == label]) for label in "10")
    n = _TRAINED // 2 + images
    paths = [path for pair in zip(fires[:n], others[:n], strict=True) for path in pair]
    pixels = np.stack([encoder.pixels(open_image(str(data / "fire" / "images" / path))) for path in paths])
    labels = np.arange(len(paths)) % 2 == 0
    x, y = encoder.forward(torch.from_numpy(pixels)).numpy(), labels.astype(np.int64)
    fitted = LogisticRegression(C=0.01, max_iter=500).fit(x[:_TRAINED], y[:_TRAINED])
    bank = LinearHead().bank(1, encoder.dim)
    bank.weight.data = torch.tensor(fitted.coef_, dtype=torch.float32)[:, :, None]
    bank.bias.data = torch.tensor(fitted.intercept_, dtype=torch.float32)[:, None]
    run = replace(toy_run(bank.eval()), spec=encoder.spec, neighbours=None)
    validation = Validation(
        x[:_TRAINED], y[:_TRAINED], np.arange(_TRAINED).astype(str), np.full(_TRAINED, None), "photographs"
    )
    guard = export_guard(out, run, validation, toy_settings()).guard
    guard._encoder = encoder  # not loaded a second time
    target = Target(guard)
    right = _TRAINED + np.flatnonzero(target.right(guard.logits(x[_TRAINED:]), y[_TRAINED:]))[:images]
    return target, torch.from_numpy(pixels[right]).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(y[right])
