"""What a command's user writes by its place (paths, a kind), as Hydra's overrides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from guardtrain.grammar import WORD_KEYS, key_text, quoted

_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.@/:]*=|~[A-Za-z_]")
_QUOTED = re.compile(r"""(?<=[{,])(\s*)(?:'([^'\\]*)'|"([^"\\]*)")(?=\s*:)""")  # a key in quotes
_WORD = re.compile(rf"(?<=[{{,])(\s*)({'|'.join(WORD_KEYS.values())})(?=\s*:)", re.IGNORECASE)
_SWITCH_AND_NUMBER = (re.compile(r"[{,]\s*(true|false)\s*:", re.IGNORECASE), re.compile(r"[{,]\s*\+?[01](\.0*)?\s*:"))
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


def with_plain_keys(overrides: Sequence[str]) -> list[str]:
    """Overrides whose mappings have keys that Hydra cannot read, written as it can: null, and keys in quotes.

    >>> with_plain_keys(["source.labels={'0.0': 0, null: 1}", "out=null:x"])
    ['source.labels={0.0: 0, \\\\(null\\\\): 1}', 'out=null:x']
    """
    return [
        f"{name}{equals}{_with_plain_keys(value)}" if value[:1] in ("{", "[") else text
        for text in overrides
        for name, equals, value in [text.partition("=")]
    ]


def _with_plain_keys(value: str) -> str:
    value = _QUOTED.sub(_without_quotes, value)
    both = all(kind.search(value) for kind in _SWITCH_AND_NUMBER)  # else true stays what it is

    def written(match: re.Match[str]) -> str:
        word = match[2].lower()
        return rf"{match[1]}\({word}\)" if both or word == "null" else match[0]

    return _WORD.sub(written, value)


def _without_quotes(match: re.Match[str]) -> str:
    plain = key_text(match[2] if match[2] is not None else match[3])
    return match[0] if plain is None else f"{match[1]}{plain}"


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
