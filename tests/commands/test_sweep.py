from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from guardtrain.cli import main
from guardtrain.commands.job import DONE, FAILED, OUTCOME_FILE, Outcome, is_done
from guardtrain.commands.sweep import _fit_to_machine, _given
from guardtrain.config import conf_dir, register_schemas
from guardtrain.curves.results import ResultsTable
from guardtrain.installing import install_line
from tests.commands.conftest import SMALL_DATA

pytestmark = pytest.mark.long
FIXED = [*SMALL_DATA, "guard=false", "selection=fixed", "logger=none", "trainer.threads=1"]
SWEEP = ["train", "-m", "mixture.budget=16,32,64", *FIXED]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """Four jobs, one of which fails: a folder lies where its head is to be described."""
    folder = tmp_path_factory.mktemp("sweep")
    named = ",".join(sorted([*(one for one in FIXED if not one.startswith("logger")), "mixture.budget=48"]))
    (folder / named.replace("guard=false", "guard=False") / "head.json").mkdir(parents=True)
    assert main(["train", "-m", "mixture.budget=16,32,64,48", *FIXED, f"out={folder}"]) == 2
    return folder


def _job(folder: Path, words: str) -> Path:
    return next(path for path in folder.iterdir() if words in path.name)


def _again(swept: Path, tmp_path: Path) -> Path:
    """A copy with its times of change: its jobs note other paths, so they are noted anew."""
    folder = tmp_path / "sweep"
    shutil.copytree(swept, folder)
    for file in folder.glob(f"*/{OUTCOME_FILE}"):
        file.write_text(file.read_text().replace(str(swept), str(folder)))
    return folder


def test_a_failed_job_stops_no_other_and_is_listed_with_its_log(
    run: Callable[..., str], swept: Path, tmp_path: Path
) -> None:
    folder = _again(swept, tmp_path)
    for budget in (16, 32):
        assert (_job(folder, f"budget={budget}") / "head.safetensors").is_file()
    text = run("train", "-m", "mixture.budget=16,32,48", *FIXED, f"out={folder}", code=2)
    log = _job(folder, "budget=48") / "train.log"
    assert "0 done, 2 skipped, 1 failed" in text
    reason = next(line for line in text.splitlines() if line.strip().startswith(str(log)))
    assert reason.partition(": ")[2] in log.read_text()
    assert f"Is a directory: '{log.parent}/head.json'" in reason
    # one that there are too few images for is none of those that failed
    text = run("train", "-m", "mixture.budget=16,90000", *FIXED, f"out={folder}", code=2)
    assert "left out: mixture.budget=90000: The real pool has 400 images" in text
    assert "0 done, 1 skipped, 0 failed, 1 left out: there are too few images for them" in text
    text = run("train", "-m", "mixture.budget=9000,90000", *FIXED, f"out={folder}", code=2)
    assert "There are too few images for this. The real pool has 400 images; budget 9000 at ratio 0.5" in text


def test_only_what_is_missing_or_changed_is_done_again(run: Callable[..., str], swept: Path, tmp_path: Path) -> None:
    folder = _again(swept, tmp_path)
    both = ["train", "-m", "mixture.budget=16,32", f"out={folder}"]
    assert "0 done, 2 skipped, 0 failed" in run(*both, *FIXED, "logger=csv", "memory_gb=1")  # neither changes a result
    # a job that was cut off
    note = _job(folder, "budget=32") / OUTCOME_FILE
    note.write_text(note.read_text().replace('"done"', '"running"'))
    assert "1 done, 1 skipped, 0 failed" in run(*both, *FIXED)
    # a folder that is named for the budget alone: what is in it decides
    same = ["train", "-m", "mixture.budget=16", f"out={folder}", *FIXED, "hydra.sweep.subdir=of-${mixture.budget}"]
    assert "1 done, 0 skipped, 0 failed" in run(*same)
    assert "1 done, 0 skipped, 0 failed" in run(*same, "loss.l2=0.5")


