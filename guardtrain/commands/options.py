"""Which options of a config group a command can run: no experiments of others, no embeddings where it takes images."""

from __future__ import annotations

from pathlib import Path

import yaml

from guardtrain.commands.config_path import option_files, own_configs
from guardtrain.commands.experiments import experiments_of

_OF_IMAGES = ("attack", "finetune")  # they change images, or see them anew
_EMBEDDINGS = ("guardtrain.sources.ArraysSource", "guardtrain.embeddings.StoreSource")
_TUNABLE = ("open_clip", "timm")  # families of encoders that finetune adapts


def options_of(command: str, group: str) -> list[Path]:
    """The files of a group's options that `command` does not refuse.

    >>> [path.stem for path in options_of("finetune", "experiment")]
    ['perspectivevision_lora']
    """
    found = option_files(group)
    if group == "experiment":
        own = experiments_of(command)
        return [path for path in found if path.stem in own or path.parent.parent == own_configs()]
    if group == "data" and command in _OF_IMAGES:
        return [path for path in found if (_read(path).get("real") or {}).get("_target_") not in _EMBEDDINGS]
    if group == "encoder" and command == "finetune":
        return [path for path in found if _read(path).get("family", _TUNABLE[0]) in _TUNABLE]
    return found


def _read(path: Path) -> dict[str, dict[str, str]]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
