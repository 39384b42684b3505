from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guardtrain.imports import import_in_part, import_quickly

MODULES = {"Base": "heavy_toy.base", "__version__": "heavy_toy.about"}


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the package `heavy_toy`, whose `__init__` counts how often it runs and imports all there is."""
    folder = tmp_path / "heavy_toy"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "executions", [], raising=False)

    def write(asks: str = "_secret") -> None:
        files = {
            "__init__": "import sys\nsys.executions.append(1)\n_secret = 2\nfrom heavy_toy.about import __version__\n"
            "from heavy_toy.base import Base\nfrom heavy_toy.other import Other\n__all__ = ['Base', 'Other']",
            "about": "__version__ = '3'",
            "base": f"from heavy_toy import {asks} as asked\nclass Base: pass",
            "other": "from heavy_toy import Base\nclass Other(Base): pass",
        }
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "heavy_toy"]:
        del sys.modules[name]


def test_a_package_in_part_is_whole_when_it_is_asked_for(heavy: Callable[..., None]) -> None:
    heavy()
    import_in_part("heavy_toy", MODULES, {"_secret": 1})
    package = importlib.import_module("heavy_toy")
    assert (package.Base.__module__, package.__version__) == ("heavy_toy.base", "3")
    assert not hasattr(package, "__wrapped__")
    assert sys.executions == [] and "heavy_toy.other" not in sys.modules
    base = package.Base
    assert package.Other.__bases__ == (base,)
    assert package is sys.modules["heavy_toy"] and package.Base is base
    assert sys.executions == [1]
    assert package._secret == 2
    with pytest.raises(AttributeError):
        package.nothing  # noqa: B018
    assert sys.executions == [1]


@pytest.mark.parametrize(
    "ask", ["from heavy_toy import *", "import heavy_toy; dir(heavy_toy)", "import heavy_toy.other"]
)
def test_every_way_to_import_it_works(heavy: Callable[..., None], ask: str) -> None:
    heavy()
    import_in_part("heavy_toy", MODULES, {"_secret": 1})
    exec(ask, names := {})
    from heavy_toy import Base, Other

    assert issubclass(Other, Base)
    assert sys.executions == [1]
    assert "*" not in ask or names["Other"] is Other


@pytest.mark.parametrize(
    "ask", ["import heavy_toy.base", "from heavy_toy.other import Other", "import heavy_toy.about"]
)
def test_a_package_of_which_nothing_was_imported_is_whole_before_its_modules(
    heavy: Callable[..., None], ask: str
) -> None:
    heavy()
    finders = list(sys.meta_path)
    import_in_part("heavy_toy", {}, {"_secret": 1})
    from heavy_toy import _secret

    assert (_secret, sys.executions) == (1, [])
    exec(ask)
    package = importlib.import_module("heavy_toy")
    assert (package._secret, sys.executions, sys.meta_path) == (2, [1], finders)
    base = importlib.import_module("heavy_toy.base")
    assert package.Base is base.Base  # of one module, imported once
    assert base.__spec__ is not None and base.__spec__.origin is not None
    assert package.Other.__bases__ == (package.Base,)


def test_a_package_that_cannot_be_had_in_part_is_imported_as_ever(heavy: Callable[..., None]) -> None:
    heavy(asks="Other")  # which needs Base, which is being imported
    import_in_part("heavy_toy", MODULES, {})
    assert not [name for name in sys.modules if name.startswith("heavy_toy")]
    heavy()
    assert importlib.import_module("heavy_toy").Other
    import_in_part("heavy_toy", MODULES, {})  # it is there: nothing to do
    import_in_part("no_such_package", {}, {})


@pytest.mark.apart
def test_lightning_comes_without_what_training_does_not_need() -> None:
    code = (
        "import sys; from guardtrain.imports import import_quickly; import_quickly('lightning'); "
        "import guardtrain.training.fit, guardtrain.curves.engine; from lightning.pytorch.core.module import Metric; "
        "import torchmetrics; assert torchmetrics.Metric is Metric; print(*sys.modules); "
        # what was left out is there when it is asked for
        "import torch; assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(())) == 2; "
        "from torchmetrics.utilities.plot import plot_single_or_multi_val as plot; assert plot(torch.ones(()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "lightning.pytorch.trainer" in imported
    left_out = {"transformers", "peft", "torchvision", "scipy.signal", "sklearn", "onnxscript", "wandb", "matplotlib"}
    assert not imported & (left_out | {"torch._dynamo.eval_frame", "s3fs"})
    assert not done.stderr  # no complaints of leaks at the exit


def test_garbage_is_collected_again_afterwards(heavy: Callable[..., None]) -> None:
    heavy()
    assert gc.isenabled()
    import_quickly("heavy_toy", "json")
    assert gc.isenabled()
    assert sys.executions == [1]
    with pytest.raises(ModuleNotFoundError):
        import_quickly("no_such_package")
    assert gc.isenabled()
