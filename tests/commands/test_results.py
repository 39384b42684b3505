from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from scipy import stats

from guardtrain.cli import main
from guardtrain.curves.folder import keep_keys
from guardtrain.curves.results import ResultRow, ResultsTable
from tests.commands.conftest import SMALL_DATA

ROW = {
    "arm": "replace", "control": "paired", "budget": 128, "ratio": 0.5, "n_real": 64, "n_pair_images": 64,
    "n_images": 128, "slice_kind": "all", "slice": "all", "n_test": 100, "n_unsafe": 50, "lr": 0.0, "l2": 1.0,
    "steps": 1, "seconds": 0.5, "encoder": "f" * 64, "data": "scenes",
}  # fmt: skip


def _run(folder: Path, key: str, seed: int, auroc: float, head: str = "linear", **more: Any) -> None:
    rows = [
        {**ROW, "run": key, "seed": seed, "head": head, "test": "pairs", "n_pairs": 50, "auroc": auroc, **more},
        {**ROW, "run": key, "seed": seed, "head": head, "test": "alone", "n_pairs": 0, "auroc": 1 - auroc, **more},
    ]
    ResultsTable(folder / "results.parquet").append([ResultRow(**row) for row in rows])


def _trained(folder: Path, key: str, seed: int, auroc: float, l2: float, head: str = "linear") -> None:
    _run(folder, key, seed, auroc, head)
    (folder / ".hydra").mkdir()
    config = {"head": {"_target_": "a.Head"}, "loss": {"l2": l2, "class_weight": "none"}, "mixture": {"seed": seed}}
    config |= {"out": str(folder), "trainer": {"threads": seed}}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "head.json").write_text(json.dumps({"run": key}))
    (folder / "head.safetensors").write_bytes(b"")


