"""The named experiments plan every run of theirs from their data, and compose with the real data they name."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from guardtrain.commands.data import sources_of
from guardtrain.config import SCHEMAS, CurveConfig, conf_dir, register_schemas
from guardtrain.config_checks import build, typed
from guardtrain.curves.grid import grid_points
from guardtrain.mixtures import Mixer, Pool

FILES = sorted((conf_dir() / "experiment").glob("*.yaml"))
CURVES = [path.stem for path in FILES if "mixture" not in yaml.safe_load(path.read_text())]
EMBEDDED = [name for name in CURVES if name not in ("fire", "masks")]  # those two have real data of their own
REAL = [(path.stem, data) for path in FILES for data in sorted(set(re.findall(r"\bdata=(\w+)", path.read_text())))]


def _composed(*overrides: str, command: str = "curve") -> DictConfig:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command, overrides=list(overrides))
        missing = sorted(OmegaConf.missing_keys(config))  # what the user must give: paths of their own data
        return compose(command, overrides=[*overrides, *(f"{name}=somewhere" for name in missing)])


@functools.cache  # most experiments draw from the same pools
def _pool(node: str, name: str) -> Pool:
    return Pool.from_records(build(yaml.safe_load(node), f"data.{name}").records(), name=name)


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_run_has_its_images(name: str) -> None:
    """No training: each point of the grid is drawn from the embedded pools."""
    settings = typed(_composed(f"experiment={name}"), CurveConfig)
    pools = [_pool(yaml.safe_dump(getattr(settings.data, part)), part) for part in ("real", "pairs")]
    mixer = Mixer(*pools)
    planned = [(point, point.mixture(mixer, settings.grid.rounding)) for point in grid_points(settings.grid)]
    assert len(planned) >= 2 * settings.grid.seeds
    for point, mixture in planned:
        on_top = round(point.budget * point.ratio) if point.arm == "add" else 0
        assert mixture.n_images == point.budget + on_top


@pytest.mark.parametrize(("name", "data"), REAL, ids=[f"{name}-{data}" for name, data in REAL])
def test_the_data_an_experiment_names_fit_it(name: str, data: str) -> None:
    """As its comment says: the same experiment, on the real set by one override."""
    command = "curve" if name in CURVES else "finetune"
    settings = typed(_composed(f"experiment={name}", f"data={data}", command=command), SCHEMAS[command])
    assert settings.data.name == data
    sources, tests = sources_of(settings.data)
    assert "real" in sources
    assert tests


def test_commands_in_comments_name_experiments_that_exist() -> None:
    named = {name for path in FILES for name in re.findall(r"\bexperiment=(\w+)", path.read_text())}
    assert named <= {path.stem for path in FILES}
    assert {"safetypairs_sample_efficiency", "few_shot_heads", "few_shot_text_heads", "policy_transfer"} <= named
    assert {"ratio_map", "encoders"} <= named & set(EMBEDDED)
    for path in Path(conf_dir() / "data").glob("*.yaml"):
        for name in re.findall(r"\bexperiment=(\w+)", path.read_text()):
            assert (conf_dir() / "experiment" / f"{name}.yaml").is_file()
