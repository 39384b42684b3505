"""`guardtrain doctor`: what is installed, which device works, where the caches are, and what is missing for what."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from guardtrain.installing import install_line

# What each optional part of the package is for.
EXTRAS = {
    "onnx": "head.onnx and guard.onnx in exported guards",
    "serve": "guardtrain serve",
    "docs": "the documentation as a site (`make docs`)",
    "heic": "HEIC photographs, as phones take them",
    "hf": "data sets of the Hugging Face hub (source=hugging_face)",
    "ray": "engine=ray, hydra/launcher=ray_local and ray_cluster",
    "joblib": "hydra/launcher=processes",
    "slurm": "hydra/launcher=slurm and slurm_local",
    "tune": "guardtrain tune",
    "lora": "guardtrain finetune",
    "sklearn": "guardtrain import-guard sklearn (skops files)",
    "nudenet": "guardtrain import-guard nudenet",
    "vlm": "vision-language models in guardtrain benchmark",
    "tracking": "logger=tensorboard, logger=mlflow",
    "s3": "images and tables at s3://",
    "interop": "stores checked with embedding-reader",
    "notebooks": "the notebooks",
    "dev": "the tests",
}
_SHOWN = ("torch", "torchvision", "lightning", "open_clip_torch", "timm", "numpy", "scikit-learn", "pyarrow", "wandb")
_LITTLE_DISK = 5 * 2**30
USAGE = "usage: guardtrain doctor      what is installed, which device works, where the caches are, what is missing"


def main(arguments: Sequence[str]) -> int:
    """Print the report.

    Returns:
        0; 2 where something is wrong that stops the framework as a whole, or where there are arguments.
    """
    from guardtrain.commands.terminal import show

    if arguments:
        wanted = arguments[0] in ("-h", "--help")
        print(USAGE, file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else 2
    wrong = broken()
    sections = [_versions(), _device(), _places(), _extras(), _problems(wrong)]
    show("\n\n".join("\n".join(section) for section in sections if section))
    return 2 if wrong else 0


def missing_of(extra: str | None) -> list[str]:
    """Requirements of an extra (None: of the package itself) that this environment does not meet, as pip writes them.

    >>> missing_of(None)
    []
    """
    found = []
    for line in requires("guardtrain") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is not None and not marker.evaluate({"extra": extra or ""}):
            continue
        if extra is not None and (marker is None or marker.evaluate({"extra": ""})):
            continue  # needed by everything
        try:
            met = requirement.specifier.contains(version(requirement.name), prereleases=True)
        except PackageNotFoundError:
            met = False
        if not met:
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def broken() -> list[str]:
    """List what stops guardtrain as a whole, each with what to do."""
    wrong = []
    if missing := missing_of(None):
        wrong.append(f"missing or too old: {', '.join(missing)}; {install_line()}")
    for name, folder in _folders().items():
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        if not os.access(nearest, os.W_OK):
            wrong.append(f"{folder} ({name}) cannot be written to; set {_VARIABLES[name]} to a folder that can")
    return wrong


_VARIABLES = {"embeddings": "GUARDTRAIN_CACHE", "hub": "HF_HOME"}


def _folders() -> dict[str, Path]:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(os.environ.get("GUARDTRAIN_CACHE", "~/.cache/guardtrain")).expanduser()
    return {"embeddings": cache, "hub": Path(HF_HUB_CACHE)}


def _versions() -> list[str]:
    from guardtrain.version import __version__

    shown = " · ".join(f"{name} {_version(name)}" for name in _SHOWN)
    return [
        f"guardtrain {__version__}",
        f"  Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"  {shown}",
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "–"


def _device() -> list[str]:
    import torch

    from guardtrain.embeddings.arithmetic import computes_bfloat16
    from guardtrain.embeddings.forwarding import processors
    from guardtrain.encoders.encoder import pick_device

    device = pick_device("auto")
    lines = ["device (encoder.device=auto)"]
    if device.type == "cuda":
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            lines.append(f"  cuda:{i}  {about.name}, {about.total_memory / 2**30:.0f} GiB")
    else:
        lines.append(f"  {device.type}: torch sees no GPU" if device.type == "cpu" else f"  {device.type}")
    quick = "computes bfloat16, half the time for large encoders" if computes_bfloat16(device) else "no fast bfloat16"
    lines.append(f"  {quick}; {processors()} processors for this process, {torch.get_num_threads()} torch threads")
    return lines


def _places() -> list[str]:
    lines = ["caches"]
    for name, folder in _folders().items():
        size = "empty" if not folder.is_dir() else _size(folder)
        free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
        little = ": little" if free < _LITTLE_DISK else ""
        lines.append(f"  {name:<11} {folder} ({_VARIABLES[name]}): {size}, {free / 2**30:.0f} GiB free{little}")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        lines.append("  HF_HUB_OFFLINE is set: nothing is downloaded, only what the hub's cache holds is found")
    mode = os.environ.get("WANDB_MODE") or ("online" if _wandb_key() else "offline: no key (wandb login)")
    lines.append(f"  W&B (logger=wandb): {mode}")
    return lines


def _wandb_key() -> bool:
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return bool(os.environ.get("WANDB_API_KEY")) or (netrc.is_file() and "api.wandb.ai" in netrc.read_text())


def _size(folder: Path) -> str:
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    total = sum(files)
    return f"{len(files):,} files, " + (f"{total / 2**30:.1f} GiB" if total >= 2**30 else f"{total / 2**20:.0f} MiB")


def _extras() -> list[str]:
    lines = ["optional parts"]
    for extra in metadata("guardtrain").get_all("Provides-Extra") or ():
        missing = missing_of(extra)
        lines.append(f"  {'–' if missing else '✓'} {extra:<11} {EXTRAS.get(extra, '')}")
        if missing:
            lines.append(f"      {install_line(extra)}      (missing: {', '.join(missing)})")
    return lines


def _problems(wrong: Sequence[str]) -> list[str]:
    return ["to mend", *[f"  {line}" for line in wrong]] if wrong else ["All that guardtrain needs is there."]
