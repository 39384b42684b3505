from __future__ import annotations

from pathlib import Path

import pytest

from guardtrain.embeddings.forwarding import processors
from tests.commands.own_modules import SOURCE
from tests.engines.conftest import OWN_SWEEP, SWEEP, Guardtrain, files, heads, own_heads_alone, rows, weights

pytestmark = pytest.mark.engines

# As an actor has: a model that shares out a pass of a few images over two threads rounds otherwise.
ONE_THREAD_A_WORKER = f"workers={processors()}"


@pytest.fixture
def guardtrain(tmp_path: Path) -> Guardtrain:
    """Commands in a folder of their own, which is the same one for both nodes."""
    return Guardtrain(tmp_path, {"RAY_USAGE_STATS_ENABLED": "0"})


def _nodes(address: str) -> list[str]:
    return [
        "hydra/launcher=ray_cluster",
        f"hydra.launcher.ray.init.address={address}",
        "hydra.launcher.ray.remote.num_cpus=1",
    ]


def test_two_nodes_make_the_store_of_one_process_byte_for_byte(
    guardtrain: Guardtrain, ray_nodes: str, tmp_path: Path
) -> None:
    source = ["source=scenes", "source.n=1000", "shard_size=64"]
    alone = guardtrain("embed", *source, ONE_THREAD_A_WORKER, "out=alone")
    both = guardtrain("embed", *source, "out=both", "engine=ray", f"engine.address={ray_nodes}", "engine.actors=2")
    print(alone, both, sep="\n")
    assert "1,000 embeddings" in both
    wanted = files(tmp_path / "alone")
    assert len([name for name in wanted if name.endswith(".npy")]) == 16
    assert files(tmp_path / "both") == wanted


def test_a_sweep_and_an_export_on_two_nodes_give_what_one_process_gives(
    guardtrain: Guardtrain, ray_nodes: str, tmp_path: Path
) -> None:
    sweep = ["train", "-m", "mixture.budget=64,128,256", *SWEEP, "guard=false", "hydra.sweep.subdir=${mixture.budget}"]
    guardtrain(*sweep, "out=alone")
    text = guardtrain(*sweep, f"out={tmp_path}/nodes", *_nodes(ray_nodes))
    assert "3 done, 0 skipped, 0 failed" in text
    assert rows(tmp_path / "nodes") == rows(tmp_path / "alone")
    assert heads(tmp_path / "nodes") == heads(tmp_path / "alone") != {}
    runs = f"run={tmp_path}/nodes/128,{tmp_path}/nodes/256"
    nodes = [*_nodes(ray_nodes), "hydra.launcher.ray.remote.num_gpus=0"]  # as for what runs an encoder on no GPU
    text = guardtrain("export", "-m", runs, f"hydra.sweep.dir={tmp_path}/exports", *nodes)
    assert "2 done, 0 skipped, 0 failed" in text
    for budget in ("128", "256"):
        guardtrain("export", f"run=alone/{budget}")
        made, wanted = (tmp_path / place / budget / "guard" for place in ("nodes", "alone"))
        assert sorted(files(made)) == sorted(files(wanted))
        assert weights(made) == weights(wanted)


def test_a_head_and_a_source_in_the_working_folder_are_found_on_the_nodes(
    guardtrain: Guardtrain, ray_nodes: str, tmp_path: Path
) -> None:
    wanted = own_heads_alone(guardtrain)
    text = guardtrain(*OWN_SWEEP, f"out={tmp_path}/own", *_nodes(ray_nodes))
    assert "2 done, 0 skipped, 0 failed" in text
    assert (heads(tmp_path / "own"), rows(tmp_path / "own")) == wanted
    (tmp_path / "own_squares.py").write_text(SOURCE)
    (tmp_path / "mine/source").mkdir()
    (tmp_path / "mine/source/ours.yaml").write_text("# ours\n_target_: own_squares.Squares\nn: 6\n")
    own = ["embed", "--config-dir", "mine", "source=ours", "shard_size=2"]
    guardtrain(*own, ONE_THREAD_A_WORKER, "out=alone")
    guardtrain(*own, "out=both", "engine=ray", f"engine.address={ray_nodes}", "engine.actors=2")
    assert files(tmp_path / "both") == files(tmp_path / "alone") != {}


def test_jobs_larger_than_the_nodes_say_that_they_wait(guardtrain: Guardtrain, ray_nodes: str, tmp_path: Path) -> None:
    sweep = ["train", "-m", "mixture.budget=64,128", *SWEEP, "guard=false", f"out={tmp_path}/large"]
    process = guardtrain.start(*sweep, *_nodes(ray_nodes)[:-1], "hydra.launcher.ray.remote.num_cpus=2")
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "has room" in line)
    finally:
        process.kill()
        process.communicate()
    assert line.startswith(
        "No machine of Ray has room for a job of 2 processors and 0 GPUs; the most is 1 and 0. Jobs wait"
    )
