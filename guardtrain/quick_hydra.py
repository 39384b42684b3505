"""What Hydra and OmegaConf do over again for each config, done once: nothing that they compose is different."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml


@cache
def quicken() -> None:
    """Spare this process what Hydra does over again for each config that it composes.

    It copies its config sources, and with them the store of all that commands and plugins have put there, though what
    is taken out of the store is copied anyway. OmegaConf makes its YAML loader anew for each file, in plain Python; on
    libyaml, where PyYAML was built with it, reading takes an eighth of the time.
    """
    import omegaconf._utils as utils
    from hydra.core.config_store import ConfigStore

    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    if yaml.__with_libyaml__:
        loader = _on_libyaml(utils.get_yaml_loader())
        utils.get_yaml_loader = lambda: loader


def _on_libyaml(loader: Any) -> Any:
    """OmegaConf's loader, its rules for keys and numbers as they are, with libyaml's parser before its own."""
    from yaml._yaml import CParser
    from yaml.constructor import SafeConstructor
    from yaml.resolver import Resolver

    class Loader(CParser, loader):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            CParser.__init__(self, stream)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    return Loader


def store_schema(command: str, schema: type) -> None:
    """Put a schema into Hydra's store; see `guardtrain.config.register_schemas`."""
    from hydra.core.config_store import ConfigStore

    quicken()
    ConfigStore.instance().store(name=f"{command}_schema", node=schema, provider="guardtrain")
