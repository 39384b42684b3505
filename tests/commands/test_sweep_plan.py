from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from guardtrain.commands import sweep_progress
from guardtrain.commands.arguments import paths_as_they_are
from guardtrain.commands.job import DONE, FAILED, Outcome
from guardtrain.commands.sweep_plan import Planned, _Composer, folder_name, optional_settings, plan
from guardtrain.commands.sweep_progress import tell_failed
from guardtrain.config import SCHEMAS, conf_dir, register_schemas
from guardtrain.config_checks import typed
from guardtrain.errors import ConfigError, MixtureError
from tests.commands.conftest import SMALL_DATA

NO_IMAGES = ["data=manifest", "data.real.path=nowhere.csv", "data.pairs.path=nowhere.csv"]  # nothing is embedded


@pytest.fixture(scope="module")
def hydras() -> Any:
    """Hydra's loader and the config of a sweep of `train`."""
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("train", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)


def _plan(hydras: Any, *given: str) -> tuple[list[Planned], str]:
    lines: list[str] = []
    jobs, left_out = plan("train", *hydras, Path("out"), [*given, *NO_IMAGES], lines.append)
    assert not left_out
    return jobs, "\n".join(lines)


def test_that_no_job_has_begun_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_progress, "_ESTIMATE_SECONDS", 0.0)
    monkeypatch.setattr(sweep_progress, "_LOOK_SECONDS", 0.001)
    job, over, looks = Planned([], Path("a"), "seed=1", Path("a/train.log"), "k"), Event(), []

    def outcome_of(one: Planned) -> Outcome | None:
        looks.append(one)
        if len(looks) == 5:
            over.set()
        return Outcome("k", "s", DONE) if len(looks) > 5 else None

    with sweep_progress.Progress([job], outcome_of):
        assert over.wait(60)
    waited, done = capsys.readouterr().out.splitlines()
    assert waited == "no job has begun in 1 min: there is no room for one yet"
    assert done.endswith("1/1  seed=1")


@pytest.mark.parametrize(
    "overrides",
    [
        ["mixture.seed=3", "loss.l2=2", "guard=false"],
        ["head=mlp", "loss=bce", "head.hidden=[8,4]", "optimizer.lr=0.01", "++head.dropout=0.1"],
        ["data=manifest", "data.real.path=a.csv", "data.pairs.path=b.csv", "out=/x/y", "~data.test.in_domain"],
        ["mixture={budget: 64, ratio: 0}", "hydra.sweep.subdir=of-${mixture.budget}-${hydra.job.num}"],
    ],
)
def test_a_job_is_composed_as_hydra_does_it(hydras: Any, overrides: list[str]) -> None:
    loader, sweep = hydras
    found = _Composer("train", loader, sweep, ()).compose(overrides, 7)
    expected = loader.load_sweep_config(sweep, overrides)
    with open_dict(expected):
        expected.hydra.job.num = 7
    assert found.config.hydra.sweep.subdir == expected.hydra.sweep.subdir
    for config in (expected, found.config):
        with open_dict(config):
            del config["hydra"]
    assert OmegaConf.to_container(found.config) == OmegaConf.to_container(expected)
    assert found.settings == typed(expected, SCHEMAS["train"])


def test_settings_that_files_do_not_mention_are_added_in_each_job(hydras: Any) -> None:
    split = "data.test.in_domain={hold_out:real,split:test},{hold_out:real,groups:3}"
    jobs, _ = _plan(hydras, "data.real.where={kind:x}", split, "head=linear,mlp", "head.name=mine")
    assert len(jobs) == 4
    for job in jobs:
        assert "data.test.in_domain={hold_out:real," in job.label
        assert "+" not in job.folder.name
        assert "++data.real.where={kind:x}" in job.overrides
        at = job.overrides.index("data.test.in_domain=null")
        assert job.overrides[at + 1].startswith("++data.test.in_domain={hold_out:real,")
    loader, sweep = hydras  # as a job composes it
    config = loader.load_sweep_config(sweep, jobs[0].overrides)
    assert config.data.real.where == {"kind": "x"}
    assert config.data.test.in_domain == {"hold_out": "real", "split": "test"}
    assert config.head.name == "mine"
    assert len({job.key for job in jobs}) == 4


