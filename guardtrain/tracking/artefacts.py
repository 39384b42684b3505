"""What goes into a run and what comes out of it, as trackers keep it: stores, heads, results, guards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardtrain.curves.folder import CURVE_FILE, RESULTS_FILE
from guardtrain.embeddings.checksums import CHECKSUMS_FOLDER
from guardtrain.embeddings.rows import StoredRows
from guardtrain.embeddings.shards import MATRIX_FOLDER, METADATA_FOLDER
from guardtrain.embeddings.store import ENCODER_FILE, Embeddings
from guardtrain.heads.artifact import DESCRIPTION, WEIGHTS
from guardtrain.training.pools import Pools

STORE, HEAD, RESULTS, GUARD = "store", "head", "results", "guard"


@dataclass(frozen=True)
class Artefact:
    """Files of one kind, and what is known of them.

    Args:
        name: letters, digits, `-`, `_` and `.`.
        kind: `store`, `head`, `results` or `guard`.
        about: plain data: encoder's fingerprint, digests, licences.
        files: content by name; what a tracker copies.
        folder: where the rest of it lies, and stays.
        references: what there is named, by name; a tracker copies none of it.
    """

    name: str
    kind: str
    about: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    folder: Path | None = None
    references: Mapping[str, Path] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Return it as plain data, for trackers that know no artefacts."""
        where = {} if self.folder is None else {"folder": self.folder.absolute().as_uri()}
        return {"name": self.name, "kind": self.kind, **where, **self.about}


def named(*parts: str) -> str:
    """A name that every tracker takes.

    >>> named("my data", "real")
    'my-data-real'
    """
    return re.sub(r"[^\w.-]+", "-", "-".join(parts), flags=re.ASCII).strip("-")[:128] or "unnamed"


def store_artefacts(pools: Pools, about: Mapping[str, Mapping[str, Any]]) -> list[Artefact]:
    """The stores that pools and test sets were read from, each once.

    Of a store the encoder's spec and the checksums are copied; its embeddings and records are named, and no image is
    even that. Embeddings that come from elsewhere are described by digests alone.

    Args:
        pools: as they were loaded.
        about: origin and licence of each source by its name, as plain data.
    """
    places: dict[str, Embeddings | None] = {"real": pools.real, "pairs": pools.pairs, **pools.tests}
    found: dict[Path | str, tuple[str, list[str]]] = {}
    for place, part in places.items():
        if part is not None:
            found.setdefault(_folder(part) or place, (place, []))[1].append(place)
    out = []
    for where, (place, shared) in found.items():
        part = places[place]
        assert part is not None
        origin = next((about[name] for name in shared if name in about), {})
        known = {
            "data": pools.name,
            "places": shared,
            "encoder": pools.spec.label,
            "encoder_fingerprint": pools.spec.fingerprint,
            "records": len(part),
            "records_digest": part.records.digest(),
            "licence": origin.get("licence"),
            "origin": origin.get("url"),
        }
        name = named(pools.name, place, "store")
        if not isinstance(where, Path):
            out.append(Artefact(name, STORE, known))
            continue
        sums = sorted((where / CHECKSUMS_FOLDER).glob("*.sha256"))
        kept = [path for path in (where / ENCODER_FILE, *sums) if path.is_file()]
        files = {path.relative_to(where).as_posix(): path for path in kept}
        shards = {part: where / part for part in (MATRIX_FOLDER, METADATA_FOLDER)}
        out.append(Artefact(name, STORE, known, files, where, shards))
    return out


def _folder(part: Embeddings) -> Path | None:
    matrix = part.matrix
    if not isinstance(matrix, StoredRows) or not matrix.files:
        return None
    return matrix.files[0].path.parent.parent


def head_artefact(folder: Path, pools: Pools) -> Artefact:
    """The head that `guardtrain train` left in `folder`."""
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    about = {name: description.get(name) for name in ("run", "head", "mixture", "chosen")}
    files = {name: folder / name for name in (WEIGHTS, DESCRIPTION)}
    return Artefact(named(pools.name, "head"), HEAD, {**about, **_data(pools)}, files)


def results_artefact(folder: Path, pools: Pools) -> Artefact:
    """The results table of a curve."""
    kept = [path for path in (folder / RESULTS_FILE, folder / CURVE_FILE) if path.is_file()]
    return Artefact(named(pools.name, "results"), RESULTS, _data(pools), {path.name: path for path in kept})


def guard_artefact(folder: Path, pools: Pools | None = None) -> Artefact:
    """A guard's directory; `about` has its digest, the encoder's fingerprint and the licences."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    training = config.get("training") or {}
    about = {
        "guard_sha256": config.get("sha256"),
        "encoder_fingerprint": config["encoder"]["fingerprint"],
        "run": training.get("run"),
        "licence": config.get("licence"),
        "data_licences": {name: origin.get("licence") for name, origin in (config.get("data") or {}).items()},
        "tests": config.get("tests"),
        **({} if pools is None else _data(pools)),
    }
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return Artefact(named(str(config.get("name") or folder.name)), GUARD, about, files)


def _data(pools: Pools) -> dict[str, Any]:
    return {
        "data": pools.name,
        "data_digest": pools.digest,
        "encoder": pools.spec.label,
        "encoder_fingerprint": pools.spec.fingerprint,
    }
