"""Files that others published: their numbers are read, and nothing else in them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from guardtrain.benchmarks.reading import ALONE, read_arrays
from guardtrain.errors import GuardError


class Runs:
    """A pickle of it makes a folder when it is read as pickles usually are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "<i8"])
def test_pickled_arrays_are_read(tmp_path: Path, protocol: int, dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps(array, protocol))
    assert read_arrays(path)[ALONE].tolist() == array.tolist()
    path.write_bytes(pickle.dumps({"x": array.T, "y": array[0]}, protocol))
    found = read_arrays(path)
    assert (found["x"].tolist(), found["y"].tolist()) == (array.T.tolist(), array[0].tolist())


@pytest.mark.parametrize("wrapped", [lambda r: r, lambda r: [np.zeros(2), r], lambda r: np.array([r], dtype=object)])
def test_a_hostile_pickle_is_refused_by_name_without_running_it(tmp_path: Path, wrapped: Any) -> None:
    path, made = tmp_path / "prompts.p", tmp_path / "made"
    path.write_bytes(pickle.dumps(wrapped(Runs(made))))
    with pytest.raises(GuardError, match=r"posix\.mkdir|nt\.mkdir|dtype 'O"):
        read_arrays(path)
    assert not made.exists()
    pickle.loads(path.read_bytes())  # so the pickle does what it is meant to
    assert made.exists()


@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_a_hostile_checkpoint_is_refused(tmp_path: Path, suffix: str) -> None:
    made, path = tmp_path / "made", tmp_path / f"head{suffix}"
    torch.save({"weight": torch.ones(1), "x": Runs(made)}, path)
    with pytest.raises(GuardError, match=r"holds more than tensors: (posix|nt)\.mkdir\. "):
        read_arrays(path)
    assert not made.exists()


def test_a_text_called_a_checkpoint_is_none(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    path.write_text("hello")
    with pytest.raises(GuardError, match=r"head\.pth is no checkpoint of tensors, or it is damaged\.$"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cnumpy\nndarray\n((I1000000000000\ntR.", "damaged"),  # an array of a terabyte
        (b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9\ntS'b'\ntR.", "another class or shape"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "text in the encoding 'rot13'"),
        (b"c_codecs\nencode\n}S'y'\nI1\nsb.", "damaged"),  # would set an attribute of what is allowed
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"(I1\n", "damaged"),
        (pickle.dumps({1: np.zeros(2)}), "holds more than arrays"),
        (pickle.dumps([1, 2]), "holds more than arrays: '' is a list"),
        (pickle.dumps(np.array([1.0, np.nan])), "must hold finite numbers"),
        (pickle.dumps(np.array(["a"])), "dtype 'U1'"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(GuardError, match=words):
        read_arrays(path)


def test_a_pickle_cannot_change_numpys_own_dtypes(tmp_path: Path) -> None:
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps(np.zeros(2, ">f4"), 2))
    read_arrays(path)
    assert np.dtype("f4").byteorder == "="
    assert np.dtype("f4").str == np.zeros(1, np.float32).dtype.str


def test_tensors_are_read_from_checkpoints_and_safetensors(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(2, 3, dtype=torch.bfloat16), "n": torch.tensor(3)}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    torch.save(torch.nn.Parameter(torch.ones(2, 3)), tmp_path / "a.pt")
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    for name in ("a.ckpt", "a.safetensors"):
        found = read_arrays(tmp_path / name)
        assert found["a.weight"].tolist() == state["a.weight"].double().tolist()
        assert found["n"] == 3
        assert list(read_arrays(tmp_path / name, ["n"])) == ["n"]
        with pytest.raises(GuardError, match="lacks b; it holds"):
            read_arrays(tmp_path / name, ["b"])
    assert read_arrays(tmp_path / "a.pt")[ALONE].shape == (2, 3)


def test_npy_without_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3), np.float16))
    assert read_arrays(tmp_path / "a.npy")[ALONE].dtype == np.float64
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    for name, words in (("b.npy", "pickled objects"), ("c.npy", "no file"), ("a.zip", "no file")):
        with pytest.raises(GuardError, match=words):
            read_arrays(tmp_path / name)