WEAK, STRONG, MLP = [0.7, 0.72, 0.71], [0.8, 0.82, 0.87], [0.75, 0.76]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over penalties and seeds, a curve, and what else lies about."""
    place = tmp_path_factory.mktemp("runs")
    for l2, scores in ((0.1, WEAK), (1.0, STRONG)):
        for seed, auroc in enumerate(scores):
            _trained(place / f"sweep/l2={l2},seed={seed}", f"{seed}-{l2}", seed, auroc, l2)
    for seed, auroc in enumerate(MLP):
        _run(place / "curve", f"mlp-{seed}", seed, auroc, head="mlp")
    _run(place / "curve", "0-1.0", 0, STRONG[0])  # a run that the sweep has, too
    keep_keys(place / "curve", ["mlp-0", "mlp-1", "0-1.0"])
    (place / "damaged").mkdir()
    (place / "damaged/results.parquet").write_text("no table")
    for name, job in (("stopped", None), ("failed", {"status": "failed", "error": "no memory\nat all"})):
        (place / name / ".hydra").mkdir(parents=True)
        (place / name / ".hydra/config.yaml").write_text("head: [")
        (place / name / ".hydra/hydra.yaml").write_text("hydra: {job: {name: train}}")
        if job:
            (place / name / "job.json").write_text(json.dumps(job))
    (place / "foreign").mkdir()
    (place / "foreign/notes.txt").write_text("not a run")
    pd.DataFrame({"a": [1]}).to_parquet(place / "foreign/trials.parquet")
    return place


@pytest.fixture
def results(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def command(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        got = main(["results", str(folder), *arguments])
        captured = capsys.readouterr()
        assert got == code, captured.err
        return captured.out + captured.err

    return command


def _interval(values: Sequence[float]) -> str:
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return f"{np.mean(values):.3f}±{(high - low) / 2:.3f}".replace("0.", ".")


def test_runs_are_ranked_by_settings_with_intervals_over_seeds(folder: Path, results: Callable[..., str]) -> None:
    text = results()
    assert "8 runs in 7 folders" in text  # the one that is in two folders counts once
    lines = [line.split() for line in text.splitlines() if line.strip()[:2] in ("1 ", "2 ", "3 ")]
    assert [line[1:4] for line in lines] == [
        ["linear", "1", _interval(STRONG)],
        ["mlp", "–", _interval(MLP)],
        ["linear", "0.1", _interval(WEAK)],
    ]
    assert [line[-1] for line in lines] == ["3", "2", "3"]
    assert lines[0][4] == _interval([1 - value for value in STRONG])
    assert "loss.class_weight" not in text  # the same in all
    assert "threads" not in text  # it differs, and changes nothing
    command = shlex.split(text.splitlines()[-1].partition("as a guard: ")[2])
    assert command[:2] == ["guardtrain", "export"]  # it can be pasted, though the folder's name is no plain word
    assert OverridesParser.create().parse_override(command[2]).value() == f"{folder}/sweep/l2=1.0,seed=0"


def test_folders_without_runs_are_passed_over_with_a_reason(results: Callable[..., str]) -> None:
    text = results()
    for part in (
        "damaged: The results table",
        "stopped: no results yet: `guardtrain train` has not ended here",
        "failed: failed: no memory",
        "foreign: trials.parquet is not a table of `guardtrain tune`",
    ):
        assert part in text
    assert "at all" not in text


def test_filters_and_the_run_of_a_curve(folder: Path, results: Callable[..., str]) -> None:
    text = results("where={head: mlp}", "test=alone")
    assert "AUROC on 'alone' · 1 setting\n" in text
    assert f"guardtrain export run={folder}/curve pick.run=mlp-0" in text
    assert "loss.l2" not in results("where={loss.l2: 1.0}")
    assert "Did you mean head" in results("where={heads: mlp}", code=2)
    assert results("where={head: [mlp, 'knn?']}") == results("where={head: mlp}")
    assert "there are: alone, pairs" in results("test=none", code=2)
    assert "No run has a value of f1" in results("metric=f1", code=2)


def test_every_format_holds_what_was_found(tmp_path: Path, results: Callable[..., str]) -> None:
    for suffix in ("parquet", "csv", "jsonl", "md", "tex"):
        results(f"out={tmp_path}/table.{suffix}")
    frames = [
        pd.read_parquet(tmp_path / "table.parquet"),
        pd.read_csv(tmp_path / "table.csv"),
        pd.read_json(tmp_path / "table.jsonl", lines=True),
    ]
    for frame in frames:
        assert len(frame) == 16  # runs × test sets
        assert sorted(frame.loc[frame["test"] == "pairs", "auroc"]) == pytest.approx(sorted([*WEAK, *STRONG, *MLP]))
        assert sorted(frame["loss.l2"].dropna().unique()) == [0.1, 1.0]
    assert "| head linear, loss.l2 1 | 0.83 ± 0.09 |" in (tmp_path / "table.md").read_text()
    assert r"\toprule" in (tmp_path / "table.tex").read_text()
    assert "out is 'table.xls'" in results("out=table.xls", code=2)


def test_a_place_that_is_not_there_and_one_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main(["results", str(tmp_path)]) == 2
    assert "There are no runs in" in capsys.readouterr().err


def test_torch_is_not_loaded(folder: Path) -> None:
    code = f"import sys; from guardtrain.cli import main; main(['results', {str(folder)!r}]); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _configured(folder: Path, key: str, config: dict[str, Any], auroc: float = 0.8, **row: Any) -> None:
    """A run of `guardtrain train` with this config."""
    _run(folder, key, row.pop("seed", 0), auroc, **row)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"mixture": {"seed": 0}, **config}))
    (folder / "head.json").write_text(json.dumps({"run": key}))


def _ranked(text: str) -> list[list[str]]:
    """The cells of the ranked rows."""
    return [line.split() for line in text.splitlines() if re.match(r" +\d+  .*\d$", line)]


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`guardtrain results` on a folder of the test's own."""

    def command(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(["results", str(tmp_path), *arguments]) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    return command


def test_null_is_a_value_beside_others(tmp_path: Path, told: Callable[..., str]) -> None:
    for number, l2 in enumerate((None, 1.0, None)):
        _configured(tmp_path / str(number), f"run-{number}", {"loss": {"l2": l2}}, 0.7 + 0.1 * number, seed=number)
    text = told()
    assert [line[1] for line in _ranked(text)] == ["null", "1"]
    assert "2 settings" in text
    alone = told("where={loss.l2: null}")
    assert (len(_ranked(alone)), _ranked(alone)[0][-1]) == (1, "2")  # one setting, two seeds
    told(f"out={tmp_path}/all.parquet")
    assert sorted(pd.read_parquet(tmp_path / "all.parquet")["loss.l2"].dropna()) == [1.0, 1.0]  # numbers stay numbers


def test_a_reference_is_the_setting_it_refers_to(tmp_path: Path, told: Callable[..., str]) -> None:
    """As Hydra keeps a config, as OmegaConf resolves it, and with the data elsewhere: one setting, two seeds."""
    real = {"context": 0.9, "columns": {"label": "y"}, "path": "${data_dir}/real.csv"}
    test = {"context": "${data.real.context}", "columns": "${data.real.columns}", "name": "of ${data.name}"}
    kept = {"data": {"name": "a", "real": real, "test": {"pairs": test}}, "data_dir": "${oc.env:DATA,data}"}
    resolved = OmegaConf.to_container(OmegaConf.create({**kept, "data_dir": "/mnt/data"}), resolve=True)
    for number, config in enumerate((kept, resolved)):
        _configured(tmp_path / str(number), f"run-{number}", config, seed=number)
    text = told()
    assert "AUROC on 'pairs' · 1 setting\n" in text
    assert _ranked(text)[0][-1] == "2"
    told(f"out={tmp_path}/all.parquet")
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert set(frame["data.test.pairs.context"]) == {0.9}
    assert set(frame["data.test.pairs.columns.label"]) == {"y"}
    assert set(frame["data.test.pairs.name"]) == {"of a"}
    assert set(frame["data.real.path"]) == {"${data_dir}/real.csv"}


def test_what_is_in_no_ranking_is_counted_with_the_reason(tmp_path: Path, told: Callable[..., str]) -> None:
    _configured(tmp_path / "whole", "whole", {})
    _configured(tmp_path / "lacking", "lacking", {}, auroc=float("nan"))
    frame = ResultsTable(tmp_path / "whole/results.parquet").read()
    other = frame[frame["test"] == "alone"].assign(run="other")
    (tmp_path / "other").mkdir()
    ResultsTable(tmp_path / "other/results.parquet").append(other)
    text = told("test=pairs")
    assert "left out:\n  1 run: no test set 'pairs' (there are: alone)\n  1 run: no auroc on 'pairs'\n" in text
    assert len(_ranked(text)) == 1
    both = told()  # each by its own
    assert "left out:\n  1 run: no auroc on 'pairs'" in both
    assert "AUROC on 'pairs' of scenes" in both
    assert "AUROC on 'alone' of scenes" in both


def test_runs_are_ranked_with_those_that_the_same_images_judged(tmp_path: Path, told: Callable[..., str]) -> None:
    """Three data sets with an `alone` of their own, one of them in two sizes, and one setting of a test set."""

    def data(name: str, **test: Any) -> dict[str, Any]:
        return {"data": {"name": name, "real": {"path": "r"}, "test": {"alone": {"path": "t", **test}}}}

    runs = [
        ("a", data("a"), {"n_test": 100}),
        ("a2", data("a"), {"n_test": 100, "seed": 1}),
        ("large", data("a"), {"n_test": 200}),
        ("b", data("b"), {}),
        ("c", data("c", seed=0), {}),
        ("c2", data("c", seed=1), {}),
    ]
    for key, config, row in runs:
        _configured(tmp_path / key, key, config, data=config["data"]["name"], **row)
    text = told("test=alone")
    titles = [line.partition(" · ")[0] for line in text.splitlines() if line.startswith("AUROC")]
    assert titles == [
        "AUROC on 'alone' of a, 100 images",
        "AUROC on 'alone' of b",
        "AUROC on 'alone' of c, data.test.alone.seed 0",
        "AUROC on 'alone' of c, data.test.alone.seed 1",
        "AUROC on 'alone' of a, 200 images",
    ]
    assert [line[-1] for line in _ranked(text)] == ["2", "1", "1", "1", "1"]  # seeds
    assert text.count("the first as a guard: guardtrain export") + text.count("is no longer in") == 5
    assert "AUROC on 'alone' · 1 setting" in told("test=alone", "where={data: b}")
    told("test=alone", f"out={tmp_path}/table.md")
    assert (tmp_path / "table.md").read_text().count("ranked on 'alone' of") == 5


def test_a_control_is_no_guard_unless_there_is_nothing_else(tmp_path: Path, told: Callable[..., str]) -> None:
    for key, control, auroc in (("u", "unpaired", 0.9), ("p", "paired", 0.8), ("r", "real", 0.7)):
        _run(tmp_path, key, 0, auroc, ratio=0.5, control=control)
    best, command = told("test=pairs"), f"guardtrain export run={tmp_path} pick.run="
    assert [line[1] for line in _ranked(best)] == ["unpaired", "paired", "real"]
    assert f"the first that is no control as a guard: {command}p\n" in best
    named = told("test=pairs", "where={control: [real, unpaired]}")
    assert f"the first as a guard: {command}u\n" in named


def test_a_pool_that_a_test_set_is_held_out_of_makes_it(tmp_path: Path, told: Callable[..., str]) -> None:
    def data(real: str, pairs: str) -> dict[str, Any]:
        test = {"alone": {"hold_out": "real", "fraction": 0.3}}
        return {"data": {"name": "mine", "real": {"path": real}, "pairs": {"path": pairs}, "test": test}}

    for key, config in (("1", data("a", "p")), ("2", data("a", "q")), ("3", data("b", "p"))):
        _configured(tmp_path / key, key, config, data="mine")
    text = told("test=alone")
    titles = [line for line in text.splitlines() if line.startswith("AUROC")]
    assert titles == [
        "AUROC on 'alone' of mine, data.real.path 'a' · 2 settings",
        "AUROC on 'alone' of mine, data.real.path 'b' · 1 setting",
    ]


def test_runs_whose_settings_nobody_knows_are_with_those_of_their_counts(
    tmp_path: Path, told: Callable[..., str]
) -> None:
    config = {"data": {"name": "scenes", "test": {"pairs": {"n": 100}}}}
    _configured(tmp_path / "known", "known", config)
    _run(tmp_path / "curve", "older", 0, 0.7, head="mlp")
    assert "AUROC on 'pairs' · 2 settings" in told()
    _configured(tmp_path / "else", "else", {"data": {"name": "scenes", "test": {"pairs": {"n": 100, "seed": 1}}}})
    assert told().count("AUROC on 'pairs' of scenes") == 3  # it may be either of two


def test_a_sweep_is_no_unfinished_run(tmp_path: Path, told: Callable[..., str]) -> None:
    """A single run that was refused leaves its config where a sweep's jobs come below."""
    _configured(tmp_path / "sweep/seed=0", "run", {})
    (tmp_path / "sweep/.hydra").mkdir()
    (tmp_path / "sweep/.hydra/config.yaml").write_text("mixture: {}")
    (tmp_path / "sweep/.hydra/hydra.yaml").write_text("hydra: {job: {name: train}}")
    assert "passed over" in told()
    (tmp_path / "sweep/multirun.yaml").write_text("hydra: {}")
    assert "passed over" not in told()


def test_a_value_that_no_run_has_is_named(results: Callable[..., str]) -> None:
    text = results("where={head: [mlp, liner]}", code=2)
    assert "'head' of the runs is 'liner' in no row. Did you mean 'linear'? It holds 'linear', 'mlp'." in text


def test_a_run_that_was_refused_is_no_run_that_goes_on(
    tmp_path: Path, told: Callable[..., str], run: Callable[..., str]
) -> None:
    refused = run("train", *SMALL_DATA, "mixture.budget=9000", f"out={tmp_path}/refused", code=2)
    reason = "The real pool has 400 images; budget 9000 at ratio 0.5"
    assert reason in refused
    text = told(code=2)
    assert f"{tmp_path}/refused: failed: {reason}" in text
    assert "the same command goes on" not in text
    with (tmp_path / "refused/train.log").open("a") as log:
        log.write("[2026-01-01 00:00:00,000][guardtrain.commands.train][INFO] started again\n")
    assert "`guardtrain train` has not ended here; the same command goes on" in told(code=2)


def test_a_set_beside_that_is_not_the_same_in_all_runs_is_not_shown(tmp_path: Path, told: Callable[..., str]) -> None:
    for seed in (0, 1):
        test = {"pairs": {"n": 100}, "alone": {"n": 100, "seed": seed}}
        _configured(tmp_path / str(seed), f"run-{seed}", {"data": {"name": "scenes", "test": test}}, seed=seed)
    text = told()
    assert "left out:\n  'alone' beside 'pairs': there it is 2 different sets\n" in text
    assert "  data.test.alone.seed  pairs  seeds\n" in text


def test_a_curve_sweep_over_encoders_tells_them_by_name_and_what_pairs_are_worth(
    tmp_path: Path, told: Callable[..., str]
) -> None:
    """Its jobs share one table; each has a folder with its settings and the keys of its runs."""
    rng = np.random.default_rng(0)
    for name, gain in (("small", 0.2), ("large", 0.05)):
        keys = []
        for control in ("none", "paired"):
            for seed in range(4):
                keys.append(f"{name}-{control}-{seed}")
                auroc = 0.6 + gain * (control == "paired") + rng.normal(0, 0.005)
                ratio = 0.5 * (control == "paired")
                _run(tmp_path, keys[-1], seed, auroc, encoder=name[0] * 64, control=control, ratio=ratio)
        job = tmp_path / f"encoder={name}"
        (job / ".hydra").mkdir(parents=True)
        (job / "job.json").write_text('{"status": "done"}')
        keep_keys(job, keys)
        config = {"encoder": {"name": name, "family": name + "!"}, "data": {"name": "scenes"}}
        (job / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "multirun.yaml").write_text("hydra: {}")
    text = told()
    assert "16 runs in 1 folder" in text
    ranked, _, worth = text.partition("What pairs are worth with each encoder: AUROC on 'pairs'")
    assert "encoder.name" in ranked and "encoder.family" not in ranked and "s" * 12 not in ranked
    lines = [line.split() for line in worth.splitlines() if line.strip()[:2] in ("1 ", "2 ")]
    assert [line[1] for line in lines] == ["small", "large"]
    assert "small gains more than large: linear, n = 128, by .1" in worth
    assert "What pairs are worth" not in told("where={encoder.name: small}")
    assert "What pairs are worth" not in told("slice=all", "where={control: none}")
