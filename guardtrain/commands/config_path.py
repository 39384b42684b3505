"""Where configs lie: in the folder of a user's own (`--config-dir`), then in guardtrain's; light without Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from guardtrain.config_groups import conf_dir

if TYPE_CHECKING:
    from hydra.core.config_search_path import ConfigSearchPath

_FLAGS = ("--config-dir", "-cd")
_own: list[Path] = []


def set_own_configs(folder: str | Path | None) -> None:
    """Look for configs in this folder, too, from now on in this process; None leaves guardtrain's alone."""
    _own[:] = [] if folder is None else [Path(folder).absolute()]


def own_configs() -> Path | None:
    """The folder of the user's own configs."""
    return _own[0] if _own else None


def own_configs_in(arguments: Sequence[str]) -> str | None:
    """The folder that a command line gives, whether or not the rest of it can be read.

    >>> own_configs_in(["head=tiny", "--config-dir", "mine"]), own_configs_in(["-cd=mine"]), own_configs_in(["a=b"])
    ('mine', 'mine', None)
    """
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in _FLAGS:
            return value if equals else arguments[place + 1] if place + 1 < len(arguments) else None
    return None


def option_files(group: str) -> list[Path]:
    """The files of a config group's options by name; the user's own in the place of guardtrain's of the same name."""
    found = {path.stem: path for folder in (conf_dir(), *_own) for path in (folder / group).glob("*.yaml")}
    return [found[name] for name in sorted(found)]


def search_path() -> ConfigSearchPath:
    """Return where Hydra looks for configs."""
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    search = create_config_search_path(str(conf_dir()))
    for folder in _own:
        search.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    return search


@contextmanager
def hydra_opened() -> Iterator[None]:
    """Hydra as the command was started with; of its own where there is none, as in a process that a launcher made."""
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    from guardtrain.config import register_schemas

    if GlobalHydra.instance().is_initialized():
        yield
        return
    register_schemas()
    Hydra.create_main_hydra2("guardtrain", search_path())
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
