"""A real guard for the tests: a linear head on the demo encoder's embeddings of scenes, written as a directory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from guardtrain.embeddings.sketches import sketched
from guardtrain.encoders import load_encoder
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.guards.category_fit import CategoryImages
from guardtrain.guards.export import export_guard
from guardtrain.guards.neighbours import Neighbours
from guardtrain.guards.parts import TrainedRun
from guardtrain.guards.settings import GuardSettings, ReviewSettings
from guardtrain.guards.validation import Validation
from guardtrain.heads.linear import LinearHead
from guardtrain.scenes import SceneSource

DEMO = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder")
TRAINED, VALIDATED = 300, 300
POINTS = ["strict", "balanced", "permissive", "review"]


def write_small_guard(folder: Path, **settings: Any) -> Path:
    """The guard's directory, exported with these settings of `GuardSettings`."""
    source = SceneSource("test", TRAINED + VALIDATED, seed=5)
    encoder = load_encoder(DEMO)
    x = encoder.encode_images(source.images(range(TRAINED + VALIDATED)))
    records = source.records()
    labels, ids = records.labels.astype(np.int64), [str(i) for i in records.ids]
    fitted = LogisticRegression(C=100.0).fit(x[:TRAINED], labels[:TRAINED])
    bank = LinearHead().bank(1, x.shape[1])
    bank.weight.data = torch.tensor(fitted.coef_, dtype=torch.float32)[:, :, None]
    bank.bias.data = torch.tensor(fitted.intercept_, dtype=torch.float32)[:, None]
    near = Neighbours.of(x[:TRAINED], labels[:TRAINED], ids[:TRAINED], list(records.pair_ids[:TRAINED]))
    head, training = {"_target_": "guardtrain.heads.LinearHead"}, {"data": "scenes", "head": "linear", "recipe": {}}
    known = CategoryImages.of(x[:TRAINED], labels[:TRAINED], records.categories[:TRAINED], records.groups[:TRAINED])
    run = TrainedRun(bank.eval(), encoder.spec, head, training, neighbours=near, categorised=known,
                     known=sketched([x[:TRAINED]]))  # fmt: skip
    validation = Validation(
        x[TRAINED:],
        labels[TRAINED:],
        records.groups[TRAINED:].astype(str),
        records.categories[TRAINED:],
        "other scenes",
    )
    wanted = {"name": "scenes", "neighbours": True, "onnx": False, "review": ReviewSettings(enabled=True)}
    export_guard(folder, run, validation, GuardSettings(**wanted | {"category_minimum": 10} | settings),
                 encoder=lambda: encoder)  # fmt: skip
    return folder


def image_files(count: int, seed: int = 9) -> list[bytes]:
    """Scenes as files of several formats and modes."""
    source = SceneSource("test", count, seed=seed)
    kinds = [
        ("PNG", "RGB"),
        ("JPEG", "RGB"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("PNG", "RGBA"),
        ("JPEG", "L"),
        ("GIF", "P"),
    ]
    kinds += [("TIFF", "RGB"), ("PPM", "RGB")]
    files = []
    for i, pixels in enumerate(np.asarray(source.images(range(count)))):
        kind, mode = kinds[i % len(kinds)]
        out = io.BytesIO()
        Image.fromarray(pixels).resize((96 + i % 40, 80)).convert(mode).save(out, kind)
        files.append(out.getvalue())
    return files
