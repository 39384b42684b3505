"""The commands' settings from Python: the defaults of `conf/`, with what is given in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, TypeVar

from guardtrain.config_checks import build, typed
from guardtrain.errors import ConfigError, did_you_mean
from guardtrain.grammar import setting_text

if TYPE_CHECKING:
    from guardtrain.config import CurveConfig

HEADS = "guardtrain.heads"
T = TypeVar("T")


def curve_settings(overrides: Iterable[str] = ()) -> CurveConfig:
    """The settings of `guardtrain curve` with overrides, as they stand on its command line.

    Raises:
        ConfigError: a setting that there is none of, or a value that it cannot have.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from guardtrain.config import CurveConfig, conf_dir, register_schemas
    from guardtrain.quick_hydra import quicken

    quicken()
    register_schemas()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return typed(compose("curve", overrides=list(overrides)), CurveConfig)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"These settings of a curve cannot be taken together: {error}") from error


def names_of(group: str, pattern: str = "*", having: str = "") -> list[str]:
    """The names of a group of configs, such as `head`, that fit a pattern with `*`, sorted.

    Args:
        having: a text that their files have.
    """
    from guardtrain.config import conf_dir

    files = (path for path in (conf_dir() / group).glob("*.yaml") if fnmatch(path.stem, pattern))
    return sorted(path.stem for path in files if having in path.read_text(encoding="utf-8"))


def chosen(group: str, name: str, settings: Mapping[str, Any]) -> list[str]:
    """The overrides that choose one of a group and set some of its settings.

    >>> chosen("head", "mlp", {"hidden": [8]})
    ['head=mlp', '++head.hidden=[8]']

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in (known := names_of(group)):
        raise ConfigError(f"There is no {group} '{name}'.{did_you_mean(name, known)} There are: {', '.join(known)}.")
    return [f"{group}={name}", *(f"++{group}.{key}={setting_text(value)}" for key, value in settings.items())]


def checked(kind: type[T], settings: Mapping[str, Any], what: str) -> T:
    """Return settings from keyword arguments.

    Args:
        kind: the settings' dataclass.
        settings: name -> value; what is not given has its default.
        what: the function that was called.

    Raises:
        ConfigError: a name that there is none of.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if strange := [name for name in settings if name not in known]:
        raise ConfigError(f"{what} has no setting '{strange[0]}'; it knows: {', '.join(known)}.")
    return kind(**settings)


def head_node(head: Any) -> dict[str, Any]:
    """A head as a config has it: `_target_` and its settings.

    Raises:
        ConfigError: no dataclass, as every head is.
    """
    if not is_dataclass(head) or isinstance(head, type):
        raise ConfigError(
            f"A head is a name of {', '.join(names_of('head'))}, what `create_head` gives, or a dataclass of your own "
            f"that makes banks of heads; it is {head!r}."
        )
    import guardtrain.heads as ours

    kind = type(head)
    is_ours = getattr(ours, kind.__name__, None) is kind
    target = f"{HEADS if is_ours else kind.__module__}.{kind.__qualname__}"
    own = _plain(asdict(head))
    nodes = []
    for said in _configs(target):
        usual = _plain(asdict(build(said, "head")))
        nodes.append(said | {key: value for key, value in own.items() if value != usual[key]})
    # what is said nowhere stands for its default, so that the same head has the same node, and its runs the same keys
    return min(nodes, key=len, default={"_target_": target} | own)


def _configs(target: str) -> list[dict[str, Any]]:
    """Return what files of `conf/head` say of such a head."""
    import yaml

    from guardtrain.config import conf_dir

    files = [conf_dir() / "head" / f"{name}.yaml" for name in names_of("head", having=target)]
    nodes = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return [node for node in nodes if isinstance(node, dict) and node.get("_target_") == target]


def given(**settings: Any) -> list[str]:
    """Overrides of those settings that are not None, `grid__budgets` standing for `grid.budgets`."""
    return [
        f"{name.replace('__', '.')}={setting_text(_plain(value))}"
        for name, value in settings.items()
        if value is not None
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value
