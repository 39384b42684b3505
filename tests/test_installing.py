"""The line that installs an optional part, in the environments that guardtrain runs in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from guardtrain import installing
from guardtrain.installing import install_line


class Installed:
    """What importlib.metadata says of an installed package."""

    def __init__(self, origin: dict[str, object] | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        return json.dumps(self.origin) if name == "direct_url.json" and self.origin is not None else None


FROM_INDEX = Installed(None)
WHEEL = Installed({"url": "file:///x/guardtrain-0.1.0-py3-none-any.whl", "archive_info": {}})
IN_PLACE = Installed({"url": "file:///x", "dir_info": {"editable": True}})


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Nothing is remembered from one environment to the next."""
    install_line.cache_clear()
    yield
    install_line.cache_clear()


@pytest.mark.parametrize(
    ("found", "checkout", "wanted"),
    [
        (FROM_INDEX, False, "'guardtrain[onnx]'"),
        (WHEEL, False, "'guardtrain[onnx]'"),
        (IN_PLACE, True, "-e '{root}[onnx]'"),
        (None, True, "-e '{root}[onnx]'"),  # no more than a folder on PYTHONPATH
        (WHEEL, True, "'guardtrain[onnx]'"),  # and a checkout whose tests are run with it
    ],
)
def test_how_guardtrain_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Installed | None, checkout: bool, wanted: str
) -> None:
    def distribution(name: str) -> Installed:
        if found is None:
            raise PackageNotFoundError(name)
        return found

    package = tmp_path / "guardtrain"
    package.mkdir()
    if checkout:
        (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(installing, "distribution", distribution)
    monkeypatch.setattr(installing, "__file__", str(package / "installing.py"))
    assert install_line("onnx").endswith(f" install {wanted.format(root=tmp_path)}")
    install_line.cache_clear()
    monkeypatch.chdir(tmp_path)
    assert install_line("onnx").endswith(f" install {wanted.format(root='.')}")
    assert install_line().endswith((" install guardtrain", " install -e ."))


def test_whose_pip_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    for place in (".venv/bin", "bin"):
        pip = tmp_path / place / "pip"
        pip.parent.mkdir(parents=True)
        pip.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # the shell's is another Python's
    assert install_line("onnx").startswith(".venv/bin/python -m pip install ")
    install_line.cache_clear()
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in (".venv/bin", "bin")))
    assert install_line("onnx").startswith("pip install ")
    install_line.cache_clear()
    monkeypatch.setattr(installing, "find_spec", lambda name: None)
    assert install_line("onnx").startswith("uv pip install --python .venv/bin/python ")
