"""A user's own head and source, in the folder that commands are run in: that of the page on them, word for word."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardtrain import own_code
from guardtrain.commands.benchmark_data import _made_by
from guardtrain.commands.completion import completions
from guardtrain.commands.config_path import set_own_configs
from guardtrain.commands.job import Job
from guardtrain.embeddings import EmbeddingStore
from guardtrain.own_code import import_target, make_importable, own_folders
from tests.commands.conftest import SMALL_DATA
from tests.commands.own_modules import OWN_HEAD, SOURCE, write_own_head


@pytest.fixture(autouse=True)
def nothing_own_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No folder and module of one test is that of another."""
    monkeypatch.setattr(own_code._FINDER, "folders", [])
    before = set(sys.modules)
    yield
    set_own_configs(None)
    for module in own_code.own_modules():
        sys.modules.pop(module.__name__, None)
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    """The files that the page shows, under their names."""
    write_own_head(tmp_path)
    assert len((tmp_path / "my_head.py").read_text().splitlines()) < 35
    return tmp_path


def test_the_readmes_head_is_trained_exported_and_judges(run: Callable[..., str], readme: Path) -> None:
    own = [*OWN_HEAD, *SMALL_DATA, "mixture.budget=32", "optimizer.steps=20"]
    run("train", *own, "head.units=3", "guard=false", "selection=fixed", "out=made")
    run("export", "run=made", "onnx=false", "out=guard")
    content = json.loads(Path("guard/config.json").read_text())
    assert content["head"] == {"_target_": "my_head.TinyHead", "units": 3}
    assert 'trusted_heads=["my_head.TinyHead"]' in Path("guard/README.md").read_text()
    run("scenes", "n=4", "pool=test", "out=photos")
    refused = run("predict", "guard=guard", "photos", code=2)
    asked = re.search(r"'(trusted_heads=\S+)'", refused)
    assert asked, refused
    assert "images      4" in run("predict", "guard=guard", asked[1], "photos")


def test_help_completion_and_experiments_know_the_users_own_configs(run: Callable[..., str], readme: Path) -> None:
    Path("mine/encoder").mkdir()
    Path("mine/encoder/small.yaml").write_text("# ours\ncheckpoint: pkg://guardtrain/scenes/demo_encoder\n")
    assert "zero_shot" in run("train", "--help", "-cd=mine")
    assert re.search(r"head .*tiny,", " ".join(run("train", "--config-dir", "mine", "--help").split()))
    found = [word.strip() for word in completions("guardtrain train --config-dir mine head=ti")]
    assert found == ["head=tiny", "head=tip_adapter", "head=tip_adapter_f"]
    assert _made_by("small", "data.x").family == "open_clip"
    assert "tiny" not in run("train", "--help")
    between = run("train", "mixture.budget=7", "--config-dir", "mine", "head=tiny", "--cfg", "job", "guard=false")
    assert "budget: 7\n" in between and "guard: false\n" in between and "units: 4\n" in between


def test_a_job_in_another_process_finds_them(readme: Path) -> None:
    """As launchers start it: unpickled in a process of another folder."""
    make_importable([readme])
    job = pickle.dumps(Job("train", "s", {}, own=own_folders(), configs=readme / "mine"))
    code = (
        "import pickle, sys; job = pickle.loads(sys.stdin.buffer.read()); job.settle(); "
        "from guardtrain.own_code import import_target; from guardtrain.commands.config_path import option_files; "
        "print(import_target('my_head.TinyHead').__name__, [one.stem for one in option_files('head')])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=job, capture_output=True, cwd="/")
    assert done.stdout.decode().startswith("TinyHead "), done.stderr.decode()
    assert "'tiny'" in done.stdout.decode()


def _named(folder: Path, target: str) -> str:
    """A folder of configs with the source `ours`."""
    (folder / "mine/source").mkdir(parents=True)
    (folder / "mine/source/ours.yaml").write_text(f"# ours\n_target_: {target}\nn: 6\n")
    return str(folder / "mine")


def test_an_own_source_in_a_folder_without_init(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts/squares.py").write_text(SOURCE)
    named = ["--config-dir", _named(tmp_path, "own_parts.squares.Squares"), "source=ours", "source.n=4"]
    run("embed", *named, "out=store")
    assert len(EmbeddingStore.open("store")) == 4
    (tmp_path / "own_parts/lacking.py").write_text(SOURCE.replace("content_key", "key_of_content"))
    text = run("embed", *named, "source._target_=own_parts.lacking.Squares", "out=other", code=2)
    assert "source._target_ is own_parts.lacking.Squares, which has no content_key" in text


def test_an_exception_of_ones_own_is_no_bug_of_guardtrain(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "own_wrong.py").write_text(SOURCE.replace('return f"squares {self.n}"', "return self.nothing"))
    text = run("embed", "--config-dir", _named(tmp_path, "own_wrong.Squares"), "source=ours", "out=store", code=2)
    assert f"they lead to {tmp_path}/own_wrong.py, line 15, which is yours" in text
    assert "this is a bug in guardtrain" not in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_none.Head", "there is no module 'own_none': none is installed, and none lies in "),
        ("own_typo.Haed", r"own_typo.py\) has no 'Haed'. Did you mean 'Head'\?"),
        ("own_needs.Head", r"own_needs.py, line 2: ModuleNotFoundError: No module named 'own_absent'"),
        ("own_broken.Head", r"own_broken.py, line 1: SyntaxError"),
        ("own package.Head", r"has the form module.Class"),
        ("numpy.Head", r"numpy \(.*numpy.__init__.py\) has no 'Head'"),
    ],
)
def test_what_cannot_be_imported_is_named_with_its_line(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own_typo.py").write_text("class Head: ...")
    (tmp_path / "own_needs.py").write_text("import os\nimport own_absent")
    (tmp_path / "own_broken.py").write_text("class Head(:")
    (tmp_path / "numpy.py").write_text("class Head: ...")  # takes the place of no library
    make_importable([tmp_path])
    with pytest.raises(ImportError, match=message):
        import_target(name)


def test_a_folder_of_images_is_no_library(tmp_path: Path) -> None:
    """Commands look for optional libraries by name, and W&B itself makes a folder `wandb`."""
    from importlib.util import find_spec

    (tmp_path / "own_datasets").mkdir()
    make_importable([tmp_path])
    assert find_spec("own_datasets") is None


def test_guardtrain_is_a_module_that_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "guardtrain", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("guardtrain "), done.stderr
