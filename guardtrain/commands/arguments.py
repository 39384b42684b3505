"""What a command's user writes by its place (paths, a kind), as Hydra's overrides."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.@/:]*=|~[A-Za-z_]")
# Hydra's own flags that take the next argument.
_FLAGS = ("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
          "--experimental-rerun")  # fmt: skip


def placed_apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings and flags, and the arguments that are neither.

    >>> placed_apart(["guard=g", "a.jpg", "--cfg", "job"])
    (['guard=g', '--cfg', 'job'], ['a.jpg'])
    """
    settings: list[str] = []
    placed: list[str] = []
    for argument in arguments:
        value_of_flag = bool(settings) and settings[-1] in _FLAGS
        setting = argument.startswith("-") or _OVERRIDE.match(argument) is not None
        (settings if setting or value_of_flag or not argument else placed).append(argument)
    return settings, placed


def quoted(text: str) -> str:
    """A value in Hydra's grammar that is this text, whatever it holds."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # no interpolation
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)  # backslashes count double before a quote only
    ending = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{ending * chr(92)}'"
