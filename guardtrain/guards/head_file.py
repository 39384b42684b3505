"""The head in a guard's directory: its definition as data, its weights as safetensors."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardtrain.errors import GuardError
from guardtrain.guards.category_head import PREFIX, CategoryHead
from guardtrain.guards.directory import WEIGHTS
from guardtrain.own_code import import_target

if TYPE_CHECKING:
    from guardtrain.heads.bank import HeadBank

_OURS = "guardtrain.heads."
_IMPORTED = frozenset({"guardtrain.benchmarks.concepts.ConceptHead"})  # of guards by others, where no head of ours fits


def is_known(name: str) -> bool:
    """Whether a head definition of this dotted name may be built from a guard's directory without being trusted first.

    >>> is_known("guardtrain.heads.LinearHead"), is_known("os.system")
    (True, False)
    """
    return name.startswith(_OURS) or name in _IMPORTED


def trust(name: str) -> str:
    """Return what is said to `Guard.load` besides the path, where the head is of this dotted name.

    >>> trust("guardtrain.heads.LinearHead"), trust("my_head.TinyHead")
    ('', ', trusted_heads=["my_head.TinyHead"]')
    """
    return "" if is_known(name) else f', trusted_heads=["{name}"]'


def write_bank(
    folder: Path,
    bank: HeadBank,
    definition: Mapping[str, Any],
    calibrator: Mapping[str, Any],
    categories: CategoryHead | None = None,
) -> None:
    """Write a bank of one as `model.safetensors`; head and calibrator stand in its header, too, as JSON.

    The weights of a category head lie beside those of the head, under names of their own.
    """
    import safetensors.torch
    import torch

    state = {name: value.contiguous() for name, value in bank.head_state(0).items()}
    if categories is not None:
        state |= {name: torch.from_numpy(value.copy()) for name, value in categories.tensors().items()}
    header = {"format": "pt", "head": json.dumps(dict(definition)), "calibrator": json.dumps(dict(calibrator))}
    safetensors.torch.save_file(state, folder / WEIGHTS, metadata=header)


def read_bank(folder: Path, config: Mapping[str, Any], trusted: Sequence[str] = ()) -> HeadBank:
    """The head of a guard as a bank of one in eval mode.

    Args:
        folder: the guard's directory, checked by `read_config`.
        config: its content.
        trusted: dotted names of head definitions outside guardtrain that may be imported.

    Raises:
        GuardError: a head that is neither guardtrain's nor trusted, or weights that do not fit it.
    """
    definition = config["head"]
    name = str(definition.get("_target_") if isinstance(definition, Mapping) else definition)
    if not is_known(name) and name not in trusted:
        raise GuardError(
            f"The head of {folder} is a {name}, which is not part of guardtrain: loading it would import and run that "
            f"code. If you trust it, say 'trusted_heads=[{name}]'; in Python Guard.load(..., trusted_heads=['{name}'])."
        )
    import safetensors.torch

    try:
        bank: HeadBank = _built(definition).bank(1, int(config["dim"]))
        state = safetensors.torch.load_file(folder / WEIGHTS)
        bank.load_state_dict({name: value for name, value in state.items() if not name.startswith(PREFIX)})
    except Exception as error:  # safetensors', torch's, OmegaConf's and the definition's own errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise GuardError(
            f"{folder / WEIGHTS} does not fit the head in its config: {reason}. Export the guard again."
        ) from error
    return bank.eval().requires_grad_(False)


def portable_definition(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A head's definition without the folders of this machine; text anchors are part of the weights by now."""
    out = json.loads(json.dumps(dict(definition)))
    text = out.get("text")
    if isinstance(text, dict) and text.get("file"):
        text["file"] = Path(text["file"]).name
    return dict(out)


def _built(definition: Mapping[str, Any]) -> Any:
    """The head definition that `{_target_: dotted.name, **arguments}` names.

    Of guardtrain's own modules only the definitions themselves are built, not what these modules import; and arguments
    are taken as they are written: OmegaConf would put environment variables and more in the place of `${...}`.
    """
    whole = str(definition["_target_"])
    module, _, name = whole.rpartition(".")
    target = getattr(importlib.import_module(module), name) if is_known(whole) else import_target(whole)
    arguments = {str(key): value for key, value in definition.items() if key != "_target_"}
    if not isinstance(target, type):
        raise GuardError(f"{definition['_target_']} is no head definition")
    if is_known(whole) and not _is_definition(target):
        raise GuardError(f"{definition['_target_']} is no head definition")
    if "${" in json.dumps(arguments):
        raise GuardError("its settings hold '${', which would be filled in from outside the guard")
    if not dataclasses.is_dataclass(target):
        return target(**arguments)
    from omegaconf import OmegaConf

    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(target), arguments))


def _is_definition(target: type) -> bool:
    """Whether a class is a head definition of guardtrain's: a dataclass of its own modules that makes banks."""
    own = is_known(f"{target.__module__}.{target.__qualname__}")
    return own and dataclasses.is_dataclass(target) and callable(getattr(target, "bank", None))
