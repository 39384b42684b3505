from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from omegaconf import OmegaConf

from guardtrain.commands import slurm
from guardtrain.commands.job import DONE, RUNNING, Job, Outcome


@dataclass(frozen=True)
class Submitted:
    job_id: str


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files `1`, `2`, … are what a `squeue` on the path answers in turn; the last one from then on."""
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
        echo asked >> {tmp_path}/asked
        turn=$(wc -l < {tmp_path}/asked)
        while [ ! -e {tmp_path}/$turn ]; do turn=$((turn - 1)); done
        grep -q refused {tmp_path}/$turn && {{ cat {tmp_path}/$turn >&2; exit 1; }}
        cat {tmp_path}/$turn
        """
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(slurm, "_ASK_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(slurm, "_LATE_SECONDS", 0.0)
    return tmp_path


def _answers(queue: Path, *texts: str) -> None:
    for turn, text in enumerate(texts, start=1):
        (queue / str(turn)).write_text(text.replace(", ", "\n") + "\n")


def _follow(queue: Path, ends: dict[int, int], jobs: int = 2) -> tuple[dict[int, str], list[str]]:
    """What is lost and said of an array of jobs; `ends`: which note their end after how many questions to the queue."""
    lost: dict[int, str] = {}
    said: list[str] = []

    def asked() -> int:
        file = queue / "asked"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def ended(i: int) -> bool:
        return i in lost or asked() >= ends.get(i, 1000)

    slurm.follow([Submitted(f"7_{i}") for i in range(jobs)], ended, lost.__setitem__, said.append)
    return lost, said


@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "FAILED", "COMPLETED"])
def test_a_job_that_is_over_without_a_result_is_lost_and_said_why(queue: Path, state: str) -> None:
    _answers(queue, "7_0 RUNNING, 7_1 PENDING", f"7_0 RUNNING, 7_1 {state}")
    lost, said = _follow(queue, {0: 4})
    assert lost == {1: f"SLURM's job 7_1 left no result: {state}"}
    assert said == []


def test_a_job_that_the_queue_forgot_is_lost(queue: Path) -> None:
    _answers(queue, "7_0 RUNNING, 7_1 RUNNING, 17_1 RUNNING, 7_11 RUNNING", "7_0 RUNNING, 17_1 RUNNING, 7_11 RUNNING")
    lost, _ = _follow(queue, {0: 4})
    assert list(lost) == [1]
    assert "job 7_1 is gone" in lost[1]


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED", "SUSPENDED", "COMPLETING", "STATE_OF_A_LATER_RELEASE"])
def test_a_job_that_is_to_run_again_is_waited_for(queue: Path, state: str) -> None:
    _answers(queue, "7_0 RUNNING", f"7_0 {state}", f"7_0 {state}", "7_0 RUNNING")
    assert _follow(queue, {0: 5}, jobs=1) == ({}, [])


def test_an_end_that_is_seen_late_is_no_loss(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a network's file system the note of a job may be seen some seconds after SLURM says that it is over."""
    monkeypatch.setattr(slurm, "_LATE_SECONDS", 1000.0)
    _answers(queue, "7_0 COMPLETED")
    assert _follow(queue, {0: 5}, jobs=1) == ({}, [])


def test_a_queue_that_does_not_answer_says_nothing_about_jobs(queue: Path) -> None:
    refused = "squeue: error: connection refused"
    _answers(queue, refused, refused, refused, refused, "7_0 RUNNING, 7_1 CANCELLED")
    lost, said = _follow(queue, {0: 7})
    assert list(lost) == [1]
    (line,) = said
    assert refused in line


def test_an_interrupted_sweep_says_how_to_end_what_is_in_the_queue(queue: Path) -> None:
    said: list[str] = []

    def ended(i: int) -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slurm.follow([Submitted("7_0"), Submitted("7_1")], ended, lambda i, why: None, said.append)
    (line,) = said
    assert line.endswith("scancel 7")


@pytest.mark.parametrize("queued", [True, False])
def test_a_job_that_its_queue_ends_notes_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, queued: bool
) -> None:
    """It may be started again; what ends a process elsewhere is a job's own failure."""

    def run(config: Any) -> NoReturn:
        raise SystemExit(-1)

    monkeypatch.setattr("guardtrain.commands.train.run", run)
    if queued:
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    job = Job("train", "s", {})
    arguments = OmegaConf.create({}), tmp_path, "k", tmp_path / "train.log"
    caplog.set_level(logging.CRITICAL)
    if queued:
        with pytest.raises(SystemExit):
            job._work(*arguments)
    else:
        assert "SystemExit" in str(job._work(*arguments).error)
    noted = Outcome.read(tmp_path)
    assert noted is not None
    assert noted.status == RUNNING != DONE
