"""A tiny CLIP with random weights in a folder, as open_clip itself would save one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS_CFG = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear"}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `open_clip_config.json` and `open_clip_model.safetensors`."""
    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG})
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(**MODEL_CFG)
        with torch.no_grad():  # far enough from initialisation that every part shows in the output
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(folder / "open_clip_model.safetensors"))
    return folder


@pytest.fixture(scope="session")
def tiny_timm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of timm's `test_vit`, classifier included."""
    import timm
    import torch
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_vit", num_classes=7)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(file))
    return file


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Images of several sizes, shapes and modes."""
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return rng.integers(0, 255, shape, dtype=np.uint8)

    return [
        Image.fromarray(noise(40, 70, 3)),
        Image.fromarray(noise(90, 33, 3)),
        Image.fromarray(noise(32, 32, 3)),
        Image.fromarray(noise(20, 25, 3)),
        Image.fromarray(noise(64, 64)),
        Image.fromarray(noise(50, 40, 4), "RGBA"),
        Image.fromarray(noise(45, 45, 3)).convert("P"),
    ]
