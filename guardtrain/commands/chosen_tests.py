"""`data.test=NAME`: that test set alone, where Hydra could only take away the others one by one."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from guardtrain.commands.config_path import hydra_opened
from guardtrain.errors import ConfigError, did_you_mean

_SETTING = "data.test"
_DECIDING = ("data", "experiment")  # groups and settings that say which test sets there are


def keep_test_sets(command: str, overrides: Sequence[str]) -> list[str]:
    """Overrides in which `data.test=NAME`, or a list of names, is the removal of the other test sets.

    Raises:
        ConfigError: the data have no test set of this name.
    """
    asked = [text for text in overrides if text.partition("=")[0] == _SETTING and text.partition("=")[2][:1] != "{"]
    parsed = [OverridesParser.create().parse_override(text) for text in asked]
    names = [one.value() for one in parsed if not one.is_sweep_override()]
    if not names or names[-1] is None:
        return list(overrides)
    wanted = [str(name) for name in (names[-1] if isinstance(names[-1], list) else [names[-1]])]
    others = [text for text in overrides if text not in asked]
    about = [text for text in others if text.lstrip("+~").partition("=")[0].split(".")[0] in _DECIDING]
    with hydra_opened():
        found = OmegaConf.select(compose(command, about), _SETTING)
    there = [str(name) for name in found] if isinstance(found, DictConfig) else []
    for name in wanted:
        if name not in there:
            hint = did_you_mean(name, there)
            raise ConfigError(f"{_SETTING}: there is no test set '{name}'.{hint} There are: {', '.join(there)}.")
    return [*others, *(f"~{_SETTING}.{name}" for name in there if name not in wanted)]
