"""Arrays in files that others published: .npy, pickles of arrays, torch checkpoints, safetensors; nothing is run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.errors import GuardError
from guardtrain.files import stand_in

ALONE = ""  # the name of an array that is a file's whole content
PICKLES, CHECKPOINTS = (".p", ".pkl", ".pickle"), (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".npy", ".safetensors", *PICKLES, *CHECKPOINTS)


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file by name, float64; a single one is called `ALONE`.

    Args:
        path: `.npy`, `.safetensors`, a pickle of arrays (`.p`, `.pkl`) or a torch checkpoint (`.pt`, `.pth`, `.bin`;
            read with `weights_only`).
        names: only these, and all of them; None for all of numbers.

    Raises:
        GuardError: no such file, another kind of file, one that holds anything but numbers, or lacks a name.
    """
    if not path.is_file():
        raise GuardError(f"There is no file {path}.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise GuardError(f"{path} is no file of weights that can be read: allowed are {', '.join(SUFFIXES)}.")
    if wrong := stand_in(path):
        raise GuardError(wrong)
    arrays = reader(path, names)
    if missing := [name for name in names or () if name not in arrays]:
        has = ", ".join(map(repr, list(arrays)[:12])) or "nothing"
        raise GuardError(f"{path} lacks {', '.join(missing)}; it holds {has}.")
    chosen = arrays if names is None else {name: arrays[name] for name in names}
    for name, array in chosen.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise GuardError(f"{path}: {name or 'the array'} must hold finite numbers; it is {array.dtype}.")
    return {name: array.astype(np.float64) for name, array in chosen.items()}


class _Refused(Exception):
    """Something in a pickle that is no array of numbers."""


class _Ndarray:
    """Stands for `numpy.ndarray` in a pickle; it cannot be called, so no array of any size can be asked for."""

    __slots__ = ()


class _Dtype:
    """`numpy.dtype` for numbers alone."""

    __slots__ = ()

    def __call__(self, name: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
        if not isinstance(name, str) or not re.fullmatch(r"[<>=|]?[fiu][1248]", name):
            raise _Refused(f"an array of the dtype {name!r:.40}")
        return np.dtype(name, copy=True)  # a pickle changes it (its byte order), and must not change numpy's own


class _Reconstruct:
    """numpy's `_reconstruct`: an empty array that the pickle then fills."""

    __slots__ = ()

    def __call__(self, subtype: Any, shape: Any, dtype: Any) -> np.ndarray:
        if subtype is not _NDARRAY or shape != (0,):
            raise _Refused("an array of another class or shape than numpy writes")
        return np.ndarray((0,), dtype=np.int8)


class _Encode:
    """`_codecs.encode`, with which old pickles hold bytes."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _Refused(f"text in the encoding {encoding!r:.40}")
        return text.encode("latin-1")


class _FromBuffer:
    """numpy's `_frombuffer`, which newer pickles hold arrays with."""

    __slots__ = ()

    def __call__(self, buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
        if not isinstance(buffer, bytes | bytearray) or not isinstance(dtype, np.dtype):
            raise _Refused("an array that is not made of bytes")
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_NDARRAY = _Ndarray()
# Objects without attributes: a pickle can call them, and cannot change them.
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Dtype(),
    ("_codecs", "encode"): _Encode(),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
}


class _ArrayUnpickler(pickle.Unpickler):
    """Looks up nothing but what arrays of numbers consist of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def _pickled(path: Path, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        try:
            content = _ArrayUnpickler(file).load()
        except _Refused as error:
            raise GuardError(
                f"{path} is a pickle that holds {error}. Only arrays of numbers are read from pickles, for anything "
                "else in one can run code. Nothing of it was run; do not open it otherwise unless you trust its origin."
            ) from error
        except Exception as error:  # a broken pickle raises errors of any class
            raise GuardError(f"{path} is damaged, or no pickle of arrays: {_line(error)}") from error
    return _by_name(path, content, lambda value: value)


def _npy(path: Path, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    try:
        return {ALONE: np.load(path, allow_pickle=False)}
    except (ValueError, EOFError) as error:
        raise GuardError(f"{path} is damaged, or holds pickled objects: {_line(error)}") from error


def _safetensors(path: Path, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    import safetensors.torch  # torch knows bfloat16, numpy does not

    try:
        with safetensors.safe_open(path, framework="pt") as file:  # reads the named ones alone
            keys = [key for key in file.keys() if names is None or key in names]  # noqa: SIM118
            return {key: _numbers(file.get_tensor(key)) for key in keys}
    except safetensors.SafetensorError as error:
        raise GuardError(f"{path} is damaged: {_line(error)}") from error


def _checkpoint(path: Path, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and key errors here
        # torch names what it refuses, and tells how to run it all the same, which is no advice
        if (held := re.search(r"unsupported (?:global: )?GLOBAL ([\w.]+)", str(error), re.IGNORECASE)) is not None:
            raise GuardError(
                f"{path} holds more than tensors: {held[1]}. Only tensors are read from checkpoints, for anything else "
                "in one can run code. Nothing of it was run; do not open it otherwise unless you trust its origin."
            ) from error
        raise GuardError(f"{path} is no checkpoint of tensors, or it is damaged.") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]  # as Lightning and others wrap it
    if isinstance(content, Mapping) and names is not None:
        content = {name: content[name] for name in names if name in content}
    return _by_name(path, content, lambda value: _numbers(value) if isinstance(value, torch.Tensor) else value)


def _numbers(tensor: Any) -> np.ndarray:
    """A torch tensor as numpy; what numpy does not know (bfloat16) as float32."""
    tensor = tensor.detach().cpu()
    return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def _by_name(path: Path, content: Any, array: Callable[[Any], Any]) -> dict[str, np.ndarray]:
    parts = content if isinstance(content, Mapping) else {ALONE: content}
    arrays = {name: array(value) for name, value in parts.items()}
    if wrong := [name for name, value in arrays.items() if not isinstance(value, np.ndarray) or type(name) is not str]:
        raise GuardError(f"{path} holds more than arrays: {wrong[0]!r} is a {type(parts[wrong[0]]).__name__}.")
    return arrays


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


_READERS: Mapping[str, Callable[[Path, Sequence[str] | None], dict[str, np.ndarray]]] = {
    ".npy": _npy,
    ".safetensors": _safetensors,
    **dict.fromkeys(PICKLES, _pickled),
    **dict.fromkeys(CHECKPOINTS, _checkpoint),
}
