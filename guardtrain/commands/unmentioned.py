"""Settings that a config's files do not mention: Hydra takes them with a plus, and here they need none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from guardtrain.config import SCHEMAS
from guardtrain.config_checks import settable
from guardtrain.config_groups import config_groups


def accepted(command: str, overrides: Sequence[str], error: Exception) -> list[str] | None:
    """Overrides in which the one that Hydra refused is written so that it is taken.

    Args:
        command: which.
        overrides: as they are.
        error: Hydra's, or OmegaConf's behind it.

    Returns:
        The overrides; None where what is wrong is something else, or the command has no such setting.
    """
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if not isinstance(cause, (ConfigAttributeError, ConfigKeyError)) or cause.parent_node is None:
        return None
    config: Any = cause.parent_node._get_root()
    missing = str(cause.full_key)
    for place, text in enumerate(overrides):
        name = text.partition("=")[0]
        sets = f"{missing}.".startswith(f"{name}.") or name.startswith(f"{missing}.")
        if sets and name not in config_groups(command):
            one = OverridesParser.create().parse_override(text)
            if (written := added(command, one, config, missing)) is None:
                return None
            return [*overrides[:place], *written, *overrides[place + 1 :]]
    return None


def added(command: str, one: Override, config: DictConfig, missing: str) -> list[str] | None:
    """An override written so that Hydra adds what it sets; None where the command has no such setting.

    Args:
        command: which.
        one: the override.
        config: that it is for.
        missing: the full name of what the config lacks.
    """
    if replaces(one, config):
        known = settable(SCHEMAS[command], config, one.key_or_group)
        return [f"{one.key_or_group}=null", f"++{one.input_line}"] if known else None
    return [f"++{one.input_line}"] if settable(SCHEMAS[command], config, missing) else None


def replaces(one: Override, config: DictConfig) -> bool:
    """Whether a mapping takes the place of what is there, where Hydra would put the one into the other.

    It does where it says what it is (a `_target_`, a test set to hold out), and has settings that are not there.
    """
    with open_dict(config):  # else what is not there is an error
        value, there = one.value(), OmegaConf.select(config, one.key_or_group, throw_on_missing=False)
    if not isinstance(value, Mapping) or not isinstance(there, DictConfig) or not there:
        return False
    return "hold_out" in value or "_target_" in value
