"""The settings of a command as a tree, read from configs and from the source of the classes behind them.

Nothing is composed and none of these classes is imported: of a head that alone takes seconds, for torch, and TAB
should answer at once. A test compares the tree with the composed config.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from guardtrain.commands.config_path import option_files
from guardtrain.config_groups import conf_dir, config_groups

Tree = dict[str, Any]  # a setting -> the tree of those inside it, or its default; see `NOTHING`
NOTHING = object()  # there is no default that could be said
_PACKAGE, _TARGET, _EXPERIMENT = "guardtrain", "_target_", "experiment"
_NO_WORD = frozenset("${/,' ")  # of defaults that are worked out, paths or several words
_ROOT = Path(__file__).parent.parent
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def settings_tree(command: str, chosen: Mapping[str, str]) -> Tree:
    """All settings of a command.

    Args:
        command: which.
        chosen: options of config groups that are not the command's defaults.
    """
    primary = _read(conf_dir() / f"{command}.yaml")
    tree = _schema(command)
    options = {**config_groups(command), **chosen}
    named = {path.stem: path for path in option_files(_EXPERIMENT)}.get(str(options.get(_EXPERIMENT)))
    experiment = {} if named is None else _read(named)
    for entry in experiment.pop("defaults", []):
        for name, option in entry.items():
            options[name.removeprefix("override ").lstrip("/")] = option
    options |= chosen
    _merge(tree, primary)
    for group, option in options.items():
        if group != _EXPERIMENT and option is not None:
            _merge(tree, {group: _option(group, option)})
    _merge(tree, experiment)
    for name in ("defaults", "hydra"):
        tree.pop(name, None)
    _add_targets(tree)
    return tree


def _option(group: str, option: str) -> Tree:
    """The settings of a group's option, over those of the options that it builds on."""
    files = {path.stem: path for path in option_files(group)}
    own = _read(files[option]) if option in files else {}
    tree: Tree = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, str) and entry not in ("_self_", option):
            other, _, place = entry.partition("@")  # `mlp@mlp`: the option's settings under a name of their own
            own_tree = _option(group, other)
            _merge(tree, {place: own_tree} if place else own_tree)
    _merge(tree, own)
    return tree


def _schema(command: str) -> Tree:
    """The settings of the dataclass that `guardtrain.config` has for a command."""
    for node in _module(f"{_PACKAGE}.config").body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "SCHEMAS":
            assert isinstance(node.value, ast.Dict)
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == command and isinstance(value, ast.Name):
                    return _fields(f"{_PACKAGE}.config", value.id)
    return {}


def _fields(module: str, name: str) -> Tree:
    """The fields of a dataclass, its bases' first; of another class the arguments of its `__init__`."""
    found = _class(module, name)
    if found is None:
        return {}
    module, node = found
    tree: Tree = {}
    for base in node.bases:
        if isinstance(base, ast.Name):
            tree |= _fields(module, base.id)
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not _of_the_class(part):
            inside = _fields(module, part.annotation.id) if isinstance(part.annotation, ast.Name) else {}
            tree[part.target.id] = inside or _default(part.value)
        elif isinstance(part, ast.FunctionDef) and part.name == "__init__":
            tree |= dict.fromkeys([one.arg for one in (*part.args.args[1:], *part.args.kwonlyargs)], NOTHING)
    return tree


def _of_the_class(part: ast.AnnAssign) -> bool:
    """Whether it is no field."""
    return ast.unparse(part.annotation).startswith("ClassVar") or ast.unparse(part.target).startswith("_")


def _default(value: ast.expr | None) -> Any:
    return value.value if isinstance(value, ast.Constant) and value.value is not None else NOTHING


@cache
def _module(name: str) -> ast.Module:
    """The source of a module of guardtrain's."""
    path = _ROOT.joinpath(*name.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])


@cache
def _names(module: str) -> dict[str, ast.ClassDef | tuple[str, str]]:
    """Return a module's names, as far as classes go: its own, and (module, name) of those that it has from others."""
    found: dict[str, ast.ClassDef | tuple[str, str]] = {}
    source = _module(module)
    inside = [part for node in source.body if isinstance(node, ast.If) for part in node.body]  # if TYPE_CHECKING
    for node in (*source.body, *inside):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found[node.name] = node
    return found


def _class(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """A class of that name in a module of guardtrain's, or where the module has it from."""
    if module.split(".")[0] != _PACKAGE:
        return None
    found = _names(module).get(name)
    return _class(*found) if isinstance(found, tuple) else None if found is None else (module, found)


def _add_targets(tree: Tree) -> None:
    """The arguments of each `_target_`, where the config does not have them already; `_target_` itself comes last."""
    if isinstance(target := tree.pop(_TARGET, None), str):
        module, _, name = target.rpartition(".")
        for argument, value in _fields(module, name).items():
            tree.setdefault(argument, value)
        tree[_TARGET] = target
    for inside in tree.values():
        if isinstance(inside, dict):
            _add_targets(inside)


def _merge(tree: Tree, more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping):
            inside = tree[name] if isinstance(tree.get(name), dict) else {}
            tree[name] = inside
            _merge(inside, value)
        elif value is None or value == "???":
            tree.setdefault(name, NOTHING)
        elif not isinstance(tree.get(name), dict):
            tree[name] = value if isinstance(value, bool | int | float | str) else NOTHING


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _read(path: Path) -> dict[str, Any]:
    return yaml.load(_text(path), _LOADER) or {}


def offered(tree: Tree, word: str, known: Iterable[str] = ()) -> list[str]:
    """Complete a word that names a setting: settings as `name=`, those with others inside as `name.`.

    Args:
        tree: of the command.
        word: what is typed; after `=` the value.
        known: config groups, which come as `name=` as well.
    """
    name, equals, value = word.partition("=")
    *path, last = name.split(".")
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return []
    prefix = "".join(f"{part}." for part in path)
    if equals:
        return [f"{name}={one}" for one in _values(node.get(last)) if one.startswith(value)]
    found = []
    for key, inside in node.items():
        if key.startswith(last):
            if not prefix and key in known:
                found.append(f"{key}=")
            found.append(f"{prefix}{key}." if isinstance(inside, dict) and inside else f"{prefix}{key}=")
    return list(dict.fromkeys(found))


def _values(default: Any) -> list[str]:
    """Return a setting's possible values, as far as known: both of what is true or false, else its default."""
    if isinstance(default, bool):
        return ["true", "false"]
    if isinstance(default, str) and (not default or set(default) & _NO_WORD):
        return []
    return [str(default)] if isinstance(default, int | float | str) else []
