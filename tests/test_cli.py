from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys

import pytest

from guardtrain import __version__
from guardtrain.benchmarks.import_card import _TEXT
from guardtrain.cli import main
from guardtrain.commands.examples import COMMON
from guardtrain.commands.registry import COMMANDS
from guardtrain.config import SCHEMAS
from tests.conftest import ROOT


def test_help_lists_every_command_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert set(COMMANDS) == set(SCHEMAS)
    for command, summary in COMMANDS.items():
        assert f"  {command:<5}" in text
        assert summary in text


def test_the_guard_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, guardtrain, guardtrain.guards; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "guardtrain.guards.guard"} & set(loaded)
    from guardtrain import Guard, guards

    assert Guard is guards.Guard is importlib.import_module("guardtrain.guards.guard").Guard
    with pytest.raises(AttributeError, match="no attribute 'guard_of'"):
        guards.guard_of  # noqa: B018


def test_settings_are_read_without_what_trains_and_draws() -> None:
    code = "import sys, guardtrain.config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"lightning", "matplotlib", "pandas", "scipy", "sklearn", "torch"} & set(loaded)


def test_one_import_is_all_that_is_shown() -> None:
    """README, pages, card and notebooks need `import guardtrain as gt` alone, and what they take from it is there."""
    import guardtrain as gt

    names = set(gt.__all__)
    assert names <= set(dir(gt)) and all(getattr(gt, name).__name__ == name for name in names)
    shown = [path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs" / "pages").glob("*.md"))]
    shown += [(ROOT / "guardtrain/guards/card.md.jinja").read_text(), _TEXT]
    notebooks = [json.loads(path.read_text()) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    shown += ["".join(cell["source"]) for notebook in notebooks for cell in notebook["cells"]]
    assert len(shown) > 20
    used = {name for text in shown for name in re.findall(r"\bgt\.(\w+)", text)}
    assert "Guard" in used and used <= names
    for text in shown:
        assert not re.search(r"^\s*(from guardtrain|import guardtrain(?! as gt$))", text, flags=re.M), text


def test_help_and_version_import_nothing_heavy() -> None:
    code = "import sys; from guardtrain.cli import main; main(['--help']); main(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "numpy", "hydra", "omegaconf", "pyarrow", "pandas", "rich", "argparse", "difflib"}
    assert f"guardtrain {__version__}" in done.stdout


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_of_a_command_begins_with_examples_and_has_more_to_tell(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert main(["help", command, "--help-all"]) == 0
    whole = capsys.readouterr().out
    examples = f"\n\nexamples:\n  guardtrain {command}"
    for each in (text, whole):
        assert COMMANDS[command] in each
        assert each.index(examples) < 250
        assert max(map(len, each.splitlines())) <= 120
    assert len(text.splitlines()) <= 60
    told = [
        re.findall(r"^  ([\w.]+)(?: {2}|$)", each.partition("SETTING=VALUE")[2], flags=re.M) for each in (text, whole)
    ]
    assert set(told[0]) <= set(told[1])
    for name in COMMON.get(command, []):
        assert name in told[0]
    if command == "curve":
        for part in ("*scenes", "*demo", ", mlp", "grid.budgets", "loss.l2"):
            assert part in text
        for part in ("* scenes", "* demo", "  mlp", "grid.budgets", "loss.l2", "optimizer.steps", "[300]", "cache_dir"):
            assert part in whole
        assert "an intercept of their own (offset), for MLPs" in " ".join(whole.split()), "a sentence to its end"


@pytest.mark.parametrize("arguments", [["train", "--help-all"], ["curve", "--cfg", "job"], ["completion", "bash"]])
def test_whoever_has_seen_enough_of_the_output_may_go(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "guardtrain", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curv"], "there is no command 'curv'. Did you mean 'curve'?"),
        (["ingest"], "It left; scores of others take part in `guardtrain benchmark 'guards=[GUARD,{scores: FILE}]'`."),
        (["doctr"], "there is no command 'doctr'. Did you mean 'doctor'?"),
        (["compltion"], "Did you mean 'completion'? Commands: curve, train, "),
        (["curve", "grid.seeds=abc"], "grid.seeds: Value 'abc' of type 'str' could not be converted to Integer."),
        (["curve", "grid.budgetz=[1]"], "no setting 'grid.budgetz'. Did you mean 'budgets'?"),
        (["curve", "head=liner"], "no 'liner' among the options of head. Did you mean 'linear'? There are: clap, gda,"),
        (["train", "budget=64"], "no setting 'budget'. Did you mean 'mixture.budget'? Allowed here: data, "),
        (["curve", "budget=64"], "Did you mean 'plot.point.budget' or 'grid.budgets'? Allowed"),
        (["train", "-m", "budget=64,128"], "no setting 'budget'. Did you mean 'mixture.budget'?"),
        (["train", "out=outputs/my run=1, ünï"], "in quotes of its own: 'out=\"outputs/my run=1, ünï\"'"),
        (["curve", "grid.budgets=[10]", "grid.ratios=[0.25]"], "Budget 10 at ratio 0.25 asks for 2.5 pair images"),
        (["curve", "grid.budgets=[1"], "grid.budgets"),
        (["curve", "data.real.sise=32"], "no setting 'data.real.sise'. Did you mean 'size'?"),
        (["curve", "data.real.context_correlation=2", "data.real.size=32"], "context_correlation"),
        (["curve", "experiment=masks", "data_dir=nowhere"], "give data_dir=PATH or set GUARDTRAIN_DATA"),
        (["curve", "encoder=precomputed"], "data.real is a source of images"),
        (["curve", "~data.test.in_domain", "~data.test.counterfactual"], "data.test is empty"),
        (["curve", "+data.test.x={hold_out: nowhere, groups: 3}"], "there is: real, pairs"),
        (["curve", "+data.test.x={hold_out: real}"], "needs exactly one of groups, fraction, split and categories"),
        (["curve", "=3"], "cannot read '=3'"),
        (["curve", "+data.test.x=3"], "data.test.x must be a mapping with a _target_"),
        (
            ["curve", "+data.test.x={hold_out: real, groups: abc}"],
            "data.test.x.groups is 'abc'; it must be of type int",
        ),
        (["curve", "plot.x=foo"], "plot.x is 'foo'; allowed: auto, budget"),
        (["train", "mixture.ratio=2"], "The ratio is 2"),
        (
            ["train", "experiment=masks"],
            "guardtrain train data=masks encoder=precomputed loss.class_weight=none mixture.budget=400 "
            "mixture.ratio=0.2 mixture.arm=add",
        ),
        (["audit", "+experiment=fire"], "Here give its data: data=fire encoder=mobilenetv2"),
        (["plot", "results=nowhere"], "There are no results at"),
        (["plot"], "no value yet: results"),
        (["embed", "source=image_folder", "source.root=nowhere", "out=store"], "nowhere"),
        (["scenes", "pool=none"], "Unknown scene pool 'none'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gives_a_message_and_no_traceback(
    arguments: list[str], message: str, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUARDTRAIN_DATA", raising=False)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert captured.err.startswith("guardtrain")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert main(["curve", f"out={tmp_path}/file/out"]) == 2
    captured = capsys.readouterr()
    assert f"{tmp_path}/file" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("value", ["", "elsewhere"])
def test_an_empty_variable_is_as_one_that_is_not_set(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GUARDTRAIN_CACHE", value)
    monkeypatch.setenv("GUARDTRAIN_DATA", value)
    assert main(["curve", "--cfg", "job", "--resolve"]) == 0
    text = capsys.readouterr().out
    assert f"cache_dir: {value or '~/.cache/guardtrain'}\n" in text
    assert f"data_dir: {value or 'data'}\n" in text
