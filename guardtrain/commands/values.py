"""Values as people write them: one for a list of one, and a fraction for the number that it is."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from guardtrain.config_groups import config_groups
from guardtrain.grammar import quoted
from guardtrain.schemas import schema_of

_FRACTION = re.compile(r"(?<![\w./])(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)(?![\w./])")
_WHOLE = ("[", "{", "$", "null", "None")  # a value that begins so is a list already, or none
_NO_OPTION = re.compile(r"[+-]?[\d.]+|true|false|\[[\d\s,.+-]*\]", re.IGNORECASE)  # of a group: Hydra fails at such
_CALL = re.compile(r"[a-z_]+\(")  # of Hydra's grammar: range(…), choice(…)


def as_typed(command: str, overrides: Sequence[str], *, sweep: bool = False) -> list[str]:
    """Overrides of settings that are lists or numbers, written as Hydra reads such; options of groups are names.

    Args:
        command: which.
        overrides: the command line's.
        sweep: whether values between commas are those of different jobs.

    >>> as_typed("attack", ["attacks=fgsm", "epsilon=8/255", "resize=[1/2,1/4]", "out=a/b"])
    ['attacks=[fgsm]', 'epsilon=0.03137254901960784', 'resize=[0.5,0.25]', 'out=a/b']
    >>> as_typed("attack", ["attacks=fgsm,pgd"], sweep=True)
    ['attacks=[fgsm],[pgd]']
    >>> as_typed("curve", ["grid=3"])
    ["grid='3'"]
    """
    out = []
    groups = config_groups(command)
    for text in overrides:
        name, equals, value = text.partition("=")
        kind = _kind(schema_of(command), name.lstrip("+")) if equals and value else None
        if kind in (float, list[float]):
            value = _FRACTION.sub(_number, value)
        if get_origin(kind) is list and not value.startswith(_WHOLE) and not _CALL.match(value):
            value = _listed(value, sweep)
        if name in groups and _NO_OPTION.fullmatch(value):
            value = quoted(value)
        out.append(f"{name}{equals}{value}")
    return out


def _listed(value: str, sweep: bool) -> str:
    """A value as a list of one; left as it is where a comma in it means something else."""
    if "," not in value:
        return f"[{value}]"
    if sweep and not set(value) & set("'\"\\"):
        return ",".join(f"[{one.strip()}]" for one in value.split(","))
    return value


def _number(match: re.Match[str]) -> str:
    over, under = float(match[1]), float(match[2])
    return repr(over / under) if under else match[0]


def _kind(schema: Any, name: str) -> Any:
    """The type of a setting, as its schema declares it; None where it declares none."""
    kind: Any = schema
    for part in name.split("."):
        if not dataclasses.is_dataclass(kind):
            return None
        kind = get_type_hints(kind).get(part)
        if get_origin(kind) in (Union, types.UnionType):
            kind = next((one for one in get_args(kind) if one is not type(None)), None)
    return kind
