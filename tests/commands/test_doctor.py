"""`guardtrain doctor` on this environment, and on ones that lack something."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from guardtrain.cli import main
from guardtrain.commands import doctor
from guardtrain.installing import install_line

ROOT = Path(__file__).parents[2]


def test_it_says_what_is_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "cache"
    store.mkdir()
    (store / "one").write_bytes(b"1")
    monkeypatch.setenv("GUARDTRAIN_CACHE", str(store))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"torch {version('torch')}" in said
    assert f"{store} (GUARDTRAIN_CACHE): 1 files" in said
    assert "HF_HUB_OFFLINE is set" in said
    assert "All that guardtrain needs is there." in said


def test_it_knows_every_optional_part() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) <= set(doctor.EXTRAS)


def test_what_is_missing_is_named_with_what_it_is_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["numpy>=1.26", 'no-such-package>=2; extra == "onnx"', 'numpy>=999; extra == "serve"']
    monkeypatch.setattr(doctor, "requires", lambda name: asked)
    assert doctor.missing_of(None) == []
    assert doctor.missing_of("onnx") == ["no-such-package>=2"]
    assert doctor.missing_of("serve") == ["numpy>=999"]
    assert main(["doctor"]) == 0  # an optional part is no fault
    said = capsys.readouterr().out
    assert "– onnx" in said
    assert f"{install_line('onnx')}      (missing: no-such-package>=2)" in said
    monkeypatch.setattr(doctor, "requires", lambda name: ["no-such-package>=2"])
    assert main(["doctor"]) == 2
    assert "missing or too old: no-such-package>=2" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_is_a_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARDTRAIN_CACHE", "/proc/cache")  # nobody can, root neither
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: not str(path).startswith("/proc"))
    assert main(["doctor"]) == 2
    assert "set GUARDTRAIN_CACHE to a folder that can" in capsys.readouterr().out
