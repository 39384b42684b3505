"""A guard's directory: its files, their hashes, and what is refused before a byte of it is used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardtrain.errors import GuardError
from guardtrain.files import file_sha256

log = logging.getLogger(__name__)

FORMAT, CATEGORIES_FORMAT = 2, 2  # the newest; the one since which a guard may name categories
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
HEAD_ONNX, GUARD_ONNX, PROGRAM = "head.onnx", "guard.onnx", "guard.pt2"
CATEGORIES_ONNX = "categories.onnx"
NEIGHBOURS, KNOWN_IMAGES = "neighbours.safetensors", "known_images.safetensors"

# What torch, joblib, numpy and others write with pickle, which runs code when it is read.
PICKLED = frozenset(
    {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz", ".dill", ".cloudpickle", ".mar"}
)
_PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_REQUIRED = ("encoder", "head", "dim", "calibration", "operating_points", "files")


def config_digest(config: Mapping[str, Any]) -> str:
    """Hex sha256 over the canonical JSON of a config without its own `sha256`."""
    content = {key: value for key, value in config.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_config(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write `config.json`: the format, `content`, size and hash of every other file in `folder`, its own hash.

    Returns:
        What was written.
    """
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CONFIG
    }
    # an older guardtrain reads all that it can read, and says of the rest that it must be updated
    number = CATEGORIES_FORMAT if content.get("category_head") else 1
    config: dict[str, Any] = {"format": number, **content, "files": files}
    config = json.loads(json.dumps(config, allow_nan=False))
    config["sha256"] = config_digest(config)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    usual = (folder / CONFIG).stat().st_mode  # safetensors makes files that nobody else can read
    for name in files:
        (folder / name).chmod(usual)
    return config


def read_config(folder: Path, root: Path | None = None) -> dict[str, Any]:
    """The config of a guard whose every file is whole, unchanged, inside the directory and not pickled.

    Args:
        folder: the guard's directory.
        root: where links may lead: the hub's cache keeps a directory's files beside it. None for `folder` itself.

    Raises:
        GuardError: what is wrong, and what to do.
    """
    if not folder.is_dir():
        raise GuardError(f"There is no guard at {folder}: it is no directory. Give what `guardtrain export` wrote.")
    _refuse_links(folder, (root or folder).resolve())
    _refuse_pickles(folder)
    config = _parsed(folder / CONFIG)
    found = config.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise GuardError(f"{folder / CONFIG} has no format number: it is not a guard's. {_AGAIN}")
    if found > FORMAT:
        raise GuardError(
            f"{folder} is a guard of format {found}; this guardtrain reads formats up to {FORMAT}. Update guardtrain "
            "(pip install -U guardtrain)."
        )
    if missing := [name for name in _REQUIRED if name not in config]:
        raise GuardError(f"{folder / CONFIG} lacks {', '.join(missing)}. {_AGAIN}")
    if config.get("sha256") != config_digest(config):
        raise GuardError(
            f"{folder / CONFIG} was changed since it was written: its content does not have the sha256 that stands in "
            f"it. {_AGAIN}"
        )
    _check_files(folder, config["files"])
    return config


_AGAIN = "Export the guard again, or fetch it again from where it came from."


def _parsed(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GuardError(
            f"{path.parent} holds no {CONFIG}: it is not a guard. Give what `guardtrain export` wrote."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise GuardError(f"{path} is damaged: {error}. {_AGAIN}") from None
    if not isinstance(config, dict):
        raise GuardError(f"{path} is damaged: it holds no JSON object. {_AGAIN}")
    return config


def _check_files(folder: Path, files: Any) -> None:
    if not isinstance(files, dict) or WEIGHTS not in files:
        raise GuardError(f"{folder / CONFIG} names no {WEIGHTS} among its files. {_AGAIN}")
    for name, said in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise GuardError(f"{folder / CONFIG} names the file '{name}', which is outside the directory. {_AGAIN}")
        if not path.is_file():
            raise GuardError(f"{folder} lacks {name}, which its {CONFIG} names. {_AGAIN}")
        if not isinstance(said, dict) or not {"bytes", "sha256"} <= set(said):
            raise GuardError(f"{folder / CONFIG} says no size and sha256 of {name}. {_AGAIN}")
        size = path.stat().st_size
        if size == said["bytes"] and file_sha256(path) == said["sha256"]:
            continue
        if name == CARD:  # for people; often edited on the hub, and nothing is read from it
            log.warning("the card %s was edited since the export", path)
            continue
        what = f"it has {size:,} bytes, not {said['bytes']:,}" if size != said["bytes"] else "its sha256 is another"
        raise GuardError(f"{path} is not the file that was exported: {what}. {_AGAIN}")


def _refuse_links(folder: Path, root: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise GuardError(
                f"{path} is a link to {path.resolve()}, outside the guard's directory. Copy the file itself there "
                "(cp -L), or remove the link."
            )


def _refuse_pickles(folder: Path) -> None:
    """Raises GuardError for a file that is pickled by its name or its content; reading such a file can run code."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (path.suffix.lower() in PICKLED or _is_pickle(path)):
            raise GuardError(
                f"{path} is a pickle, or of a kind that may hold one; reading it could run anything. A guard consists "
                "of JSON, safetensors, ONNX and text: remove the file, and do not trust where it came from."
            )


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    if start[:2] in _PICKLE_STARTS:
        # safetensors begin with the length of their JSON, which can be 640 bytes: 80 02 00 …; no pickle goes on so
        return not (start[2:8] == bytes(6) and start[8:] == b"{")
    if start[:4] != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return any(name.endswith((".pkl", ".pickle")) for name in names)


def is_guard(folder: Path) -> bool:
    """Whether a directory looks like a guard's: it has a config with a format and files."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "format" in config and "operating_points" in config


def guarded_run(folder: Path) -> str | None:
    """The key of the run whose guard lies in `folder`; None where there is none, or one that is refused."""
    try:
        return str(read_config(folder)["training"]["run"])
    except (GuardError, KeyError, TypeError):
        return None


def new_folder(out: Path) -> Path:
    """A fresh directory beside `out` to write a guard in; `move_into_place` makes it `out`.

    Raises:
        GuardError: at `out` lies something that is no guard.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and (is_guard(out) or not any(out.iterdir())))):
        raise GuardError(f"{out} is there and is no guard: it is not overwritten. Give another folder (out=PATH).")
    out.parent.mkdir(parents=True, exist_ok=True)
    for old in out.parent.glob(f".{out.name}.*.old.tmp"):  # of an export that was killed between its two renames
        if not out.exists():
            old.rename(out)
    for stale in out.parent.glob(f".{out.name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = out.parent / f".{out.name}.{os.getpid()}.tmp"
    folder.mkdir()
    return folder


def move_into_place(folder: Path, out: Path) -> None:
    """Make the finished directory `folder` be `out`; a guard that was there is replaced."""
    old = out.parent / f".{out.name}.{os.getpid()}.old.tmp"
    if out.exists():
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)
