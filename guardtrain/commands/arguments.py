"""What a command's user writes by its place (paths, a kind), as Hydra's overrides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from guardtrain.grammar import NULL_KEY, quoted

_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.@/:]*=|~[A-Za-z_]")
_NULL = re.compile(r"(?<=[{,])(\s*)null(?=\s*:)", re.IGNORECASE)
_EMPTY = r"\1" + re.sub(r"([()])", r"\\\\\1", NULL_KEY)  # the brackets escaped, for Hydra and for `re`
_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)
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


def with_null_keys(overrides: Sequence[str]) -> list[str]:
    """Overrides whose mappings have the key null, such as `labels={null: 0}`, written so that configs can hold it.

    >>> with_null_keys(["source.labels={safe: 0, null: 1}", "out=null:x"])
    ['source.labels={safe: 0, \\\\(null\\\\): 1}', 'out=null:x']
    """
    return [
        f"{name}{equals}{_NULL.sub(_EMPTY, value)}" if value[:1] in ("{", "[") and "null" in value else text
        for text in overrides
        for name, equals, value in [text.partition("=")]
    ]


def paths_as_they_are(overrides: Sequence[str]) -> list[str]:
    """Overrides whose value is a path that is there, quoted where Hydra would read something else in it.

    The folders of a sweep are named for their overrides (`mixture.budget=64,mixture.seed=0`), and TAB completes them.
    """
    out = []
    for override in overrides:
        name, _, value = override.partition("=")
        plain = not value or value[0] in "'\"[{" or _PLAIN.fullmatch(value)
        out.append(override if plain or not _is_there(value) else f"{name}={quoted(value)}")
    return out


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long for a path
        return False
