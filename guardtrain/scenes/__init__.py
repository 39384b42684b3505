"""The embedded testbed: procedural scene pairs that differ in a known local feature, and a small CLIP to read them."""

from __future__ import annotations

from pathlib import Path

from guardtrain.scenes.features import CATEGORIES
from guardtrain.scenes.sheet import contact_sheet
from guardtrain.scenes.source import SceneSource

DEMO_ENCODER = Path(__file__).parent / "demo_encoder"
"""The folder of the demo encoder: `open_clip.create_model_from_pretrained(f"local-dir:{DEMO_ENCODER}")`."""

__all__ = ["CATEGORIES", "DEMO_ENCODER", "SceneSource", "contact_sheet"]
