"""What commands say of labels: what was taken as unsafe; of unclear ones settings that work when they are pasted."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from guardtrain.benchmarks.settings import BenchmarkSettings
from guardtrain.commands import attack
from guardtrain.commands.arguments import with_plain_keys
from guardtrain.commands.benchmark_data import data_sets
from guardtrain.commands.data import load_pools
from guardtrain.config import AuditConfig, conf_dir, register_schemas
from guardtrain.config_checks import build, typed
from guardtrain.errors import ConfigError, DataError
from guardtrain.grammar import setting_text
from guardtrain.sources import ManifestSource
from guardtrain.sources.cells import same
from guardtrain.sources.labels import read_labels
from guardtrain.training.pools import HoldOut
from tests.sources.tiny import png


def pasted(message: str) -> list[str]:
    """The settings in a message, as a shell hands them over."""
    return [shlex.split(line)[0] for line in message.splitlines() if line.startswith("  ")]


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., str]:
    """A function that writes a table of eight images with these labels, every other one unsafe."""
    for k in range(8):
        (tmp_path / f"{k}.png").write_bytes(png(20 * k))

    def table(safe: Any, unsafe: Any, name: str = "label") -> str:
        cells = [unsafe if k % 2 else safe for k in range(8)]
        pd.DataFrame({"image": [f"{k}.png" for k in range(8)], name: cells}).to_csv(tmp_path / "t.csv", index=False)
        return "source.path=t.csv"

    return table


@pytest.mark.parametrize(
    ("safe", "unsafe", "said"),
    [
        ("ok", "gore", "unsafe: 'gore' (4), safe: 'ok' (4)"),
        (-1, 1, "unsafe: 1 (4), safe: -1 (4)"),
        (2.5, 0.5, "unsafe: 0.5 (4), safe: 2.5 (4)"),
        ("no", "yes", "unsafe: 'yes' (4), safe: 'no' (4)"),
        ("ungefährlich", "don't, {ever}: no", "unsafe: \"don't, {ever}: no\" (4), safe: 'ungefährlich' (4)"),
    ],
)
def test_a_printed_setting_works_when_it_is_pasted(
    run: Callable[..., str], images: Callable[..., str], safe: Any, unsafe: Any, said: str
) -> None:
    path = images(safe, unsafe)
    settings = pasted(run("embed", "source=manifest", path, "out=s", code=2))
    assert len(settings) == 2
    told = [run("embed", "source=manifest", path, f"out=s{i}", setting) for i, setting in enumerate(settings)]
    assert [f"source: 8 labels, {said}\n" in text for text in told].count(True) == 1
    assert all("8 embeddings" in text for text in told)


def test_what_is_appended_and_attacked_is_told(
    run: Callable[..., str], images: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    run("embed", "source=manifest", images("sfw", "nsfw"), "out=s")
    said = run("store", "append", "path=s", "source=manifest", "source.path=t.csv")
    assert "source: 8 labels, unsafe: 'nsfw' (4), safe: 'sfw' (4)\n8 of 8 records are there already" in said
    real = ManifestSource("t.csv", labels={"sfw": 1, "nsfw": 0})
    # logging is as the commands above left it: what they tell goes to the screen
    attack._read({"real": real}, {"held": HoldOut("real", groups=2), "own": ManifestSource("t.csv")}, ["held"])
    assert capsys.readouterr().out == "data.real: 8 labels, unsafe: 'sfw' (4), safe: 'nsfw' (4)\n"


def test_keys_that_are_numbers_true_and_null(run: Callable[..., str], images: Callable[..., str]) -> None:
    path = images(0.0, 1.0)
    text = run("embed", "source=manifest", path, "out=a", "source.labels={0.0: 1, 1: 0}")
    assert "unsafe: 0.0 (4), safe: 1.0 (4)" in text
    path = images(None, True)
    text = run("embed", "source=manifest", path, "out=b", "source.labels={null: 0, true: 1}")
    assert "unsafe: True (4), safe: (empty) (4)" in text
    Path("own").mkdir()
    Path("own", "source").mkdir()
    lines = ["_target_: guardtrain.sources.ManifestSource", "path: t.csv", "labels: {'null': 0, true: 1}"]
    Path("own", "source", "mine.yaml").write_text("\n".join(lines))
    assert "safe: (empty) (4)" in run("embed", "source=mine", "out=c", "--config-dir", "own")
    Path("own", "source", "mine.yaml").write_text("\n".join(lines).replace("'null'", "null"))
    assert "is written with quotes in a file: 'null'" in run(
        "embed", "source=mine", "out=c", "--config-dir", "own", code=2
    )


NAMES = st.text("aB1.,:= ()[]{}\\'\"#$-+é不/@?%*|~!", min_size=1, max_size=6)


@given(st.dictionaries(NAMES, st.integers(0, 1), min_size=1, max_size=3))
@example({"null": 0, "nan": 1})
@example({"${x}": 0})
def test_any_cells_can_be_mapped_on_the_command_line(mapping: dict[str, int]) -> None:
    if len({same(key) for key in mapping}) < len(mapping):
        return
    (text,) = with_plain_keys([f"x.labels={setting_text(mapping, spaced=True)}"])
    given_ = OmegaConf.create({"labels": OverridesParser.create().parse_override(text).value()})
    node = {
        "_target_": "guardtrain.sources.ManifestSource",
        "path": "t.csv",
        **OmegaConf.to_container(given_, resolve=True),
    }  # type: ignore[dict-item]
    read = read_labels(pa.array(list(mapping)), build(node, "x").labels, "x")
    assert read.labels.to_pylist() == list(mapping.values())


def test_a_mapping_may_be_given_as_text() -> None:
    node = {"_target_": "guardtrain.sources.ManifestSource", "path": "t.csv"}
    assert build({**node, "labels": "{不安全: 1, yes: 0}"}, "source").labels == {"不安全": 1, "true": 0}
    with pytest.raises(ConfigError, match=r"source\.labels must be a mapping"):
        build({**node, "labels": "不安全"}, "source")
    pairs = {"safe": "a", "unsafe": "b", "swapped": {0: 1}}
    made = build({"_target_": "guardtrain.sources.ParquetImagesSource", "path": "x", "pairs": pairs}, "source")
    assert made.pairs.swapped == {"0": 1}


def _audit(*overrides: str) -> AuditConfig:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return typed(compose("audit", list(overrides)), AuditConfig)


def test_pools_are_read_and_told_of_before_anything_is_embedded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "real.npz", x=rng.normal(size=(40, 3)), kind=np.tile(["calm", "gore"], 20))
    np.savez(tmp_path / "pairs.npz", before=rng.normal(size=(9, 3)), after=rng.normal(size=(9, 3)))
    arrays = [
        "data=arrays", "encoder=precomputed", f"data.real.path={tmp_path}/real.npz", "data.real.features=x",
        "data.real.label=kind", f"data.pairs.path={tmp_path}/pairs.npz", "data.pairs.safe=after",
        "data.pairs.unsafe=before",
    ]  # fmt: skip
    said: list[str] = []
    with pytest.raises(DataError) as caught:
        load_pools(_audit(*arrays), said.append)
    assert not said
    assert [one.partition("=")[0] for one in pasted(str(caught.value))] == ["data.real.labels"] * 2
    (right,) = [one for one in pasted(str(caught.value)) if "calm: 0" in one]
    pools = load_pools(_audit(*arrays, f"+{right}"), said.append)
    assert said[:2] == [
        "data.real: 40 labels, unsafe: 'gore' (20), safe: 'calm' (20)",
        "data.pairs: 18 labels, unsafe: 'before' (9), safe: 'after' (9)",
    ]
    assert said[2].startswith("data.real: 40 records")
    assert str(pools.tests["in_domain"].records.taken).startswith("unsafe: 'gore' (")
    scenes: list[str] = []
    drawn = ["data.real.n=40", "data.test.in_domain.n=40", "data.pairs=null", "~data.test.counterfactual"]
    load_pools(_audit(*drawn), scenes.append)
    assert [line.partition(" records")[0] for line in scenes] == ["data.real: 40", "data.test.in_domain: 40"]


def benchmark(data: Any) -> BenchmarkSettings:
    return BenchmarkSettings(guards=["none"], data_sets=data, out="o", data_dir="data", cache_dir="cache")


@pytest.mark.parametrize(
    "given_data",
    [
        "t.csv",
        ["t.csv", "u.csv"],
        {"mine": "t.csv"},
        {"mine": {"path": "t.csv", "image_root": "."}},
        {"config": "manifest:real", "real": {"path": "t.csv"}, "pairs": {"path": "t.csv"}},
        {"config": "manifest:in_domain", "real": {"path": "t.csv"}, "pairs": {"path": "u.csv"}},
    ],
)
def test_benchmarks_tell_the_whole_of_data(
    run: Callable[..., str], images: Callable[..., str], given_data: Any, tmp_path: Path
) -> None:
    images("safe", "unsafe")
    table = pd.read_csv(tmp_path / "t.csv").assign(image=[f"u{k}.png" for k in range(8)], pair_id=np.arange(8) // 2)
    table.to_csv(tmp_path / "u.csv", index=False)
    images("ok", "gore")
    with pytest.raises(DataError) as caught:
        data_sets(benchmark(given_data))
    first, _ = pasted(str(caught.value))
    assert first.startswith("data=")
    said: list[str] = []
    found = data_sets(benchmark(OverridesParser.create().parse_override(first).value()), said.append)
    assert all("'gore'" in line or "'unsafe'" in line for line in said)
    assert len(said) == len(found) == (2 if isinstance(given_data, Sequence) and "u.csv" in given_data else 1)
    assert f"unsafe: 'gore' ({int(found[0].records.labels.sum())})" in said[0]
