"""`guardtrain COMMAND --help` and `--help-all`: options from the files under conf/, settings from docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from guardtrain.commands.config_path import hydra_opened, set_own_configs
from guardtrain.commands.examples import COMMON, EXAMPLES
from guardtrain.commands.options import options_of
from guardtrain.commands.registry import ACTIONS
from guardtrain.config import SCHEMAS
from guardtrain.config_groups import config_groups

WIDTH = 100
_RESOLVED = ("out", "data_dir", "cache_dir")  # the explanation says what they default to


def command_help(command: str, summary: str, *, whole: bool = False, own: str | None = None) -> str:
    """The help text of `command`: examples first, then what most people set; or all that there is.

    Args:
        command: which.
        summary: what it does, in a line.
        whole: every setting, and what each option of a config group is.
        own: the folder of the user's own configs.
    """
    set_own_configs(own)
    action = f"{{{'|'.join(ACTIONS[command])}}} " if command in ACTIONS else ""
    groups = config_groups(command)
    group = "[GROUP=OPTION] " if groups else ""
    settings = _settings(SCHEMAS[command])
    common = COMMON.get(command)
    short = common is not None and not whole
    lines = [
        f"guardtrain {command}: {summary}",
        "",
        f"usage: guardtrain {command} {action}{group}[SETTING=VALUE] ...",
        "",
        "examples:",
        *[f"  {example}" for example in EXAMPLES[command]],
        "",
    ]
    if short and common is not None:
        texts = dict(settings)
        shown = [(name, texts[name]) for name in common]
        lines.append(f"the settings that people change (SETTING=VALUE; all {len(settings)} with --help-all):")
    else:
        required = _required(SCHEMAS[command])
        shown = sorted(settings, key=lambda one: one[0] not in required)
        lines.append("settings (SETTING=VALUE):")
    composed = _composed(command)
    for name, text in shown:
        lines += _entry(f"  {name}", f"{_default(composed, name)}{text}", 30)
    if groups:
        about = "" if whole else "; what each is: --help-all"
        lines += ["", f"config groups (GROUP=OPTION; * is the default{about}):"]
    for name, default in groups.items():
        lines += _options(command, name, default) if whole else _named(command, name, default)
    lines += ["", f"guardtrain {command} --cfg job shows the composed config; -m A=1,2 runs one job for each value."]
    return "\n".join(lines)


def _options(command: str, group: str, default: str | None) -> list[str]:
    """The options of a group, each with what it is."""
    lines = [f"  {group}"]
    for path in options_of(command, group):
        lines += _entry(f"   {'*' if path.stem == default else ' '} {path.stem}", first_comment(path), 28)
    return lines


def _named(command: str, group: str, default: str | None) -> list[str]:
    """The options of a group by their names alone."""
    names = [f"{'*' * (path.stem == default)}{path.stem}" for path in options_of(command, group)]
    return _entry(f"  {group}", ", ".join(names), 16)


def _default(composed: DictConfig, name: str) -> str:
    """Return a setting's own value, in brackets; empty where its explanation says so."""
    value = "" if name in _RESOLVED else OmegaConf.select(composed, name, throw_on_missing=False, default="")
    if value == "" or isinstance(value, DictConfig):  # a mapping (a source) is in its group's file, too long for here
        return ""
    return f"{_short(value)} " if isinstance(value, ListConfig) else f"[{_short(value)}] "


def first_comment(path: Path) -> str:
    """Return what a YAML file says of itself in its first comment (after a `@package` line).

    A next line that begins with a small letter goes on with the sentence.
    """
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("# ").strip()
        if "@package" in line and not lines:
            continue
        if not line.startswith("#") or (lines and not text[:1].islower()):
            if lines or line.strip():
                break
            continue
        lines.append(text)
    return " ".join(lines)


def _composed(command: str) -> DictConfig:
    """The command's config as it is without overrides."""
    with hydra_opened():
        return compose(command)


def settings_of(command: str) -> list[str]:
    """The full names of a command's settings."""
    return [name for name, _ in _settings(SCHEMAS[command])]


def _settings(schema: type, prefix: str = "") -> list[tuple[str, str]]:
    """(full name, explanation) of every setting of a schema, nested ones after it."""
    found = []
    texts = _argument_texts(schema)
    instance = schema()
    for field in dataclasses.fields(schema):
        value = getattr(instance, field.name)
        full = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found += _settings(type(value), f"{full}.")
        elif texts.get(field.name):
            found.append((full, texts[field.name]))
    return found


def _required(schema: type) -> list[str]:
    """The command's own settings that have no default: what its user gives, told first."""
    instance = schema()
    names = [field.name for field in dataclasses.fields(schema)]
    return [name for name in names if getattr(instance, name) == MISSING and name not in _RESOLVED]


def _argument_texts(schema: type) -> dict[str, str]:
    """The `Args:` sections of a dataclass and its bases, by argument."""
    texts: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        section = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
        for match in re.finditer(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section, flags=re.M):
            for name in match[1].split(", "):
                texts[name] = re.sub(r"\s+", " ", match[2]).strip()
    return texts


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")


def _entry(head: str, text: str, column: int) -> list[str]:
    wrapped = textwrap.wrap(text, WIDTH - column) or [""]
    first = f"{head:<{column}}{wrapped[0]}" if len(head) < column else head
    rest = wrapped[1:] if len(head) < column else wrapped
    return [first.rstrip(), *[" " * column + line for line in rest]]
