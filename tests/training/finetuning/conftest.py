"""Small encoders of each kind, loaded anew for each test: tuning changes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from guardtrain.encoders import EncoderSettings, load_encoder
from guardtrain.encoders.encoder import Encoder
from tests.encoders.conftest import tiny_clip, tiny_timm  # noqa: F401 (fixtures)

DEMO = "pkg://guardtrain/scenes/demo_encoder"


@pytest.fixture
def settings_of(tiny_clip: Path, tiny_timm: Path) -> Callable[[str], EncoderSettings]:  # noqa: F811
    """Settings of `resnet` (the demo encoder), `transformer` (open_clip's), `pooled` (the same) or `timm`."""
    known = {
        "resnet": EncoderSettings(name="demo", checkpoint=DEMO, device="cpu"),
        "transformer": EncoderSettings(name="tiny", checkpoint=str(tiny_clip), device="cpu"),
        "pooled": EncoderSettings(name="tiny", checkpoint=str(tiny_clip), output="pooled", device="cpu"),
        "timm": EncoderSettings(
            name="vit",
            family="timm",
            model="test_vit",
            checkpoint=str(tiny_timm),
            model_kwargs={"num_classes": 7},
            normalize=False,
            device="cpu",
        ),
    }
    return known.__getitem__


@pytest.fixture
def load(settings_of: Callable[[str], EncoderSettings]) -> Callable[[str], Encoder]:
    """Load the encoder of one of these names."""
    return lambda kind: load_encoder(settings_of(kind))
