from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from guardtrain.config import TrainConfig, conf_dir, register_schemas
from guardtrain.config_checks import plain, typed
from guardtrain.errors import ConfigError
from guardtrain.sources.settings import DataOrigin


def _about(*overrides: str):
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return typed(compose("train", list(overrides)), TrainConfig).data.about


def test_where_data_come_from_can_be_said_on_the_command_line() -> None:
    assert _about("+data.about.real.licence=cc-by-4.0", "+data.about.mine={url: here, access: gated}") == {
        "real": DataOrigin(licence="cc-by-4.0"),
        "mine": DataOrigin(url="here", access="gated"),
    }
    gated = _about("data=llavaguard", "data.about.real.licence=mine")
    assert (gated["real"].licence, gated["real"].access) == ("mine", "gated")
    assert plain(gated)["in_domain"]["url"] == gated["real"].url


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("real.licens=x", "no setting 'data.about.real.licens'"), ("real=3", "mapping"), ("real.url=3", "must be text")],
)
def test_what_is_no_origin_is_refused(wrong: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _about(f"+data.about.{wrong}")
