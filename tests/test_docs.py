"""`make docs`: the site is built without a warning, and has what is made of the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import guardtrain as gt
from guardtrain.commands.registry import COMMANDS

ROOT = Path(__file__).parents[1]


@pytest.mark.apart
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--config-file", "docs/mkdocs.yml"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*command, "--site-dir", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    api, commands = ((tmp_path / name).read_text(encoding="utf-8") for name in ("api.html", "commands.html"))
    assert not [name for name in gt.__all__ if f">{name}</span>" not in api]
    assert not [name for name in COMMANDS if f'id="{name}"' not in commands]