def test_a_sweep_knows_its_jobs_are_done_without_torch(swept: Path, cache_dir: Path) -> None:
    code = (
        "import sys; from guardtrain.cli import main; "
        f"code = main({['train', '-m', 'mixture.budget=16,32', *FIXED, f'out={swept}']!r}); "
        "assert code == 0, code; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 done, 2 skipped, 0 failed" in done.stdout


@pytest.mark.apart
def test_killed_under_joblib_and_started_again_it_equals_one_after_the_other(
    run: Callable[..., str], swept: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    parallel = [*SWEEP, "out=cut", "hydra/launcher=processes", "hydra.launcher.n_jobs=2"]
    # leading a group of its own, for no process of it to outlive the test
    process = subprocess.Popen(
        [sys.executable, "-m", "guardtrain.cli", *parallel], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith(DONE))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        text = run(*SWEEP, "out=cut")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    counts = next(line for line in text.splitlines() if "skipped" in line)
    done, skipped, failed = (int(word.split()[0]) for word in counts.partition("   ")[0].split(", "))
    assert (done + skipped, failed) == (3, 0)
    assert skipped >= 1
    heads = {path.parent.name: path.read_bytes() for path in swept.glob("*/head.safetensors")}
    assert len(heads) == 3
    assert heads == {path.parent.name: path.read_bytes() for path in Path("cut").glob("*/head.safetensors")}
    for name in heads:
        whole, cut = (ResultsTable(Path(out, name, "results.parquet")).read() for out in (swept, "cut"))
        assert whole.drop(columns="seconds").equals(cut.drop(columns="seconds"))


def test_what_refers_to_a_setting_that_is_swept_is_each_jobs_own() -> None:
    """`embed -m source.seed=0,1 'out=stores/${source.seed}'` makes two stores, not one of the default's name."""
    about = {"sweeper": {"params": {"a": "${source.seed}"}}, "overrides": {"task": ["out=stores/${source.seed}"]}}
    config = OmegaConf.create({"source": {"seed": 0}, "hydra": about})
    assert _given(config) == ["a=${source.seed}", "out=stores/${source.seed}"]


def test_two_at_once_in_one_folder_are_refused(run: Callable[..., str]) -> None:
    from filelock import FileLock

    Path("taken").mkdir()
    with FileLock("taken/.sweep.lock"):
        assert "Another process is running a sweep in taken" in run(*SWEEP, "out=taken", code=2)


@pytest.mark.parametrize("change", ["status", "key", "gone", "replaced", "rows"])
def test_what_counts_as_done(tmp_path: Path, change: str) -> None:
    head = tmp_path / "head.json"
    head.write_text("{}")
    state = [head.stat().st_size, head.stat().st_mtime_ns]
    outcome = Outcome("k", "s", status=DONE, files={str(head): state})
    outcome.write(tmp_path)
    assert is_done(tmp_path, "k")
    if change == "status":
        outcome.status = FAILED
    elif change == "gone":
        head.unlink()
    elif change == "replaced":
        head.write_text("{ }")
    elif change == "rows":  # jobs may share a table, which only grows: of the three that were there one is lost
        outcome.files[str(tmp_path / "results.parquet")] = [3]
        outcome.write(tmp_path)
        for rows, done in ((3, True), (4, True), (2, False)):
            pq.write_table(pa.table({"run": ["r"] * rows}), tmp_path / "results.parquet")
            assert is_done(tmp_path, "k") == done
    outcome.write(tmp_path)
    assert not is_done(tmp_path, "other" if change == "key" else "k")


@pytest.mark.parametrize("command", ["train", "finetune"])
@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "hydra/launcher").glob("*.yaml")))
def test_presets_fit_their_launchers_and_ask_for_a_gpu_where_one_is_used(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugins' own schemas check each setting."""
    plugin = {"processes": "joblib", "slurm": "submitit", "slurm_local": "submitit"}.get(name, "ray")
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command, [f"hydra/launcher={name}"], return_hydra_config=True)
    target = str(config.hydra.launcher._target_)
    assert target.startswith(f"hydra_plugins.hydra_{plugin}_launcher")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    _, at_once, _, gpus = _fit_to_machine(command, config, 9)
    launcher = config.hydra.launcher
    encodes = int(command == "finetune")  # what train needs is embedded before its jobs
    if name == "ray_local":
        assert launcher.ray.remote.num_gpus == 1
    elif name == "ray_cluster":
        assert (launcher.ray.remote.num_gpus, gpus) == (encodes, ())  # the cluster hands them out
        launcher.ray.init.setdefault("object_store_memory", 1)  # as the plugin does
        assert launcher.ray.init.object_store_memory is None  # Ray takes none for a cluster that is there
    elif name == "slurm":
        assert (launcher.gpus_per_node or 0, gpus) == (encodes, ())
    else:  # as many at once as there are
        assert (at_once if name == "slurm_local" else launcher.n_jobs, gpus) == (2, ("4", "7"))


def test_each_process_takes_a_gpu_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys; from guardtrain.commands.job import Job; "
        "Job('train', 's', {}, gpus=('4', '7'), locks=sys.argv[1])._take_gpu(); "
        "print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        assert {one.stdout.readline().strip() for one in both} == {"4", "7"}
    finally:
        for one in both:
            one.communicate()


def test_a_launcher_that_is_not_installed_is_named(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardtrain.commands.sweep.find_spec", lambda _: None)
    assert install_line("ray") in run(*SWEEP, "hydra/launcher=ray_local", code=2)


def test_the_study_of_encoders_ends_in_one_table_of_what_pairs_are_worth(run: Callable[..., str]) -> None:
    """Two ways to read the embedded encoder stand for two encoders: one name, so their fingerprints tell them apart."""
    small = ["grid.budgets=[16,64]", "grid.seeds=2", "head=linear", *SMALL_DATA, "plot.figures=[]", "out=both"]
    told = run("curve", "-m", "experiment=encoders", "encoder.normalize=true,false", *small)
    assert "2 done, 0 skipped, 0 failed" in told and "guardtrain results both" in told
    assert "in one figure" not in told, "no figure mixes encoders"
    ranked, _, worth = run("results", "both").partition("What pairs are worth with each encoder: AUROC")
    assert "encoder.normalize" in ranked, "each run is known with its settings"
    for n in (64, 16):
        assert f"  n = {n}\n" in worth
    encoders = {line.split()[1] for line in worth.splitlines() if line.strip()[:2] in ("1 ", "2 ")}
    assert len(encoders) == 2 and "demo" not in encoders
    assert "over seeds and test images that hold for all gains" in worth
