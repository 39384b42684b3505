"""A composed config made into checked objects: every wrong key, type or target is named, with what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from typing import Any, TypeVar

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from guardtrain.errors import ConfigError

C = TypeVar("C")


def typed(config: DictConfig, schema: type[C]) -> C:
    """`config` as an instance of `schema`, checked.

    Raises:
        ConfigError: an unknown key, a wrong type, or a setting that must be given, by its full name.
    """
    try:
        # as plain data: a key added with `+` lies in a typed node unchecked
        plainly = OmegaConf.to_container(config, resolve=False)
        merged = OmegaConf.merge(OmegaConf.structured(schema), plainly)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise ConfigError(f"These settings have no value yet: {', '.join(missing)}. Give each as NAME=VALUE.")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error


def build(node: Any, place: str) -> Any:
    """The object that `{_target_: dotted.path, **arguments}` names.

    A dataclass target is checked as strictly as the rest of the config; any other callable (a user's own head,
    loss or source) is called with the arguments.

    Args:
        node: the mapping.
        place: its full name in the config, for errors.

    Raises:
        ConfigError: no such target, an unknown or missing argument, or a wrong type.
    """
    if not isinstance(node, dict | DictConfig) or "_target_" not in node:
        raise ConfigError(f"{place} must be a mapping with a _target_, the dotted name of what it is; got {node!r}.")
    name = str(node["_target_"])
    try:
        target = hydra.utils.get_object(name)
    except Exception as error:
        raise ConfigError(f"{place}._target_ names '{name}', which cannot be imported: {error}") from error
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    if dataclasses.is_dataclass(target):
        try:
            merged = OmegaConf.merge(OmegaConf.structured(target), arguments)
            missing = sorted(OmegaConf.missing_keys(merged))
            if missing:
                raise ConfigError(f"{place} needs a value for {', '.join(missing)}. Give it as {place}.{missing[0]}=…")
            return OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            raise ConfigError(explain(error, place)) from error
    allowed = inspect.signature(target).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in allowed.values()):
        for key in arguments:
            if key not in allowed:
                raise ConfigError(_unknown(f"{place}.{key!s}", str(key), list(allowed)))
    return hydra.utils.instantiate({"_target_": name, **arguments})


def explain(error: Exception, place: str = "") -> str:
    """An OmegaConf error in one or two lines: the setting's full name, what is wrong, what is allowed."""
    key = ".".join(part for part in (place, str(getattr(error, "full_key", "") or "")) if part)
    first = str(error).splitlines()[0]
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        parent = getattr(error, "parent_node", None)
        allowed = [str(k) for k in parent] if isinstance(parent, DictConfig) else []
        object_type = getattr(error, "object_type", None)
        if not allowed and dataclasses.is_dataclass(object_type):
            allowed = [f.name for f in dataclasses.fields(object_type)]
        target = parent.get("_target_") if isinstance(parent, DictConfig) else None
        return _unknown(
            key, key.rsplit(".", 1)[-1], [*_fields(target), *allowed] if target else allowed, plus=bool(target)
        )
    if isinstance(error, InterpolationResolutionError | MissingMandatoryValue):
        return f"{key}: {first}"
    if isinstance(error, ValidationError):
        if "is not a ListConfig" in first:
            return f"{key} must be a list, such as {key}=[...]."
        return f"{key}: {first.rstrip('.')}."
    return f"{key}: {first}" if key else first


def _fields(target: Any) -> list[str]:
    """The settings of a `_target_`, where it is a dataclass."""
    try:
        found = hydra.utils.get_object(str(target))
    except Exception:
        return []
    return [field.name for field in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []


def _unknown(full: str, name: str, allowed: list[str], plus: bool = False) -> str:
    """What to say of a setting that is not there; `plus` where one the files do not mention needs a + to be added."""
    allowed = list(dict.fromkeys(allowed))
    if plus and name in allowed:
        return f"The config does not mention '{full}' yet; add it with a plus: +{full}=VALUE."
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"There is no setting '{full}'.{hint}" + (f" Allowed here: {', '.join(allowed)}." if allowed else "")


def plain(config: Any) -> Any:
    """A settings dataclass (or a config node) as plain dicts and lists, for JSON and for keys."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, DictConfig | ListConfig):
        return OmegaConf.to_container(config, resolve=True)
    if isinstance(config, dict):
        return {str(k): plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [plain(v) for v in config]
    return config
