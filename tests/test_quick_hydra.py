"""Hydra composes what it composed before: libyaml reads what PyYAML reads, and refuses what it refuses."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import _utils

from guardtrain.config import conf_dir, register_schemas

pytestmark = pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
register_schemas()
QUICK = _utils.get_yaml_loader()
PLAIN = QUICK.__mro__[2]  # OmegaConf's own


def _read(text: str, loader: type) -> object:
    try:
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError) as error:
        return type(error)


def test_every_config_reads_the_same() -> None:
    assert PLAIN.__name__ == "OmegaConfLoader"
    own = sorted(conf_dir().rglob("*.yaml"))
    hydras = sorted(Path(str(files("hydra"))).rglob("conf/**/*.yaml"))
    assert own and hydras
    for file in (*own, *hydras):
        text = file.read_text(encoding="utf-8")
        assert yaml.load(text, Loader=QUICK) == yaml.load(text, Loader=PLAIN), file


@pytest.mark.parametrize(
    "text",
    [
        *("a: 1e-3", "a: 1e3", "a: .5", "a: 1_000", "a: .inf", "a: 0x1f", "a: 0o7", "a: 012", "a: 1:30"),
        *("a: yes", "a: ~", "a: '1'", "a: 2024-01-02", "é: ü", "? a\n: b", "a: !!python/tuple [1]"),
        *("a: 1\na: 2", "{a: 1", "a: [1, 2", "\ta: 1"),  # what is wrong
    ],
)
def test_numbers_words_and_what_is_wrong(text: str) -> None:
    assert _read(text, QUICK) == _read(text, PLAIN)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)


@given(st.dictionaries(st.text(max_size=6), SCALARS | st.lists(SCALARS, max_size=3), max_size=4))
def test_what_is_written_comes_back(value: dict[str, object]) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert _read(text, QUICK) == _read(text, PLAIN)
