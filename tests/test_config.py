"""Every YAML file under conf/ composes and validates, and every wrong setting is named."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from guardtrain.cli import main
from guardtrain.config import SCHEMAS, conf_dir, register_schemas
from guardtrain.config_checks import build, typed
from guardtrain.errors import ConfigError

pytestmark = pytest.mark.long
CONF = conf_dir()
COMMANDS = sorted(SCHEMAS)
OPTIONS = [
    (path.parent.relative_to(CONF).as_posix(), path.stem)
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name != "local"
]
register_schemas()


def _compose(command: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def _groups(command: str) -> set[str]:
    defaults = yaml.safe_load((CONF / f"{command}.yaml").read_text())["defaults"]
    return {group for entry in defaults if isinstance(entry, dict) for group in entry}


GROUPS = {command: _groups(command) for command in COMMANDS}


def _commands_with(group: str) -> list[str]:
    return [command for command in COMMANDS if group in GROUPS[command]]


def _commands_for(group: str, option: str) -> list[str]:
    """The commands with `group`; of an experiment, those that have all the groups and settings it changes."""
    found = _commands_with(group)
    if group != "experiment":
        return found
    changed = yaml.safe_load((CONF / group / f"{option}.yaml").read_text())
    groups = {key.removeprefix("override /") for entry in changed.pop("defaults", []) for key in entry}
    return [
        command
        for command in found
        if all(command in _commands_with(each) for each in groups)
        and set(changed) <= {field.name for field in dataclasses.fields(SCHEMAS[command])}
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command: str) -> None:
    missing = sorted(OmegaConf.missing_keys(_compose(command)))  # what the user must give
    config = _compose(command, *[f"{name}=somewhere" for name in missing])
    assert isinstance(typed(config, SCHEMAS[command]), SCHEMAS[command])


def _choices() -> list[tuple[str, list[str]]]:
    """Commands and options for them, such that each command has each of its options once.

    One of every group at a time, for composing takes a fifth of a second; an experiment alone, as it chooses, too.
    """
    of: dict[str, dict[str, list[str]]] = {command: {} for command in COMMANDS}
    alone = []
    for group, option in OPTIONS:
        for command in _commands_for(group, option):
            if group == "experiment":
                alone.append((command, [f"{group}={option}"]))
            else:
                of[command].setdefault(group, []).append(f"{group}={option}")
    together = [
        (command, [option for option in options if option])
        for command, groups in of.items()
        for options in itertools.zip_longest(*groups.values())
    ]
    return together + alone


CHOICES = _choices()


def test_every_option_is_of_a_command() -> None:
    chosen = {option for _, options in CHOICES for option in options}
    assert chosen == {f"{group}={option}" for group, option in OPTIONS}


@pytest.mark.parametrize(
    ("command", "options"), CHOICES, ids=[" ".join([command, *options]) for command, options in CHOICES]
)
def test_every_option_composes_and_validates(command: str, options: list[str]) -> None:
    config = _compose(command, *options, *(["results=x"] if command == "plot" else []))
    for name in OmegaConf.missing_keys(config):  # what the user must give: paths of their own data
        OmegaConf.update(config, name, "somewhere")
    settings = typed(config, SCHEMAS[command])
    for place in ("head", "source"):
        if (node := getattr(settings, place, None)) is not None:
            for one in [node] if "_target_" in node else node.values():  # a curve may have several heads
                build(one, place)
    if hasattr(settings, "data"):
        sources = {"real": settings.data.real, "pairs": settings.data.pairs, **settings.data.test}
        for name, node in sources.items():
            if node is not None and "hold_out" not in node:
                build(node, f"data.{name}")


@pytest.mark.parametrize("path", sorted(CONF.glob("*/*.yaml")), ids=lambda p: p.stem)
def test_every_option_says_what_it_is(path: Path) -> None:
    first = next(line for line in path.read_text().splitlines() if "@package" not in line)
    assert first.startswith("# "), "its first comment is its line in --help"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+grid.budgetz=[16]", "There is no setting 'grid.budgetz'. Did you mean 'budgets'? Allowed here: budgets, "),
        ("+colour=red", "There is no setting 'colour'. Allowed here: data, encoder, head"),
        ("loss.class_weight=heavy", "loss.class_weight is 'heavy'; allowed: none, balanced"),
        ("optimizer.lr=0", "optimizer.lr must be > 0"),
        ("selection.folds=1", "selection.folds must be >= 2"),
        ("logger.mode=maybe", "logger.mode is 'maybe'; allowed: auto, offline, online, disabled"),
        ("data=manifest", "no value yet: data.pairs.path, data.real.path"),
    ],
)
def test_wrong_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        typed(_compose("curve", override), SCHEMAS["curve"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"hidden": [3]}, "must be a mapping with a _target_"),
        ({"_target_": "guardtrain.heads.Nothing"}, "cannot be imported"),
        ({"_target_": "guardtrain.heads.MLPHead", "hiden": [3]}, "no setting 'head.hiden'. Did you mean 'hidden'?"),
        ({"_target_": "guardtrain.heads.MLPHead", "hidden": "x"}, "head.hidden[0]: Value 'x'"),
        (
            {"_target_": "fractions.Fraction", "numerator": 3},
            "which has no name and no convex and no bank. A head needs",
        ),
        ({"_target_": "guardtrain.heads.MLPHead", "dropout": "x"}, "head.dropout"),
        ({"_target_": "guardtrain.heads.MLPHead", "hidden": []}, "one or more hidden layers"),
        ({"_target_": "fractions.Fraction", "denominater": 3}, "Did you mean 'denominator'?"),
        ({"_target_": "guardtrain.heads.MLPHead", "hidden": {"a": 1}}, "head.hidden must be a list, such as head.hid"),
        (
            {"_target_": "guardtrain.sources.ManifestSource", "path": "a.csv", "columns": ["label"]},
            "head.columns must be a mapping, such as head.columns={NAME: VALUE}",
        ),
    ],
)
def test_wrong_components_are_named(node: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(node, "head")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.budgets={a: 1}", "grid.budgets must be a list, such as grid.budgets=[A, B]."),
        ("head.hidden={a: 1}", "head.hidden must be a list, such as head.hidden=[A, B]."),
        ("data={real: [1]}", "data has a list where a mapping goes, or the other way round"),
        ("grid=3", "there is no '3' among the options of grid."),
        ("grid=[1, 2]", "there is no '[1, 2]' among the options of grid."),
        ("data=true", "there is no 'true' among the options of data."),
    ],
)
def test_what_is_no_list_no_mapping_and_no_option_is_named(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["curve", "head=mlp", override]) == 2
    assert message in capsys.readouterr().err


def test_a_users_own_target_is_called() -> None:
    assert build({"_target_": "fractions.Fraction", "numerator": 3, "denominator": 6}, "loss").denominator == 2


def test_one_value_stands_for_a_list_and_a_fraction_for_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert build({"_target_": "guardtrain.heads.MLPHead", "hidden": 3}, "head").hidden == [3]
    given = ["attacks=fgsm", "epsilon=8/255", "resize=[1/2,1/4]", "+tests=held"]
    assert main(["attack", "guards=a/b", *given, "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["attacks"], shown["resize"], shown["tests"]) == (["fgsm"], [0.5, 0.25], ["held"])
    assert shown["guards"] == "a/b", "no fraction"
    assert shown["epsilon"] == pytest.approx(8 / 255)
