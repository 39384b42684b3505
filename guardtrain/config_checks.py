"""A composed config made into checked objects: every wrong key, type or target is named, with what is allowed."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    InterpolationResolutionError,
    KeyValidationError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from guardtrain.errors import ConfigError, did_you_mean
from guardtrain.own_code import import_target
from guardtrain.sources.settings import HOLD_OUT

C = TypeVar("C")

_HEAD = ("name", "convex", "bank")  # see guardtrain.training.recipe.HeadDefinition
_LIST, _MAPPING = "{0} must be a list, such as {0}=[A, B].", "{0} must be a mapping, such as {0}={{NAME: VALUE}}."
_SOURCE = ("records", "content_key")  # see guardtrain.sources.base.Source


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
            raise ConfigError(without_value(missing))
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error


def without_value(names: Sequence[str]) -> str:
    """Return an error's text for settings that must be given and are not."""
    hint = " Without pairs say data.pairs=null." if any(name.startswith("data.pairs.") for name in names) else ""
    return f"These settings have no value yet: {', '.join(names)}. Give each as NAME=VALUE.{hint}"


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
        target = import_target(name)
    except ImportError as error:
        raise ConfigError(f"{place}._target_ names '{name}', which cannot be imported: {error}") from error
    arguments = {str(key): value for key, value in node.items() if key != "_target_"}
    if dataclasses.is_dataclass(target):
        try:
            merged = OmegaConf.merge(OmegaConf.structured(target), _with_mappings(target, arguments, place))
            missing = sorted(OmegaConf.missing_keys(merged))
            if missing:
                raise ConfigError(f"{place} needs a value for {', '.join(missing)}. Give it as {place}.{missing[0]}=…")
            return _complete(OmegaConf.to_object(merged), name, place)
        except OmegaConfBaseException as error:
            raise ConfigError(explain(error, place)) from error
    allowed = inspect.signature(target).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in allowed.values()):
        for key in arguments:
            if key not in allowed:
                raise ConfigError(_unknown(f"{place}.{key}", key, list(allowed)))
    return _complete(hydra.utils.instantiate({"_target_": name, **arguments}), name, place)


def _complete(made: Any, name: str, place: str) -> Any:
    """Return what was built if it has all that its place in the config needs: a user's own may lack some."""
    needed = _HEAD if place == "head" else _SOURCE if place.startswith(("source", "data.")) else ()
    if lacking := [part for part in needed if not hasattr(made, part)]:
        raise ConfigError(
            f"{place}._target_ is {name}, which has no {' and no '.join(lacking)}. A {place.partition('.')[0]} needs "
            f"{', '.join(needed)}; the README shows one that is complete."
        )
    return made


def explain(error: Exception, place: str = "") -> str:
    """An OmegaConf error in one or two lines: the setting's full name, what is wrong, what is allowed."""
    key = ".".join(part for part in (place, str(getattr(error, "full_key", "") or "")) if part)
    first = str(error).splitlines()[0]
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        parent = getattr(error, "parent_node", None)
        allowed = [str(k) for k in parent if k != "hydra"] if isinstance(parent, DictConfig) else []
        object_type = getattr(error, "object_type", None)
        if not allowed and dataclasses.is_dataclass(object_type):
            allowed = [f.name for f in dataclasses.fields(object_type)]
        target = parent.get("_target_") if isinstance(parent, DictConfig) else None
        return _unknown(key, key.rsplit(".", 1)[-1], [*_fields(target), *allowed] if target else allowed)
    if isinstance(error, InterpolationResolutionError | MissingMandatoryValue):
        return f"{key}: {first}"
    if isinstance(error, KeyValidationError) and "NoneType" in first:
        return f"{key}: a key that is null is written with quotes in a file: 'null'."
    if isinstance(error, ConfigTypeError) and first.startswith("Cannot merge"):
        if isinstance(getattr(error, "parent_node", None), ListConfig):
            return _LIST.format(key)
        return (
            f"{key} has a list where a mapping goes, or the other way round: [A, B] is one, {{NAME: VALUE}} the other."
        )
    if isinstance(error, ValidationError):
        if "is not a ListConfig" in first:
            return _LIST.format(key)
        return f"{key}: {first.rstrip('.')}."
    return f"{key}: {first}" if key else first


