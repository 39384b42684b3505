"""The wheel holds what the checkout has: installed outside it, a command runs on the embedded scenes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL_DATA

pytestmark = pytest.mark.long
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_ships_conf_the_demo_encoder_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    confs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml") if "local" not in path.parts}
    assert {f"guardtrain/{name}" for name in confs} <= set(names)
    assert {"guardtrain/scenes/demo_encoder/open_clip_model.safetensors", "guardtrain/py.typed"} <= set(names)
    assert not [name for name in names if not name.startswith(("guardtrain/", "guardtrain-"))]


@pytest.mark.apart
def test_an_empty_environment_outside_the_checkout_draws_a_curve(wheel: Path, tmp_path: Path) -> None:
    """A new environment without the checkout; the dependencies, minutes to install, are those of this one."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    site = next(venv.glob("lib/python*/site-packages"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # the dependencies follow after the wheel's own folder; the editable checkout is no plain folder there
    here = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    (site / "dependencies.pth").write_text(str(here))
    code = "import guardtrain, sys; from guardtrain.cli import main; print(guardtrain.__file__); sys.exit(main())"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    arguments = ["curve", *SMALL_DATA, "head=linear", "grid=small", "grid.budgets=[16,64]", "grid.seeds=1"]
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-c", code, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(str(site))
    assert (tmp_path / "outputs/curve/scenes/curve.png").is_file()
