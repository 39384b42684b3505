"""A user's own modules: found in the folders where a command was started and where its configs lie."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from guardtrain.errors import did_you_mean


class _OwnModules(MetaPathFinder):
    """Finds modules in folders, after everything that is installed, so that no file there replaces a library.

    A folder without an `__init__.py` counts as a package only while a name in it is asked for: commands look for
    optional libraries by their names, and a folder `datasets` full of images is none.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.asked = ""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:  # inside a package, which knows where its modules are
            return None
        found = PathFinder.find_spec(fullname, self.folders)
        return found if found is not None and (found.origin is not None or fullname == self.asked) else None

    @contextmanager
    def asked_for(self, package: str) -> Iterator[None]:
        before, self.asked = self.asked, package
        try:
            yield
        finally:
            self.asked = before


_FINDER = _OwnModules()


def make_importable(folders: Iterable[str | Path]) -> None:
    """Let modules in these folders be imported by this process, after those of earlier calls and all installed ones."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
    for folder in map(str, folders):
        if folder not in _FINDER.folders:
            _FINDER.folders.append(folder)


def own_folders() -> tuple[str, ...]:
    """The folders of `make_importable` so far: what another process that works on the same needs."""
    return tuple(_FINDER.folders)


def own_modules() -> list[ModuleType]:
    """The modules that were imported from these folders."""
    loaded = list(sys.modules.items())
    tops = {name for name, module in loaded if "." not in name and _folder_of(module) in _FINDER.folders}
    tops -= {"__main__", __name__.partition(".")[0]}
    return [module for name, module in loaded if name.partition(".")[0] in tops]


def import_target(name: str) -> Any:
    """Return what a dotted name stands for: a class or function of a module that is installed, or of the user's own.

    Raises:
        ImportError: there is none, or its module cannot be imported; why, in a line or two.

    >>> import_target("fractions.Fraction").__name__
    'Fraction'
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ImportError("a name has the form module.Class.")
    with _FINDER.asked_for(parts[0]):
        found: Any = _imported(parts[0])
        for place, part in enumerate(parts[1:], 1):
            known = hasattr(found, part)
            found = getattr(found, part) if known else _inside(found, ".".join(parts[:place]), part)
    return found


def place_in_own(error: BaseException) -> str:
    """File and line in the user's own modules that an exception came through; empty where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = {getattr(module, "__file__", None) for module in own_modules()}
    inner = next((frame for frame in reversed(frames) if frame.filename in own), None)
    return "" if inner is None else f"{inner.filename}, line {inner.lineno}"


def _folder_of(module: ModuleType) -> str | None:
    """The folder that a module outside any package lies in; None where it is no file."""
    found = next(iter(getattr(module, "__path__", ())), None) or getattr(module, "__file__", None)
    return None if found is None else str(Path(found).parent)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ImportError(_raised(error)) from error
        where = " and ".join(_FINDER.folders) or "the folders that Python imports from"
        raise ImportError(
            f"there is no module '{error.name}': none is installed, and none lies in {where}. Run the command in the "
            "folder of your module, or put it beside the folder of --config-dir."
        ) from error
    except Exception as error:
        raise ImportError(_raised(error)) from error


def _inside(parent: Any, path: str, name: str) -> Any:
    """`name` in a module that has no such attribute: a module below it."""
    if isinstance(parent, ModuleType) and hasattr(parent, "__path__"):
        try:
            return importlib.import_module(f"{path}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{path}.{name}":
                raise ImportError(_raised(error)) from error
        except Exception as error:
            raise ImportError(_raised(error)) from error
    file = getattr(parent, "__file__", None)
    raise ImportError(f"{path}{f' ({file})' if file else ''} has no '{name}'.{did_you_mean(name, dir(parent))}")


def _raised(error: Exception) -> str:
    """Return what a module raised while it was imported, with the line of its file."""
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {said}"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<frozen")]
    inner = [one for one in frames if one.filename not in (__file__, importlib.__file__)]
    return f"{inner[-1].filename}, line {inner[-1].lineno}: {said}" if inner else said