def _fields(target: Any) -> list[str]:
    """The settings of a `_target_`, where it is a dataclass."""
    found = _object(target)
    return [field.name for field in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []


def settable(schema: type, config: Any, key: str) -> bool:
    """Whether a config may have a setting, whether or not its files mention it.

    Args:
        schema: the dataclass of the whole config.
        config: as it is, which says what each `_target_` in it is.
        key: the setting's full name.
    """
    kind: Any = schema
    node = config
    for name in key.split("."):
        if kind is Any and isinstance(node, DictConfig) and name != "_target_":
            if "_target_" in node:
                kind = _accepted(node["_target_"])
            elif "hold_out" in node:
                return name in HOLD_OUT
        if get_origin(kind) is dict or kind is Any:
            kind = get_args(kind)[1] if get_args(kind) else Any
            if not dataclasses.is_dataclass(kind) and kind is not Any:
                return True
        elif dataclasses.is_dataclass(kind):
            kind = _kinds(kind).get(name)
        elif isinstance(kind, Mapping):
            kind = kind.get(name, kind.get("**"))
        else:
            return False  # of a number, a text, or nothing
        if kind is None:
            return False
        node = node._get_node(name, validate_access=False) if isinstance(node, DictConfig) else None
    return True


def _accepted(target: Any) -> Any:
    """Return what a `_target_` takes: its class, if that is a dataclass, or parameters by name; `**` is any other."""
    found = _object(target)
    if dataclasses.is_dataclass(found) or not callable(found):
        return found if dataclasses.is_dataclass(found) else {}
    known = inspect.signature(found).parameters.values()
    return {("**" if one.kind is one.VAR_KEYWORD else one.name): Any for one in known}


def _kinds(schema: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; of one that may be null what it is otherwise."""
    try:
        hints = get_type_hints(schema)
    except NameError:  # of a user's own
        hints = dict.fromkeys((field.name for field in dataclasses.fields(schema)), Any)
    kinds = {}
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        if get_origin(kind) in (Union, types.UnionType):
            kind = next((one for one in get_args(kind) if one is not type(None)), Any)
        kinds[field.name] = kind
    return kinds


def _with_mappings(target: Any, arguments: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Arguments whose mappings have text for keys: YAML makes numbers, true and null of such, and so does Hydra.

    One value stands for a list of one. A mapping may also be given as the text of one, for names that the command line
    cannot hold otherwise.
    """
    made = dict(arguments)
    for name, kind in _kinds(target).items():
        value = made.get(name)
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            made[name] = _with_mappings(kind, value, f"{place}.{name}")
        if get_origin(kind) is list and isinstance(value, (str, int, float)):
            made[name] = [value]
        if get_origin(kind) is list and isinstance(value, Mapping):
            raise ConfigError(_LIST.format(f"{place}.{name}"))
        if (get_origin(kind) is dict or dataclasses.is_dataclass(kind)) and isinstance(value, (list, ListConfig)):
            raise ConfigError(_MAPPING.format(f"{place}.{name}"))
        if get_origin(kind) is not dict or value is None:
            continue
        if isinstance(value, str):
            value = _read_mapping(value, f"{place}.{name}")
        if isinstance(value, Mapping):
            from guardtrain.sources.cells import with_text_keys

            made[name] = with_text_keys(value)
    return made


def _read_mapping(text: str, place: str) -> Any:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{_MAPPING.format(place)} It is {text!r}.")
    return found


def _object(name: Any) -> Any:
    try:
        return import_target(str(name))
    except ImportError:
        return None


def _unknown(full: str, name: str, allowed: list[str]) -> str:
    """Return an error's text for a setting that is not there."""
    allowed = list(dict.fromkeys(allowed))
    hint = did_you_mean(name, allowed)
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
