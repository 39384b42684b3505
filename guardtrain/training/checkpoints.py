"""Checkpoints that are whole whatever ends a training: a kill, a power cut, a full disk."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from guardtrain.files import replace_file


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, each the old file or the whole new one.

    Lightning writes to the system's folder of temporary files and moves the file from there: between two disks that
    is a copy, of which a full disk takes a half, and the training could not go on from it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()  # what torch says of a full disk does not tell that it is one
        torch.save(checkpoint, content)
        replace_file(Path(path), lambda temporary: temporary.write_bytes(content.getbuffer()))
