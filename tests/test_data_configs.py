"""The configs of published data sets, run on tiny local copies of the same schema: grey squares, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from guardtrain.commands.data import load_pools
from guardtrain.config import CurveConfig, conf_dir, register_schemas
from guardtrain.config_checks import build, typed
from guardtrain.errors import ConfigError
from guardtrain.sources.settings import DataSettings
from tests.sources.tiny import hub_image, png, shade, write_hub_parquet, write_shards

POLICIES = [f"Policy L{k}" for k in range(1, 6)]


def settings(data: str, *overrides: str) -> CurveConfig:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return typed(compose("curve", overrides=[f"data={data}", "encoder=demo", *overrides]), CurveConfig)


def sources(data: DataSettings) -> dict[str, Any]:
    """The sources by place."""
    nodes = {"real": data.real, "pairs": data.pairs} | data.test
    return {name: build(node, name) for name, node in nodes.items() if node is not None and "hold_out" not in node}


@pytest.fixture
def unsafebench(tmp_path: Path) -> Path:
    for split, n in (("train", 12), ("test", 6)):
        columns = {
            # none of the test images is a copy of one to train on, which would leave that out
            "image": [hub_image(k + 100 * (split == "test"), f"{k}.png") for k in range(n)],
            "safety_label": [["Safe", "Unsafe"][k % 2] for k in range(n)],
            "category": [["Violence", "Hate"][k // 2 % 2] for k in range(n)],
            "source": [["Laion5B", "Lexica"][k // 4 % 2] for k in range(n)],
            "text": ["a grey square"] * n,
        }
        write_hub_parquet(tmp_path / "unsafebench" / "data" / f"{split}-00000-of-00001.parquet", columns)
    return tmp_path / "unsafebench"


def test_unsafebench(unsafebench: Path, tmp_path: Path) -> None:
    config = settings("unsafebench", f"data.real.path={unsafebench}", f"cache_dir={tmp_path / 'cache'}")
    real = sources(config.data)["real"]
    assert real.records().labels.tolist() == [0, 1] * 6
    assert set(real.records().categories) == {"Violence", "Hate"}
    assert set(real.records().sources) == {"Laion5B", "Lexica"}
    assert [shade(real.image(i)) for i in (3, 11)] == [3, 11]
    assert (config.data.about["real"].access, config.data.about["real"].licence) == ("gated", None)
    pools = load_pools(config, lambda line: None)
    assert (len(pools.real), len(pools.tests["in_domain"]), pools.pairs) == (12, 6, None)
    assert np.isfinite(pools.matrix).all()


def test_llavaguard(tmp_path: Path) -> None:
    folder = tmp_path / "llavaguard"
    folder.mkdir()
    for split in ("train", "test"):
        lines = ["id,url,rating,category,policy"]
        for k in range(4):
            (folder / f"{split}{k}.png").write_bytes(png(k))
            lines.append(f'{split}_{k},{split}{k}.png,{["Safe", "Unsafe"][k % 2]},"O{k}: Some, thing",the default')
        lines.append(f'{split}_4,{split}1.png,Safe,"O1: Some, thing",another')
        (folder / f"{split}.csv").write_text("\n".join(lines))
    config = settings("llavaguard", f"data.real.path={folder}")
    found = sources(config.data)
    real = found["real"].records()
    assert real.ids.tolist() == [f"train_{k}" for k in range(5)]
    assert real.labels.tolist() == [0, 1, 0, 1, 0]
    assert real.groups[1] == real.groups[4] == "train1.png"
    assert [shade(found["in_domain"].image(i)) for i in range(5)] == [0, 1, 2, 3, 1]
    one = settings("llavaguard", f"data.real.path={folder}", "+data.real.where={policy: the default}")
    assert len(sources(one.data)["in_domain"].records()) == 4


def test_safeeditbench(unsafebench: Path, tmp_path: Path) -> None:
    """Three pairs under two policies; under L2 the third is safe on both sides, and so no pair."""
    rows = [(policy, k, edited) for policy in (0, 1) for k in range(3) for edited in (False, True)]
    columns = {
        "image": [hub_image(10 * k + edited) for _, k, edited in rows],
        "image_path": [f"test_images/{k}{'_edited' if edited else ''}.jpg" for _, k, edited in rows],
        "safety_label": [int(not edited and not (policy == 1 and k == 2)) for policy, k, edited in rows],
        "policy_name": [policy for policy, _, _ in rows],
        "policy": ["text"] * len(rows),
    }
    labels = {"safety_label": ["safe", "unsafe"], "policy_name": POLICIES}
    write_hub_parquet(tmp_path / "edits" / "data" / "test-00000-of-00001.parquet", columns, labels)
    given = [
        f"data.real.path={unsafebench}",
        f"data.pairs.path={tmp_path / 'edits'}",
        f"cache_dir={tmp_path / 'cache'}",
    ]
    config = settings("safeeditbench", *given)
    source = sources(config.data)["pairs"]
    records = source.records()
    assert records.pair_ids.tolist() == [f"test_images/{k}.jpg" for k in (0, 0, 1, 1)]
    assert records.labels.tolist() == [1, 0, 1, 0]
    assert records.edited.tolist() == [False, True, False, True]
    assert [shade(source.image(i)) for i in range(4)] == [0, 1, 10, 11]
    other = sources(settings("safeeditbench", *given, "data.pairs.where.policy_name=Policy L1").data)["pairs"]
    assert len(other.records()) == 6
    assert sorted(config.data.about) == ["in_domain", "pairs", "real"]
    pools = load_pools(config, lambda line: None)
    assert pools.pairs is not None
    assert (len(pools.pairs), len(pools.tests["counterfactual"])) == (2, 2)


def test_coprov2(unsafebench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row an image, each naming the files of its pair; the safe one is jpg_0 where label_0 is 1."""
    pairs = [("s0.png", "u0.png", 1), ("u1.png", "s1.png", 0), ("s2.png", "u2.png", 1)]
    shades = {"s0.png": 0, "u0.png": 100, "s1.png": 1, "u1.png": 101, "s2.png": 2}  # u2.png is missing
    rows = [(name, pair) for pair in pairs for name in pair[:2] if name in shades]
    columns = {
        "image": [hub_image(shades[name], name) for name, _ in rows],
        "jpg_0": [f"images/{pair[0]}" for _, pair in rows],
        "jpg_1": [f"images/{pair[1]}" for _, pair in rows],
        "label_0": [pair[2] for _, pair in rows],
        "caption": ["a grey square"] * len(rows),
    }
    write_hub_parquet(tmp_path / "copro" / "data" / "train-00000-of-00001.parquet", columns)
    config = settings("coprov2", f"data.real.path={unsafebench}", f"data.pairs.path={tmp_path / 'copro'}")
    source = sources(config.data)["pairs"]
    records = source.records()
    assert [shade(source.image(i)) for i in range(len(records))] == [0, 100, 1, 101]
    assert records.labels.tolist() == [0, 1, 0, 1]
    assert records.pair_ids[0] == records.pair_ids[1] != records.pair_ids[2]
    assert set(records.sources) == {"coprov2"}
    assert "1 of 3 pairs of the data set" in capsys.readouterr().err
    assert config.data.about["pairs"].licence == "mit"


@pytest.mark.parametrize("name", ["webdataset", "parquet_images", "hugging_face"])
def test_your_own(name: str, unsafebench: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    columns = "+data.real.columns={label: safety_label}"
    own = {
        "webdataset": [f"data.real.path='{tmp_path / 'shards'}/{{00000..00002}}.tar'"],
        "parquet_images": [f"data.real.path='{unsafebench}/data/train-*'", columns],
        "hugging_face": [f"data.real.path={unsafebench}", "data.real.name=x", "data.real.split=train", columns],
    }[name]
    real = sources(settings(name, *own).data)["real"]
    assert len(real.records()) == 12
    assert [shade(real.image(i)) for i in (0, 7)] == [0, 7]


def test_access_is_open_or_gated() -> None:
    with pytest.raises(ConfigError, match="access is 'secret'; allowed: open, gated"):
        settings("unsafebench", "data.about.real.access=secret")
    with pytest.raises(ConfigError, match=r"licens"):
        settings("unsafebench", "+data.about.real.license=mit")
