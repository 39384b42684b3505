from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from guardtrain import disk
from guardtrain.commands.job import FAILED, Job, Outcome, describe
from guardtrain.files import replace_file


def _raising(error: BaseException) -> Callable[..., NoReturn]:
    def write(*_: Any, **__: Any) -> NoReturn:
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (OSError(errno.EIO, "Input/output error"), errno.EIO),
        (OSError("4096 requested and 512 written"), errno.ENOSPC),  # numpy's
        (
            RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file"),
            errno.ENOSPC,
        ),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (sqlite3.OperationalError("database or disk is full"), errno.ENOSPC),
    ],
)
def test_a_write_that_failed_names_the_file_whatever_library_says_it(
    tmp_path: Path, error: Exception, number: int
) -> None:
    (tmp_path / "table").write_text("old")
    with pytest.raises(OSError, match="table") as raised:
        replace_file(tmp_path / "table", _raising(error))
    assert raised.value.errno == number
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"table": "old"}
    said = disk.why_unwritten(raised.value, [])
    assert said is not None
    assert str(tmp_path) in said
    assert " free" in said


@pytest.mark.parametrize("error", [ValueError("no such column"), OSError(errno.EACCES, "Permission denied", "x")])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        replace_file(tmp_path / "table", _raising(error))
    assert raised.value is error
    assert disk.why_unwritten(error, [tmp_path]) is None


def test_of_folders_that_may_be_meant_the_fullest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, places = os.statvfs, [tmp_path / name for name in ("roomy", "full", "out_of_files")]

    def found(path: Path) -> Any:
        left = list(real(path))
        if Path(path).name == "full":
            left[4] = 0  # blocks
        if Path(path).name == "out_of_files":
            left[7] = 0
        return os.statvfs_result(left)

    for place in places:
        place.mkdir()
    monkeypatch.setattr(disk.os, "statvfs", found)
    error = OSError(errno.ENOSPC, "No space left on device")
    full = f"{places[1]} could not be written to: no space left on its disk (0 bytes free)."
    assert str(disk.why_unwritten(error, places[:2])).startswith(full)
    out_of_files = f"{places[2]} could not be written to: its disk takes no more files"
    assert str(disk.why_unwritten(error, [places[0], places[2]])).startswith(out_of_files)


def test_a_job_whose_disk_is_full_fails_by_no_bug_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    error = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("guardtrain.commands.train.run", _raising(error))
    config = OmegaConf.create({"out": str(tmp_path)})
    outcome = Job("train", "s", {})._work(config, tmp_path, "k", tmp_path / "train.log")
    assert (outcome.status, outcome.mendable) == (FAILED, True)
    assert str(outcome.error).startswith(f"{tmp_path} could not be written to: no space left")
    # and one that could not even note it
    assert "killed" in describe(Outcome("k", "s"), tmp_path)
    monkeypatch.setattr(disk, "_free", lambda folder: 0)
    assert f"{tmp_path} could not be written to: no space left" in describe(Outcome("k", "s"), tmp_path)
