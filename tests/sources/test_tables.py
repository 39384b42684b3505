"""The sources' light imports, and their settings as Hydra configs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from guardtrain.embeddings import StoreSource
from guardtrain.sources import ArraysSource, ImageFolderSource, ManifestSource


@pytest.mark.parametrize("source", [ArraysSource, ImageFolderSource, ManifestSource, StoreSource])
def test_settings_are_structured_configs(source: type) -> None:
    first = "root" if source is ImageFolderSource else "path"
    assert OmegaConf.to_object(OmegaConf.structured(source(**{first: "x"}))) == source(**{first: "x"})


def test_light_modules_leave_torch_alone() -> None:
    code = (
        "import sys, guardtrain.records, guardtrain.sources, guardtrain.encoders, guardtrain.embeddings; "
        "print([m for m in ('torch', 'open_clip', 'timm', 'pandas', 'sklearn') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
