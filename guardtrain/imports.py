"""Heavy packages imported in a third of the time: no garbage collected meanwhile, and only what training needs."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def import_quickly(*names: str) -> None:
    """Import modules, where they are not; `lightning` without what it imports and training does not use.

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
                _import_compiler_in_part()
                _import_torchmetrics_in_part()
            importlib.import_module(name)
            if name == "lightning":
                _look_for_no_clouds()
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # so that modules in C++ are freed at the exit, and do not complain of leaks
        if enabled:
            gc.enable()


class _Compiled:
    """Stand-in for the class that Lightning unwraps compiled modules by, until there can be any."""


def _import_compiler_in_part() -> None:
    """Lightning and torch's optimizers import torch's compiler, a quarter of all imports, to say what is not compiled.

    It is there whole as soon as something is compiled.
    """
    given = {"OptimizedModule": _Compiled, "disable": lambda function, *_, **__: function}
    import_in_part("torch._dynamo", {}, given)


def _look_for_no_clouds() -> None:
    """Lightning asks of every folder whether it is in a cloud, and imports the clients of all clouds to know it."""
    storage = importlib.import_module("lightning.fabric.utilities.cloud_io")
    local = importlib.import_module("fsspec.implementations.local").LocalFileSystem
    if (asked := getattr(storage, "_is_object_storage", None)) is not None:
        storage._is_object_storage = lambda files: not isinstance(files, local) and asked(files)  # type: ignore[attr-defined]


def _import_torchmetrics_in_part() -> None:
    """Lightning needs two classes of torchmetrics.

    Whoever imports the package, though, gets all its metrics, of texts, images and sounds, and with them torchvision,
    transformers and scipy.signal: two seconds, where torch takes one and a half. And who imports these two classes
    gets matplotlib, for the figures they can draw.
    """
    figures = "torchmetrics.utilities.plot"

    def plot_single_or_multi_val(*given: Any, **named: Any) -> Any:
        dir(importlib.import_module(figures))  # now it is whole
        return importlib.import_module(figures).plot_single_or_multi_val(*given, **named)

    names = {"_AX_TYPE": Any, "_PLOT_OUT_TYPE": Any, "plot_single_or_multi_val": plot_single_or_multi_val}
    import_in_part(figures, {}, names)
    modules = {  # in an order in which they can be imported
        "dim_zero_cat": "torchmetrics.utilities",
        "Metric": "torchmetrics.metric",
        "MetricCollection": "torchmetrics.collections",
        "__version__": "torchmetrics.__about__",
    }
    import_in_part("torchmetrics", modules, {"_logger": logging.getLogger("torchmetrics")})


def _spec_of(package: str) -> ModuleSpec | None:
    """Where a package, or a module of one, is; none of the packages it is in is imported."""
    outer, _, _ = package.rpartition(".")
    if not outer:
        return find_spec(package)
    around = sys.modules[outer].__spec__ if outer in sys.modules else _spec_of(outer)
    return None if around is None else PathFinder.find_spec(package, around.submodule_search_locations)


class _WholeFirst(MetaPathFinder, Loader):
    """Finds the modules in a package of which nothing was imported, once all of it is: they expect it to be there."""

    def __init__(self, prefix: str, whole: Callable[[], object]) -> None:
        self._prefix, self._whole = prefix, whole
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not fullname.startswith(self._prefix):
            return None
        self._whole()
        if fullname not in sys.modules:
            return None
        # The package has imported it meanwhile. What Python finds now it would execute a second time: it is to find us.
        self._specs[fullname], sys.modules[fullname].__spec__ = sys.modules[fullname].__spec__, None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._specs.pop(module.__name__)


def import_in_part(package: str, modules: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Import some modules of a package and leave its own `__init__` until something else is asked of the package.

    Whoever asks finds what is always there: the package is then executed as it would have been, in the same module,
    with the modules that were imported before. A package that cannot be had in part is left as if it were not touched.

    Args:
        package: its name, or that of a module; nothing is done where it is imported, or missing.
        modules: which of its modules are imported, in order, by the one name that the package gives of each.
        given: names of the package that its own modules ask for meanwhile.
    """
    spec = None if package in sys.modules else _spec_of(package)
    if spec is None or spec.loader is None:
        return
    module, loader = module_from_spec(spec), spec.loader

    def whole() -> ModuleType:
        if inner in sys.meta_path:
            sys.meta_path.remove(inner)
        for name in ("__getattr__", "__dir__"):
            vars(module).pop(name, None)
        loader.exec_module(module)
        return module

    inner = _WholeFirst(f"{package}.", whole)
    if not modules:
        sys.meta_path.insert(0, inner)

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
