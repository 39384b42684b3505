"""What resolving an encoder's settings comes to, and what every family needs for it: paths and versions."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import EncoderError

_PACKAGE_SCHEME = "pkg://"


@dataclass(frozen=True)
class Resolved:
    """A spec, and where on this machine its weights lie (None where they are still to be downloaded)."""

    spec: EncoderSpec
    config_folder: Path | None
    weights: Path | None


def local_path(path: str) -> Path:
    """A checkpoint setting as a path; `pkg://package/folder` is looked up in the installed package."""
    if not path.startswith(_PACKAGE_SCHEME):
        return Path(path).expanduser()
    package, _, inside = path[len(_PACKAGE_SCHEME) :].partition("/")
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise EncoderError(f"encoder.checkpoint={path}: there is no installed package '{package}'.")
    return Path(next(iter(found.submodule_search_locations))) / inside


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, for information."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
