from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from guardtrain.cli import main

SMALL_DATA = ["data.real.n=400", "data.pairs.n=400", "data.test.counterfactual.n=200", "data.test.in_domain.n=200"]
# one head of three: what is tested is not the head
SMALL_GRID = [
    "head=linear",
    "grid.budgets=[16,64]",
    "grid.ratios=[0,0.5]",
    "grid.controls=[paired,unpaired]",
    "grid.seeds=2",
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in an empty folder, expect success, and return what it printed."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        got = main(list(arguments))
        captured = capsys.readouterr()
        assert got == code, captured.err
        return captured.out + captured.err

    return command
