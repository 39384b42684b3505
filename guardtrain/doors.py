"""Packages whose names are imported when they are asked for: a command starts without what it does not use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def door(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        modules: each public name -> the module, inside the package, that has it.

    >>> get, names = door("guardtrain", {"ConfigError": "errors"})
    >>> get("ConfigError").__name__, "ConfigError" in names()
    ('ConfigError', True)
    """

    def get(name: str) -> Any:
        if name in modules:
            return getattr(import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted({*vars(sys.modules[package]), *modules})
