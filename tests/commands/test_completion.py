"""TAB: real shells, and lines as they are typed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from guardtrain.cli import main
from guardtrain.commands.completion import SCRIPTS, completions
from guardtrain.commands.registry import COMMANDS
from guardtrain.commands.settings_tree import settings_tree
from guardtrain.config import register_schemas
from guardtrain.config_groups import conf_dir


def test_commands_actions_groups_options_and_settings() -> None:
    assert {f"{name} " for name in COMMANDS} < set(completions("guardtrain "))
    assert completions("guardtrain sto") == ["store "]
    assert completions("guardtrain store ver") == ["verify "]
    assert completions("guardtrain store verify pa") == ["path=", "paths="]
    assert {"head=linear", "head=lp_plus_plus"} == set(completions("guardtrain train head=l"))
    assert completions("guardtrain train head=mlp mixture.bu") == ["mixture.budget="]
    assert completions("guardtrain no_such h") == []
    assert completions("guardtrain predict guard=outputs/") == []  # the shell's file names


def test_heads_sources_and_values() -> None:
    """What composed configs have not: the settings of the class that an option names, and what a setting may be."""
    assert completions("guardtrain train head=mlp head.") == [
        "head.hidden=", "head.dropout=", "head.name=", "head._target_="
    ]  # fmt: skip
    assert {"data.real.path=", "data.real.columns="} < set(completions("guardtrain curve data=manifest data.real."))
    assert completions("guardtrain export whole=") == ["whole=true", "whole=false"]
    assert completions("guardtrain train mixture.arm=") == ["mixture.arm=replace"]
    assert completions("guardtrain train out=") == []  # the shell's file names
    assert "grid.seeds=" in completions("guardtrain curve experiment=masks grid.")


def test_own_configs_are_offered_too(tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "wide.yaml").write_text("defaults: [mlp, _self_]\nhidden: [512]\n")
    line = f"guardtrain train --config-dir {tmp_path} head="
    assert "head=wide" in completions(line)
    assert "head.hidden=" in completions(f"{line}wide head.")
    assert "head=wide" not in completions("guardtrain train head=")


def leaves(node: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_settings_are_those_of_the_composed_config(command: str) -> None:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = OmegaConf.to_container(compose(command), resolve=False)
    assert isinstance(composed, dict)
    found = settings_tree(command, {})
    wanted, offered = set(leaves(composed)), set(leaves(found))
    assert wanted <= offered
    built = {name.rpartition(".")[0] for name in wanted if name.endswith("_target_")}
    assert {name for name in offered - wanted if name.rpartition(".")[0] not in built} == set()


@pytest.mark.parametrize("option", [path.stem for path in sorted((conf_dir() / "head").glob("*.yaml"))])
def test_heads_have_the_fields_of_their_classes(option: str) -> None:
    node = settings_tree("curve", {"head": option})["head"]
    for one in [node] if "_target_" in node else node.values():  # a curve may have several
        target = get_object(one["_target_"])
        wanted = {field.name for field in dataclasses.fields(target) if not field.name.startswith("_")}
        assert set(one) == wanted | {"_target_"}


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
