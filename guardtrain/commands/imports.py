"""Heavy packages imported in half the time: no garbage collected meanwhile, of torchmetrics what Lightning takes."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import sys
from collections.abc import Mapping
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def import_quickly(*names: str) -> None:
    """Import modules, where they are not; `lightning` without those metrics of torchmetrics that nobody asks for.

    No garbage is collected meanwhile, and what was imported is left out of later collections: it is hundreds of
    thousands of objects that stay, and looking through them takes as long as a quarter of the imports.
    """
    missing = [name for name in names if name not in sys.modules]
    if not missing:
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        for name in missing:
            if name == "lightning":
                importlib.import_module("torch")
                _import_torchmetrics_in_part()
            importlib.import_module(name)
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # so that modules in C++ are freed at the exit, and do not complain of leaks
        if enabled:
            gc.enable()


def _import_torchmetrics_in_part() -> None:
    """Lightning needs two classes of torchmetrics.

    Whoever imports the package, though, gets all its metrics, of texts, images and sounds, and with them torchvision,
    transformers and scipy.signal: two seconds, where torch takes one and a half.
    """
    modules = {  # in an order in which they can be imported
        "dim_zero_cat": "torchmetrics.utilities",
        "Metric": "torchmetrics.metric",
        "MetricCollection": "torchmetrics.collections",
        "__version__": "torchmetrics.__about__",
    }
    import_in_part("torchmetrics", modules, {"_logger": logging.getLogger("torchmetrics")})


def import_in_part(package: str, modules: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Import some modules of a package and leave its own `__init__` until something else is asked of the package.

    Whoever asks finds what is always there: the package is then executed as it would have been, in the same module,
    with the modules that were imported before. A package that cannot be had in part is left as if it were not touched.

    Args:
        package: its name; nothing is done where it is imported, or missing.
        modules: which of its modules are imported, in order, by the one name that the package gives of each.
        given: names of the package that its own modules ask for meanwhile.
    """
    spec = None if package in sys.modules else find_spec(package)
    if spec is None or spec.loader is None:
        return
    module, loader = module_from_spec(spec), spec.loader

    def whole() -> ModuleType:
        for name in ("__getattr__", "__dir__"):
            vars(module).pop(name, None)
        loader.exec_module(module)
        return module

    def on_demand(name: str) -> Any:
        if name in given:
            return given[name]
        if name in modules:
            return getattr(importlib.import_module(modules[name]), name)
        if name.startswith("__") and name != "__all__":  # what Python itself asks of modules
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(whole(), name)

    vars(module).update(__getattr__=on_demand, __dir__=lambda: dir(whole()))
    sys.modules[package] = module
    try:
        for name in modules.values():
            importlib.import_module(name)
    except Exception:  # another version of it
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
