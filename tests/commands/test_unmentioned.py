"""Every setting that a target or the schema has can be given, whatever the YAML files happen to mention; no other."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout

import pytest
import yaml
from hydra import compose, initialize_config_dir

from guardtrain.cli import main
from guardtrain.config import SCHEMAS, conf_dir, register_schemas
from guardtrain.config_checks import settable


def shown(*arguments: str) -> dict:
    """The config that a command composes, as `--cfg job` shows it."""
    text = io.StringIO()
    with redirect_stdout(text):
        assert main([*arguments, "--cfg", "job"]) == 0
    return yaml.safe_load(text.getvalue())


PATHS = ["data=manifest", "data.real.path=a.csv", "data.pairs.path=b.csv"]


def test_a_test_set_is_held_out_by_split() -> None:
    config = shown("curve", *PATHS, "data.test.in_domain={hold_out: real, split: test}")
    assert config["data"]["test"] == {
        "counterfactual": {"hold_out": "pairs", "fraction": 0.5},
        "in_domain": {"hold_out": "real", "split": "test"},  # in place of the fraction that the file has
    }
    other = shown(
        "curve",
        *PATHS,
        "data.test.in_domain={hold_out: real, groups: 9}",
        "data.test.mine={hold_out: pairs, groups: 3}",
    )
    assert other["data"]["test"]["in_domain"] == {"hold_out": "real", "groups": 9}
    assert other["data"]["test"]["mine"] == {"hold_out": "pairs", "groups": 3}
    own = "{_target_: guardtrain.sources.ManifestSource, path: c.csv}"
    replaced = shown("curve", *PATHS, f"data.test.in_domain={own}")
    assert replaced["data"]["test"]["in_domain"] == {"_target_": "guardtrain.sources.ManifestSource", "path": "c.csv"}
    again = shown("curve", "data.real={path: c.csv, _target_: guardtrain.sources.ManifestSource}")
    assert again["data"]["real"] == {"_target_": "guardtrain.sources.ManifestSource", "path": "c.csv"}


def test_what_is_added_needs_no_plus() -> None:
    real = shown("curve", "data=llavaguard", "data.real.where={policy: x}")["data"]["real"]
    assert real["where"] == {"policy": "x"}
    assert real["labels"].items() >= {"Safe": 0, "Unsafe": 1}.items()
    config = shown("curve", *PATHS, "data.real.where.category=fire", "data.about.real.licence=mit", "head.name=mine")
    assert config["data"]["real"]["where"] == {"category": "fire"}
    assert config["data"]["about"] == {"real": {"licence": "mit"}}
    assert config["head"]["name"] == "mine"
    assert shown("curve", "data.real.size=32")["data"]["real"]["size"] == 32
    assert shown("benchmark", "guards=[a]", "data=b", "categories.mine=[x]")["categories"] == {"mine": ["x"]}
    assert shown("store", "filter", "path=a", "out=b", "where.kind=fire")["where"] == {"kind": "fire"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.real.sise=32"], "no setting 'data.real.sise'. Did you mean 'size'? Allowed here: pool, n, seed"),
        (["data.real.size.x=32"], "data.real.size"),
        (["data.nothing=1"], "'data.nothing'. Allowed here: name, real, pairs, test, hold_out_seed, swapped, about."),
        ([*PATHS, "data.test.in_domain={hold_out: real, spilt: test}"], "no setting 'data.test.in_domain.spilt'"),
        (["data=manifest", "data.test.in_domain.split=test", "data.real.path=a", "data.pairs.path=b"],
         "it has fraction, split. Give all of it: 'data.test.in_domain={hold_out: real, split: …}'"),
        (["head=mlp", "head.hiden=[3]"], "no setting 'head.hiden'"),
        (["head.hidden=[3]"], "no setting 'head.hidden': head holds several (mlp, linear, knn), and"),
        (["colour=red"], "no setting 'colour'"),
        (["grid.budgetz=[1]"], "no setting 'grid.budgetz'. Did you mean 'budgets'?"),
    ],
)  # fmt: skip
def test_what_there_is_not_stays_an_error(run: Callable[..., str], arguments: list[str], message: str) -> None:
    assert message in run("curve", *arguments, code=2)


def test_the_schema_and_the_target_decide() -> None:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("curve", ["data=manifest", "head=mlp"])
    for key, wanted in {
        "data.real.where": True, "data.real.where.x": True, "data.real.labels.0.5": True, "data.real.wher": False,
        "data.test.new": True, "data.test.in_domain.split": True, "data.test.in_domain.splits": False,
        "data.about.real.url": True, "head.dropout": True, "head.dropouts": False, "grid.budgets": True,
        "grid.budget": False, "nothing": False, "out.x": False, "data.name.x": False,
    }.items():  # fmt: skip
        assert settable(SCHEMAS["curve"], config, key) is wanted, key
    own = compose_with({"_target_": "fractions.Fraction"})
    assert settable(SCHEMAS["curve"], own, "head.numerator")
    assert not settable(SCHEMAS["curve"], own, "head.numerater")
    assert not settable(SCHEMAS["curve"], compose_with({"_target_": "nowhere.Head"}), "head.x")


def compose_with(head: dict[str, str]) -> object:
    """A config with this head."""
    from omegaconf import OmegaConf

    return OmegaConf.create({"head": head})
