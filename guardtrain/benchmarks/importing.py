"""Import a published guard: read its files, find its encoder, and write it as a guard's directory of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from guardtrain.benchmarks.import_card import write_import_card
from guardtrain.benchmarks.kinds import Kind, OwnClassifier, Read, not_finite
from guardtrain.benchmarks.published import PublishedGuard, spec_for
from guardtrain.encoders.resolved import local_path, versions
from guardtrain.encoders.spec import EncoderSettings, EncoderSpec
from guardtrain.errors import EncoderError, GuardError
from guardtrain.files import file_sha256
from guardtrain.guards.calibration import Identity
from guardtrain.guards.calibration_choice import Calibration
from guardtrain.guards.directory import move_into_place, new_folder, write_config
from guardtrain.guards.guard import Guard
from guardtrain.guards.head_file import write_bank
from guardtrain.guards.logits import head_logits
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints
from guardtrain.guards.reliability import Estimate, Reliability
from guardtrain.guards.thresholds_rates import Rate
from guardtrain.guards.thresholds_rules import Rule
from guardtrain.installing import install_line

if TYPE_CHECKING:
    from guardtrain.heads.bank import HeadBank

POINT = "published"
TOLERANCE = 1e-5  # of probabilities: our heads compute in float32
_PROBED = 256  # drawn embeddings that the written guard is compared on


@dataclass(frozen=True, eq=False)
class Imported:
    """A published guard that was written as a directory, loaded again and compared with its original.

    Args:
        guard: as loaded.
        published: the original.
        difference: the largest of probabilities, on drawn embeddings.
    """

    guard: Guard
    published: PublishedGuard
    difference: float

    @property
    def agreement(self) -> str:
        """How far the guard is from what, in words."""
        return f"{self.difference:.0e} in probability between the guard and {compared_with(self.published)}"


def read_published(
    kind: Kind, path: str | Path, *, spec: EncoderSpec | None = None, encoder: EncoderSettings | None = None
) -> PublishedGuard:
    """A published guard from its authors' own files.

    Args:
        kind: which; see `guardtrain.benchmarks.kinds`.
        path: the file, or a folder for kinds of several; `pkg://package/file` is inside an installed package.
        spec: the encoder whose embeddings it is to read, such as a store's; None to find it by `encoder`.
        encoder: see `guardtrain.benchmarks.published.spec_for`.

    Raises:
        GuardError: files that are not of this kind, damaged, or hold more than numbers.
        EncoderError: an encoder that is none, or gives embeddings of another length or norm.
    """
    path = _found(str(path))
    read = kind.read(path)
    if not_finite(read.scorer):
        raise GuardError(f"{path} holds a head that gives no finite number; the file is damaged.")
    named = encoder if encoder is not None and (encoder.model or encoder.checkpoint) else None
    known = named.normalize if spec is None and named else spec.normalize if spec else None
    normalize, assumed = _norm(kind, read, known)
    if spec is None:
        spec = spec_for(read.scorer, normalize, named or read.encoder, read.hint)
        if isinstance(kind, OwnClassifier) and named is None:
            assumed = (f"the encoder is {spec.label}; encoder=… where it is another", *assumed)
    elif spec.normalize is not None and spec.normalize != normalize:
        raise EncoderError(
            f"The guard {read.name} reads {_NORMS[normalize]}; {spec.label} has normalize={spec.normalize}."
        )
    elif spec.dim is not None and spec.dim != read.scorer.dim:
        raise EncoderError(f"{read.name} reads embeddings of {read.scorer.dim} numbers; {spec.label} gives {spec.dim}.")
    files = {file.name: file_sha256(file) for file in read.files}
    origin = replace(kind.origin, judges=read.judges) if read.judges else kind.origin
    return PublishedGuard(
        read.name, spec, read.scorer, origin, files, read.classes, (*read.assumed, *assumed), read.original
    )


_NORMS = {True: "embeddings of unit norm", False: "the encoder's features as they are"}
_LENGTH_TOLERANCE = 0.02  # of 1, where a scaler was fitted on embeddings of unit norm


def _norm(kind: Kind, read: Read, known: bool | None) -> tuple[bool, tuple[str, ...]]:
    """Whether the head reads embeddings of unit norm, and what of that was taken for granted.

    Args:
        known: what is said of the encoder; None where nothing is.

    Raises:
        GuardError: the file shows that it is not as the config says.
    """
    unit = None if read.length is None else abs(read.length - 1) <= _LENGTH_TOLERANCE
    if kind.normalize is None and unit is not None:
        return unit, ()
    if unit is not None and kind.normalize != unit:
        raise GuardError(
            f"kind.normalize={str(kind.normalize).lower()} says that {read.name} reads {_NORMS[bool(kind.normalize)]}, "
            f"but its scaler was fitted on embeddings of length {read.length:.3g}. Leave kind.normalize out."
        )
    if kind.normalize is not None:
        return kind.normalize, ()
    normalize = True if known is None else known
    said = "as the encoder's config has it; " if known is not None else ""
    other = str(not normalize).lower()
    return normalize, (f"it reads {_NORMS[normalize]}; {said}kind.normalize={other} where it does not",)


def compared_with(published: PublishedGuard) -> str:
    """Say what an imported guard is compared with."""
    if published.original is not None:
        return f"{published.original.what}, on {_PROBED} drawn embeddings"
    return (
        f"guardtrain's own reading of the file in float64, on {_PROBED} drawn embeddings; the program of its authors "
        "was not run"
    )


def _found(path: str) -> Path:
    """Where a file lies; raises GuardError where it comes with a package that is not installed."""
    try:
        return local_path(path)
    except EncoderError as error:
        package = path.partition("://")[2].partition("/")[0]
        raise GuardError(
            f"The file {path} comes with the package {package}, which is not installed: {install_line(package)}."
        ) from error


def save_published(
    out: Path,
    published: PublishedGuard,
    *,
    name: str | None = None,
    onnx: bool | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Write a published guard as a directory that `Guard.load` reads; a guard that was there is replaced.

    It has one operating point, `published`, at the threshold of its authors. Nothing was measured on it: its rates are
    those of no images, and its probabilities are not calibrated.

    Args:
        out: the directory.
        published: the guard.
        name: what it is called; None for its own name.
        onnx: write `head.onnx`; None where the packages are installed.
        say: tells the user what takes its time.

    Raises:
        GuardError: no head of ours computes it, something else lies at `out`, onnx is missing, or the guard that was
            written gives other probabilities than the original (by more than 1e-5).
    """
    from guardtrain.guards.onnx_export import onnx_wanted

    onnx = onnx_wanted(onnx, say)
    published = replace(published, name=name or published.name)
    bank, definition = published.scorer.head()
    bank = bank.requires_grad_(False)
    probes = _probes(published)
    folder = new_folder(out)
    trusted = [str(definition["_target_"])]
    try:
        write_bank(folder, bank, definition, Identity().to_dict())
        agreements = []
        if onnx:
            from guardtrain.guards.programs import export_head

            say("exporting head.onnx")
            agreements = [export_head(folder, bank, Identity(), probes).to_dict()]
        content = _content(published, bank, dict(definition), agreements)
        write_import_card(folder, published, content)
        write_config(folder, content)
        difference = _difference(Guard.load(folder, trusted_heads=trusted), published, probes)
        if not difference <= TOLERANCE:
            raise GuardError(
                f"The guard that was written differs from {published.name} by {difference:.1e} in probability, more "
                f"than {TOLERANCE:.0e} ({compared_with(published)}). It is not kept; its weights may be too large for "
                "float32."
            )
        move_into_place(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Imported(Guard.load(out, trusted_heads=trusted), published, difference)


def _content(
    published: PublishedGuard, bank: HeadBank, definition: dict[str, Any], agreements: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what `config.json` holds."""
    origin = published.origin
    nothing = Rate.measured(0, 0)
    note = "The threshold of its authors; it was not chosen on validation images, and no rate of it is known."
    point = OperatingPoint(POINT, Rule("cost", 1.0), 0.0, nothing, nothing, nothing, None, (), (note,))
    calibration = Calibration(Identity(), "log_loss", (), _unmeasured(), _unmeasured(), 0)
    return {
        "guardtrain": versions("guardtrain").get("guardtrain", "unknown"),
        "name": published.name,
        "licence": origin.licence,
        "encoder": {**published.spec.to_dict(), "fingerprint": published.spec.fingerprint},
        "head": definition,
        "dim": bank.dim,
        "calibration": calibration.to_dict(),
        "operating_points": OperatingPoints((point,)).to_dict(),
        "category_points": {},
        "taxonomy": {"name": "unsafebench" if origin.categories else None, "categories": list(origin.categories)},
        "training": {"data": "published", "head": published.name, "paper": origin.paper, "url": origin.url},
        "tests": [],
        "validation": {"origin": "none", "is_test": False, "images": 0, "unsafe": 0, "groups": 0},
        "data": {},
        "imported": {
            "judges": origin.judges,
            "files": dict(published.files),
            "classes": published.classes,
            "assumed": list(published.assumed),
            "compared_with": compared_with(published),
        },
        "agreement": agreements,
        "notes": [note, *(f"Taken for granted: {one}." for one in published.assumed), *origin.notes],
        "versions": versions("torch", "numpy", "onnx", "onnxruntime", "safetensors", "open_clip_torch"),
    }


def _unmeasured() -> Reliability:
    """The reliability on no images: null, for no number would be true."""
    none = Estimate(*[cast(float, None)] * 3)
    return Reliability(none, none, none, none, none, none, 0, 0, 0, 0.95)


def _probes(published: PublishedGuard) -> np.ndarray:
    """(n, D) float32 drawn embeddings, of unit norm or of a length like CLIP's."""
    rows = np.random.default_rng(0).normal(size=(_PROBED, published.dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows if published.spec.normalize is not False else 10 * rows).astype(np.float32)


def _difference(guard: Guard, published: PublishedGuard, probes: np.ndarray) -> float:
    found = guard.calibrator.probabilities(head_logits(guard.bank, probes))
    original = published.probabilities if published.original is None else published.original.probabilities
    difference = np.abs(found - original(probes.astype(np.float64)))
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")
