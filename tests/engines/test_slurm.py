from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engines.conftest import (
    OWN_SWEEP,
    SWEEP,
    Guardtrain,
    files,
    heads,
    lines_with,
    own_heads_alone,
    rows,
    weights,
)
from tests.engines.daemons import wait_for
from tests.engines.slurm import Slurm

pytestmark = pytest.mark.engines
BUDGETS = (16, 32, 64, 128)
NOISE = ("sacct", "Bypassing", "srun", "Traceback", "bug in guardtrain")


@pytest.fixture
def guardtrain(tmp_path: Path, slurm: Slurm) -> Guardtrain:
    """Commands in a folder of their own, with this machine's SLURM."""
    return Guardtrain(tmp_path, {"SLURM_CONF": str(slurm.config)})


def _array(slurm: Slurm, tasks: int) -> str:
    """The id of the array that a sweep has just submitted."""
    found: list[str] = []

    def there() -> bool:
        names = [name for name in slurm.jobs() if "_" in name]
        found[:] = sorted({name.partition("_")[0] for name in names})
        return len(names) >= tasks

    wait_for(there, "the sweep's jobs to be in the queue", seconds=240)
    assert len(found) == 1
    return found[0]


def test_a_sweep_with_cancelled_and_requeued_jobs_ends_by_itself(
    guardtrain: Guardtrain, slurm: Slurm, tmp_path: Path
) -> None:
    """One job is cancelled while it runs, one while it waits; one is sent back by the queue, one is preempted."""
    budgets = ",".join(map(str, (*BUDGETS, 256)))
    sweep = ["train", "-m", f"mixture.budget={budgets}", *SWEEP, "guard=false"]
    alone = guardtrain(*sweep, "out=alone")
    assert "5 done, 0 skipped, 0 failed" in alone
    queued = [*sweep, "out=queued", "hydra/launcher=slurm", "hydra.sweep.subdir=${mixture.budget}"]
    process = guardtrain.start(*queued, "hydra.launcher.array_parallelism=2")
    try:
        array = _array(slurm, len(BUDGETS))
        folder = tmp_path / "queued"

        def job(place: int) -> str:
            return f"{array}_{place}"

        slurm.ask("scancel", job(4))
        wait_for(lambda: _note(folder / "16") == "running", "the first job to be at work")
        slurm.ask("scontrol", "requeue", job(0))
        wait_for(lambda: _note(folder / "32") == "running", "the second job to be at work")
        slurm.ask("scancel", job(1))
        wait_for(lambda: _note(folder / "64") == "running", "the third job to be at work")
        slurm.ask("scancel", "--signal=USR2", job(2))  # as a queue that preempts says it to submitit
        cancelled = time.monotonic()
        text, _ = process.communicate(timeout=300)
        ended = time.monotonic()
    finally:
        process.kill()
    assert process.returncode == 2, text
    assert "3 done, 0 skipped, 2 failed" in text
    assert lines_with(text, ["queued/32/train.log", job(1), "CANCELLED"]), text
    assert lines_with(text, ["queued/256/train.log", job(4), "cancelled"]), text
    for word in NOISE:
        assert word not in text
    for place in (0, 2):
        assert "Restarts=1 " in slurm.ask("scontrol", "show", "job", job(place))
    wanted = {str(_budget(name)): found for name, found in rows(tmp_path / "alone").items()}
    found = rows(folder)
    assert sorted(found) == ["128", "16", "64"]
    assert all(found[name] == wanted[name] for name in found)
    wanted_heads = {str(_budget(name)): head for name, head in heads(tmp_path / "alone").items()}
    assert {name: head == wanted_heads[name] for name, head in heads(folder).items()} == dict.fromkeys(found, True)
    print(f"\nended {ended - cancelled:.0f} s after the last job was sent back\n{text}")
    text = guardtrain(*queued)
    assert "2 done, 3 skipped, 0 failed" in text


def _note(folder: Path) -> str:
    with suppress(OSError, ValueError):
        return str(json.loads((folder / "job.json").read_text())["status"])
    return ""


def _budget(name: str) -> int:
    found = re.search(r"mixture\.budget=(\d+)", name)
    assert found is not None
    return int(found[1])


def test_an_extraction_and_exports_as_jobs_give_what_they_give_here(
    guardtrain: Guardtrain, slurm: Slurm, tmp_path: Path
) -> None:
    """No node has a GPU: commands that run an encoder are told so."""
    queue = ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=0", "hydra.launcher.array_parallelism=1"]
    for seed in (0, 1):
        guardtrain("embed", "source=scenes", "source.n=200", f"source.seed={seed}", f"out=here{seed}")
    embed = ["embed", "-m", "source=scenes", "source.n=200", "source.seed=0,1", "out=stores/${source.seed}"]
    text = guardtrain(*embed, "hydra.sweep.dir=jobs", *queue)
    assert "2 done, 0 skipped, 0 failed" in text
    for seed in (0, 1):
        made, wanted = (files(tmp_path / name) for name in (f"stores/{seed}", f"here{seed}"))
        assert {name: content for name, content in made.items() if name in wanted} == wanted
    guardtrain("train", "mixture.budget=64", *SWEEP, "guard=false", "out=run")
    guardtrain("export", "run=run", "out=here")
    text = guardtrain("export", "-m", "run=run", "out=a,b", "hydra.sweep.dir=exports", *queue)
    assert "2 done, 0 skipped, 0 failed" in text
    for name in ("a", "b"):
        assert weights(tmp_path / name) == weights(tmp_path / "here")


def test_a_node_without_a_gpu_that_is_asked_for_one_is_said_in_a_line(guardtrain: Guardtrain) -> None:
    gpu = ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=1"]
    text = guardtrain("train", "-m", "mixture.budget=64,128", *SWEEP, *gpu, code=2)
    assert lines_with(text, ["guardtrain train", "gres"]), text
    assert "Traceback" not in text


def test_a_head_in_the_working_folder_is_found_by_the_jobs(guardtrain: Guardtrain, tmp_path: Path) -> None:
    wanted = own_heads_alone(guardtrain)
    text = guardtrain(*OWN_SWEEP, "out=own", "hydra/launcher=slurm", "hydra.launcher.array_parallelism=2")
    assert "2 done, 0 skipped, 0 failed" in text
    assert (heads(tmp_path / "own"), rows(tmp_path / "own")) == wanted