def test_a_setting_that_one_swept_option_alone_has_is_set_there(hydras: Any) -> None:
    jobs, said = _plan(hydras, "head=linear,mlp", "head.hidden=[8],[4]", "mixture.seed=0,1")
    assert len(jobs) == 6  # a linear head has no layers to differ in
    assert {tuple(text for text in job.overrides if text.startswith("head.hidden")) for job in jobs} == {
        (),
        ("head.hidden=[8]",),
        ("head.hidden=[4]",),
    }
    assert all(("head=mlp" in job.overrides) == ("head.hidden" in job.label) for job in jobs)
    assert len({job.folder for job in jobs}) == len({job.key for job in jobs}) == 6
    assert "head.hidden is set where there is one: 4 of 8 jobs have none" in said
    # a mistake stays one: no job has it, or the group is not swept
    with pytest.raises(ConfigError, match=r"No job of this sweep has the setting 'head.hiden'.*Did you mean 'hidden'"):
        _plan(hydras, "head=linear,mlp", "head.hiden=[8]")
    with pytest.raises(ConfigCompositionException, match=r"head\.hidden"):
        _plan(hydras, "head=linear", "head.hidden=[8]", "mixture.seed=0,1")
    assert optional_settings("curve", ["experiment=a,b", "head.k=3", "+head.x=1", "out=y"]) == ["head.k"]


def test_a_wrong_value_is_refused_before_anything_runs(hydras: Any) -> None:
    with pytest.raises(ConfigCompositionException, match=r"mixture\.ratio=much"):
        _plan(hydras, "mixture.ratio=0.5,much")


def test_jobs_that_there_are_too_few_images_for_are_known_before_anything_is_embedded(
    hydras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardtrain.commands.data.embed_source", None)
    loader, _ = hydras
    lines: list[str] = []

    def planned(command: str, *given: str) -> tuple[list[Planned], int]:
        sweep = loader.load_configuration(command, ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        return plan(command, loader, sweep, Path("out"), [*SMALL_DATA, *given], lines.append)

    jobs, left_out = planned("finetune", "mixture.budget=16,64,900", "mixture.seed=0,1")
    assert ([job.label for job in jobs][-1], left_out) == ("mixture.budget=64 mixture.seed=1", 2)
    said = "left out: mixture.budget=900 mixture.seed=0 and 1 more: The real pool has 400 images; budget 900 at ratio"
    assert next(line for line in lines if line.startswith(said)).endswith("The most that fits: mixture.budget=800")
    assert planned("finetune", "mixture.budget=800,900", "head=linear")[1] == 1
    with pytest.raises(MixtureError, match=r"too few .*The most at which all of it fits: grid\.budgets=\[16,200\]"):
        planned("curve", "grid.budgets=[16,400],[16,9000]", "grid.ratios=[0,0.5,1]", "grid.controls=[paired,unpaired]")


def test_each_search_of_a_sweep_has_its_own_folder(hydras: Any) -> None:
    loader, _ = hydras
    sweep = loader.load_configuration("tune", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    jobs, _ = plan("tune", loader, sweep, Path("out"), ["head=linear,mlp"], print)
    assert [job.overrides[-1] for job in jobs] == ["out='out/head=linear'", "out='out/head=mlp'"]


def test_a_folder_that_is_there_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep/n=64,seed=0").mkdir(parents=True)
    given = ["run=sweep/n=64,seed=0", "out=sweep/n=64,seed=1", "head=linear,mlp", "run='sweep/n=64,seed=0'", "~guard"]
    read = paths_as_they_are(given)
    assert read[1:] == given[1:]
    assert OverridesParser.create().parse_override(read[0]).value() == "sweep/n=64,seed=0"


def test_failed_jobs_are_listed_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = []
    for number in range(9):
        folder = tmp_path / f"seed={number}"
        folder.mkdir()
        reason = "no image at all" if number == 8 else "too few images\nand more of it"
        Outcome("k", "s", status=FAILED, error=reason).write(folder)
        jobs.append(Planned([], folder, f"seed={number}", folder / "train.log", "k"))
    tell_failed(tmp_path, jobs)
    text = capsys.readouterr().out
    assert "8 jobs: too few images\n" in text
    assert f"{jobs[8].log}: no image at all" in text
    assert "and 3 more" in text
    lines = (tmp_path / "failed.txt").read_text().splitlines()
    assert lines[0] == f"{jobs[0].log}\ttoo few images"
    assert len(lines) == 9
    tell_failed(tmp_path, [])
    assert not (tmp_path / "failed.txt").exists()


def test_a_folder_for_every_job_whatever_is_swept() -> None:
    assert folder_name("mixture.seed=3") == "mixture.seed=3"
    names = {folder_name(name) for name in ("a=/x/y", "a=-x-y", "b" * 300, "b" * 301)}
    assert len(names) == 4
    assert all("/" not in name and len(name.encode()) < 255 for name in names)
