from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from guardtrain.training.checkpoints import WholeCheckpoints


def test_a_checkpoint_is_the_old_one_or_the_whole_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "folder" / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"step": 1}, file)

    def out_of_room(path: Path, content: Any) -> NoReturn:
        with path.open("wb") as part:
            part.write(content[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", out_of_room)
        with pytest.raises(OSError, match=r"last\.ckpt") as raised:
            WholeCheckpoints().save_checkpoint({"step": 2}, file)
    assert raised.value.errno == errno.ENOSPC
    assert torch.load(file, weights_only=True) == {"step": 1}
    assert list(file.parent.iterdir()) == [file]
    WholeCheckpoints().save_checkpoint({"step": 2}, str(file))
    assert torch.load(file, weights_only=True) == {"step": 2}
