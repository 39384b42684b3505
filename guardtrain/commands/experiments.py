"""Which named experiments a command can run, and what to say of one that it cannot: which settings stand for it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from guardtrain.commands.config_path import own_configs
from guardtrain.config_groups import conf_dir

_GROUP = "experiment"
_DATA = ("data", "encoder")
_ONE_RUN = "train"


def experiments_of(command: str) -> list[str]:
    """The named experiments that `command` can run: those whose groups and settings it has.

    >>> experiments_of("finetune")
    ['perspectivevision_lora']
    """
    primary = conf_dir() / f"{command}.yaml"
    config = _parsed(primary)
    groups = _groups(primary)
    if _GROUP not in groups:
        return []
    found = []
    for path in sorted((conf_dir() / _GROUP).glob("*.yaml")):
        chosen, settings = _read(path.stem)
        if set(chosen) <= groups and set(settings) <= groups | set(config):
            found.append(path.stem)
    return found


def misplaced_experiment(command: str, overrides: Sequence[str]) -> str:
    """Why `experiment=NAME` cannot be composed for `command`, and what can; empty where that is not what was given."""
    given = [one.partition("=")[2] for one in overrides if one.lstrip("+").partition("=")[0] == _GROUP]
    by_owner = {path.stem: found for path in sorted(conf_dir().glob("*.yaml")) if (found := experiments_of(path.stem))}
    own = own_configs()
    if not given or given[-1] in by_owner.get(command, []) or (own and (own / _GROUP / f"{given[-1]}.yaml").is_file()):
        return ""
    owners = [owner for owner, names in by_owner.items() if given[-1] in names]
    if not owners:
        listed = "; ".join(f"`guardtrain {owner}`: {', '.join(names)}" for owner, names in by_owner.items())
        return f"there is no experiment '{given[-1]}'. There are, for {listed}."
    text = f"experiment={given[-1]} is one of {' and '.join(f'`guardtrain {owner}`' for owner in owners)}."
    if command in by_owner:
        return f"{text} Those of `guardtrain {command}`: {', '.join(by_owner[command])}."
    groups, settings = _read(given[-1])
    grid = groups.get("grid")
    if command != _ONE_RUN or grid is None:
        return f"{text} Here give its data: {' '.join(f'{name}={groups[name]}' for name in _DATA if name in groups)}"
    words = [f"{name}={value}" for name, value in groups.items() if name != "grid"] + [
        *_flat(settings),
        *_mixture(grid, settings),
    ]
    return f"{text} This one is a grid of runs; one of them is: guardtrain {command} {' '.join(words)}"


@functools.cache
def _groups(path: Path) -> set[str]:
    """The config groups of a command's config."""
    return {key for one in _parsed(path).get("defaults", []) if isinstance(one, dict) for key in one}


@functools.cache
def _read(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The groups that an experiment chooses, and its own settings."""
    config = _parsed(conf_dir() / _GROUP / f"{name}.yaml")
    chosen = {key: value for one in config.pop("defaults", []) for key, value in one.items()}
    return {key.removeprefix("override ").strip().lstrip("/"): str(value) for key, value in chosen.items()}, config


def _mixture(name: str, settings: dict[str, Any]) -> list[str]:
    """The middle budget and the largest ratio of a grid that an experiment may have changed, and its arm."""
    from omegaconf import OmegaConf

    whole = OmegaConf.merge(OmegaConf.load(conf_dir() / "grid" / f"{name}.yaml"), settings.get("grid", {}))
    grid: Any = OmegaConf.to_container(whole)
    ratio = max(grid["ratios"])
    arm = [f"mixture.arm={grid['arms'][0]}"] if ratio else []
    return [f"mixture.budget={grid['budgets'][len(grid['budgets']) // 2]}", f"mixture.ratio={ratio:g}", *arm]


def _flat(settings: dict[str, Any], place: str = "") -> Iterator[str]:
    """Nested settings as overrides, but for the grid's."""
    for key, value in settings.items():
        if place + key == "grid":
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}={value}"


def _parsed(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
