"""The options that help and TAB offer are those that a command can run."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from guardtrain.commands.completion import completions
from guardtrain.commands.experiments import experiments_of, misplaced_experiment
from guardtrain.commands.help import command_help
from guardtrain.commands.options import options_of
from guardtrain.config import conf_dir, register_schemas

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


def test_an_experiment_is_offered_where_it_composes_and_nowhere_else() -> None:
    """Hydra refuses the others (`tests/test_config.py` composes those that fit); the message says what there is."""
    offered = {command: experiments_of(command) for command in ("curve", "finetune", "train")}
    assert sorted(offered["curve"] + offered["finetune"]) == EXPERIMENTS
    assert offered["train"] == []
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for command, owner, name in (("curve", "finetune", "perspectivevision_lora"), ("finetune", "curve", "masks")):
            assert name in offered[owner]
            with pytest.raises(ConfigCompositionException):
                compose(command, [f"experiment={name}"])
            text = misplaced_experiment(command, [f"experiment={name}"])
            assert f"experiment={name} is one of `guardtrain {owner}`" in text
            assert all(other in text for other in offered[command])
    assert misplaced_experiment("curve", ["experiment=masks"]) == ""
    assert "there is no experiment 'mask'" in misplaced_experiment("finetune", ["experiment=mask"])


def test_what_a_command_refuses_is_not_offered() -> None:
    for command, group, refused in (
        ("finetune", "encoder", {"precomputed", "nudenet"}),
        ("finetune", "data", {"arrays", "cars", "food101", "masks", "stores"}),
        ("attack", "data", {"arrays", "cars", "food101", "masks", "stores"}),
        ("train", "data", set()),
    ):
        every = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
        assert every - {path.stem for path in options_of(command, group)} == refused
    text = command_help("finetune", "about", whole=True)
    listed = text.partition("\n  experiment\n")[2]
    assert "perspectivevision_lora" in listed
    assert "masks" not in listed
    assert completions("guardtrain finetune experiment=") == ["experiment=perspectivevision_lora"]
    assert completions("guardtrain finetune encoder=p") == []
