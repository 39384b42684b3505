"""Read a `.wandb` file as `wandb sync` will: LevelDB's log format, a protobuf record in each entry."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK, _HEADER = 32_768, 7
_FULL, _LAST = 1, 4


def entries(path: Path) -> Iterator[bytes]:
    data, at, parts = path.read_bytes(), _HEADER, b""  # the file's own header is as long as an entry's
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if kind == 0:
            break
        parts += data[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""


def _whole(folder: Path) -> list[bytes]:
    """The entries, once the last is there: offline, W&B's service writes on for a moment after a run is finished."""
    for _ in range(200):
        found = [entry for file in folder.glob("*.wandb") for entry in entries(file)]
        if any(wandb_internal_pb2.Record.FromString(e).WhichOneof("record_type") == "exit" for e in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{folder} has no run with an end")


class OfflineRun:
    """What an offline run would send: its run, config, last values, and artifacts by whether they are used or made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: Any = None
        self.config: dict[str, Any] = {}
        self.history: dict[str, Any] = {}
        self.uses: dict[str, Any] = {}
        self.makes: dict[str, Any] = {}
        self.seen: set[str] = set()  # metrics of any step
        for entry in _whole(folder):
            record = wandb_internal_pb2.Record.FromString(entry)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self._update(record.run.config)
            elif kind == "config":
                self._update(record.config)
            elif kind == "history":
                for item in record.history.item:
                    self.seen.add(item.key or "/".join(item.nested_key))
                    self.history[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
            elif kind == "artifact":
                (self.uses if record.artifact.use_after_commit else self.makes)[record.artifact.name] = record.artifact

    def _update(self, config: Any) -> None:
        for item in config.update:
            self.config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
