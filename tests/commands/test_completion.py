"""TAB: real shells, and lines as they are typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guardtrain.cli import COMMANDS, main
from guardtrain.commands.completion import SCRIPTS, completions


def test_commands_actions_groups_options_and_settings() -> None:
    assert {f"{name} " for name in COMMANDS} < set(completions("guardtrain "))
    assert completions("guardtrain sto") == ["store "]
    assert completions("guardtrain store ver") == ["verify "]
    assert completions("guardtrain store verify pa") == ["path=", "paths="]
    assert {"head=linear", "head=lp_plus_plus"} == set(completions("guardtrain train head=l"))
    assert completions("guardtrain train head=mlp mixture.bu") == ["mixture.budget="]
    assert completions("guardtrain no_such h") == []
    assert completions("guardtrain predict guard=outputs/") == []  # the shell's file names


def test_only_groups_of_the_command_are_offered() -> None:
    offered = {word.rstrip("=.") for word in completions("guardtrain train ")}
    assert {"head", "loss", "data", "mixture"} <= offered
    assert not offered & {"grid", "source", "kind", "train_schema"}


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_each_shell_reads_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_what_is_typed(tmp_path: Path) -> None:
    (tmp_path / "guardtrain").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m guardtrain.cli "$@"\n')
    (tmp_path / "guardtrain").chmod(0o755)
    typed = "guardtrain train head=l"
    ask = (
        f"{SCRIPTS['bash']}\nCOMP_LINE='{typed}'; COMP_POINT={len(typed)}; _guardtrain\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["linear", "lp_plus_plus"]  # after `=`, which ends a word in bash


def test_another_shell_is_told_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash, zsh or fish" in capsys.readouterr().err
