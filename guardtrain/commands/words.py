"""What Hydra or OmegaConf object to in a command line, with the word that its user may have meant."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from guardtrain.commands.help import settings_of
from guardtrain.config_checks import explain
from guardtrain.errors import did_you_mean
from guardtrain.grammar import quoted

_NEAR = 0.8  # of names in other places of the config; at the same place less is enough
_SHOWN = 3
_BRACKETS = ("'", '"', "[", "{", "$")


def objection(command: str, error: Exception) -> str:
    """Say what was wrong when a command's config was composed, and what is there instead."""
    cause: Any = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return _with_places(command, cause, explain(cause))
    if isinstance(cause, OmegaConfBaseException):
        return explain(cause)
    if isinstance(error, OverrideParseException):
        return cannot_read(error.override, error.message.splitlines()[0])
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        hint = did_you_mean(option, error.options)
        return f"there is no '{option}' among the options of {group}.{hint} There are: {', '.join(error.options)}."
    return str(error).partition("\nConfig search path")[0].strip()


def cannot_read(override: str, why: str) -> str:
    """Return an error's text for an override that is none in Hydra's grammar.

    >>> print(cannot_read("out=my run=1", "mismatched input '='"))
    cannot read 'out=my run=1': mismatched input '='
    A value with blanks, commas, = or letters beyond ASCII stands in quotes of its own: 'out="my run=1"'
    """
    name, equals, value = override.partition("=")
    text = f"cannot read '{override}': {why}"
    if not equals or not value or value.startswith(_BRACKETS):
        return text
    line = shlex.quote(f"{name}={quoted(value, chr(34))}")
    return f"{text}\nA value with blanks, commas, = or letters beyond ASCII stands in quotes of its own: {line}"


def _with_places(command: str, error: Any, text: str) -> str:
    """`text` with settings of this name in other places of the config, where it knows no word for it by itself."""
    if "Did you mean" in text:
        return text
    name = str(error.full_key).rpartition(".")[2]
    parent = error.parent_node
    root = parent._get_root() if isinstance(parent, DictConfig) else None
    near = near_places(name, [*settings_of(command), *(_names(root) if isinstance(root, DictConfig) else ())])
    if not near:
        return text
    first, stop, rest = text.partition("'. ")
    meant = " or ".join(f"'{one}'" for one in near)
    return f"{first}'. Did you mean {meant}? {rest}" if stop else f"{text} Did you mean {meant}?"


def near_places(name: str, known: Iterable[str]) -> list[str]:
    """Full names of settings whose last word is `name`, or nearly: the same word first, then the shorter name.

    >>> near_places("budget", ["mixture.budget", "grid.budgets", "loss.l2"])
    ['mixture.budget', 'grid.budgets']
    """
    by_word: dict[str, list[str]] = {}
    for full in dict.fromkeys(known):
        by_word.setdefault(full.rpartition(".")[2], []).append(full)
    close = difflib.get_close_matches(name, by_word, n=_SHOWN, cutoff=_NEAR)
    words = [*([name] if name in by_word else []), *(word for word in close if word != name)]
    found = [full for word in words for full in sorted(by_word[word], key=lambda one: (one.count("."), one))]
    return found[:_SHOWN]


def _names(config: DictConfig, place: str = "") -> Iterator[str]:
    """The full names of what a config holds."""
    for key in config:
        full = f"{place}{key!s}"
        if full == "hydra":
            continue
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
            yield from _names(node, f"{full}.")
        else:
            yield full
