"""Values as Hydra reads them on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What stands for a mapping's key null, which configs cannot hold, and for true and false, which are 1 and 0 to Python.
WORD_KEYS = {f"({word})": word for word in ("null", "true", "false")}
_WORD = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)  # what Hydra reads as a string without quotes
_NO_WORDS = ("null", "true", "false", "nan", "inf")
# A key has no quotes there: what it may hold as it is, and what behind a backslash.
_KEY = re.compile(r"[A-Za-z0-9_/\-+.$%*@?|\\()\[\]{}:=, ]+")
_ESCAPED = re.compile(r"([\\()\[\]{}:=,])")


def setting_text(value: Any, *, spaced: bool = False, quote: str = '"') -> str:
    """`value` as Hydra reads it behind `SETTING=`; in double quotes where it needs some, as shells have single ones.

    Args:
        value: a number, text, None, or a list or mapping of such.
        spaced: with a blank after `,` and `:`, for people.
        quote: the quotes of text.

    >>> [setting_text(v) for v in (0.5, True, None, "mlp", [64, 32], "two words")]
    ['0.5', 'true', 'null', 'mlp', '[64,32]', '"two words"']
    >>> setting_text({"Highly Unsafe": 1, "-1": 0}, spaced=True)
    '{Highly Unsafe: 1, -1: 0}'
    >>> setting_text({"不安全": 1}, spaced=True)
    '"{不安全: 1}"'
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    blank = " " if spaced else ""
    if isinstance(value, Mapping):
        keys = [key_text(str(key)) for key in value]
        if None in keys:
            return _as_yaml(value)
        values = [setting_text(one, spaced=spaced, quote=quote) for one in value.values()]
        return "{" + f",{blank}".join(f"{key}:{blank}{text}" for key, text in zip(keys, values, strict=True)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + f",{blank}".join(setting_text(item, spaced=spaced, quote=quote) for item in value) + "]"
    text = str(value)
    return text if _WORD.fullmatch(text) and text.lower() not in _NO_WORDS else quoted(text, quote)


def quoted(text: str, quote: str = "'") -> str:
    """A value in Hydra's grammar that is this text, whatever it holds."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # no interpolation
    escaped = re.sub(rf"(\\*){quote}", rf"\1\1\\{quote}", text)  # backslashes count double before a quote only
    ending = len(escaped) - len(escaped.rstrip("\\"))
    return f"{quote}{escaped}{ending * chr(92)}{quote}"


def key_text(text: str) -> str | None:
    """A mapping's key without quotes, for Hydra has none there; None where it cannot be written so."""
    if not _KEY.fullmatch(text) or text != text.strip() or "${" in text:
        return None
    return _ESCAPED.sub(r"\\\1", text)


def _as_yaml(value: Mapping[Any, Any]) -> str:
    """A mapping as the text of one, which sources read as well (see `guardtrain.config_checks.build`)."""
    import yaml

    text = yaml.safe_dump(dict(value), default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return quoted(text.strip(), '"')


def setting(name: str, text: str) -> str:
    """`NAME=TEXT` for a command line, quoted where Hydra would read something else in the text.

    >>> setting("run", "sweep/seed=0,n=64"), setting("out", "a/b")
    ('run="sweep/seed=0,n=64"', 'out=a/b')
    """
    if re.fullmatch(r"[\w./:@+-]+", text, re.ASCII):
        return f"{name}={text}"
    return f"{name}=" + quoted(text, '"')
