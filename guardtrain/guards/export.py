"""From a trained head and validation images to a guard's directory: calibrate, set thresholds, write, verify."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.embeddings.sketches import sketched
from guardtrain.encoders.resolved import versions
from guardtrain.errors import ConfigError, DataError, GuardError
from guardtrain.guards.base_rates import shift
from guardtrain.guards.beside import Beside, measured_beside
from guardtrain.guards.calibration_choice import Calibration, choose_calibration
from guardtrain.guards.card import write_card
from guardtrain.guards.category_fit import kept_categories, named_in
from guardtrain.guards.conformal import three_way
from guardtrain.guards.directory import KNOWN_IMAGES, NEIGHBOURS, move_into_place, new_folder, write_config
from guardtrain.guards.guard import Guard
from guardtrain.guards.head_file import portable_definition, write_bank
from guardtrain.guards.known_images import KnownImages
from guardtrain.guards.logits import head_logits
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints
from guardtrain.guards.parts import GuardParts, TrainedRun
from guardtrain.guards.settings import GuardSettings
from guardtrain.guards.thresholds import category_points, operating_points
from guardtrain.guards.validation import Validation

if TYPE_CHECKING:
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.guards.onnx_export import Agreement

_COMPARED = 512  # validation images that exported programs are compared on


@dataclass(frozen=True, eq=False)
class Exported:
    """A guard that was written, loaded again and found to be the same.

    Args:
        guard: as loaded.
        agreements: of the exported programs.
        notes: what the user should know.
    """

    guard: Guard
    agreements: tuple[Agreement, ...]
    notes: tuple[str, ...]


def export_guard(
    out: Path,
    run: TrainedRun,
    validation: Validation,
    settings: GuardSettings,
    *,
    others: Sequence[Validation] = (),
    encoder: Callable[[], Encoder] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Calibrate a head, set its thresholds and write it as a guard.

    Args:
        out: the guard's directory; a guard that is there is replaced, anything else is not.
        run: the head.
        validation: images that it was not trained on.
        settings: what decides.
        others: further images that it was not trained on, which decide nothing: the guard is measured on them beside.
        encoder: loads the run's encoder, for programs that take pixels.
        say: tells the user what takes its time.

    Raises:
        ConfigError: a rule that is none; DataError: validation without one of the classes.
        GuardError: something else lies at `out`, onnx is missing, or a program does not agree with the guard.
    """
    rules = settings.rules()
    logits = head_logits(run.bank, validation.embeddings)
    calibration = choose_calibration(
        logits,
        validation.labels,
        groups=validation.groups,
        kinds=settings.calibration.kinds,
        score=settings.calibration.score,
        folds=settings.calibration.folds,
        replicates=settings.calibration.replicates,
        seed=settings.seed,
    )
    calibration, prior = _for_prior(calibration, validation, settings.prior)
    review_wanted = settings.review.enabled
    default = "" if review_wanted else settings.default
    points = operating_points(logits, validation.labels, rules, groups=validation.groups, default=default)
    if review_wanted:
        given = {name: value for name, value in vars(settings.review).items() if name != "enabled"}
        review = three_way(logits, validation.labels, groups=validation.groups, **given)
        points = OperatingPoints((*points.points, review), settings.default)
    by_category, notes = _category_points(logits, validation, settings)
    if run.named is not None:
        named, told = kept_categories(*run.named, validation, settings)
    else:
        named, told = named_in(run.categorised, validation, settings)
    parts = GuardParts(run, calibration, prior, points, by_category, (*run.notes, *notes, *told), named)
    parts = replace(parts, beside=_beside(parts, validation, others, settings))
    return save_guard(out, parts, validation, settings, encoder=encoder, say=say)


def save_guard(
    out: Path,
    parts: GuardParts,
    validation: Validation,
    settings: GuardSettings,
    *,
    encoder: Callable[[], Encoder] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a guard into a directory beside `out`, load it, compare it with its parts, and make it `out`.

    Raises:
        GuardError: see `export_guard`.
    """
    settings = settings.with_packages(say)
    run, folder = parts.run, new_folder(out)
    try:
        definition = portable_definition(run.definition)
        write_bank(folder, run.bank, definition, parts.calibration.calibrator.to_dict(), parts.category_head)
        if settings.neighbours:
            if run.neighbours is None:
                raise GuardError("The training images of this run are not at hand: export with neighbours=false.")
            run.neighbours.write(folder / NEIGHBOURS)
        KnownImages(run.known, sketched([validation.embeddings])).write(folder / KNOWN_IMAGES)
        agreements = _programs(folder, parts, validation, settings, encoder, say)
        content = {
            "guardtrain": versions("guardtrain").get("guardtrain", "unknown"),
            "name": settings.name or _slug(run.training),
            "licence": settings.licence,
            "encoder": {**run.spec.to_dict(), "fingerprint": run.spec.fingerprint},
            "head": definition,
            "dim": run.bank.dim,
            "calibration": parts.calibration.to_dict(),
            "prior": parts.prior,
            "operating_points": parts.points.to_dict(),
            "category_points": {name: point.to_dict() for name, point in parts.category_points.items()},
            **({} if parts.categories is None else {"category_head": parts.categories.to_dict()}),
            "taxonomy": {"name": settings.taxonomy, "categories": list(run.categories)},
            "training": dict(run.training),
            "tests": [dict(test) for test in run.tests],
            "validation": {
                "origin": validation.origin,
                "is_test": validation.is_test,
                "images": len(validation.labels),
                "unsafe": int(validation.labels.sum()),
                "groups": len(np.unique(validation.groups)),
                "beside": [one.to_dict() for one in parts.beside],
            },
            "data": {name: dict(origin) for name, origin in run.data.items()},
            "agreement": [agreement.to_dict() for agreement in agreements],
            "notes": list(parts.notes),
            "versions": versions("torch", "numpy", "onnx", "onnxruntime", "safetensors", "open_clip_torch", "timm"),
            **run.further,
        }
        write_card(folder, parts, content)
        write_config(folder, content)
        _require_same(Guard.load(folder, trusted_heads=[str(definition.get("_target_"))]), parts, validation)
        move_into_place(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    guard = Guard.load(out, trusted_heads=[str(definition.get("_target_"))])
    return Exported(guard, tuple(agreements), parts.notes)


def _for_prior(
    calibration: Calibration, validation: Validation, prior: float | None
) -> tuple[Calibration, float | None]:
    """The calibration for a share of unsafe images, and that share; None for validation's, which it was fitted for.

    Where nothing was calibrated there is no such share: the head's own probabilities are for none that is known.

    Raises:
        DataError: nothing was calibrated, so that it is unknown for which share the probabilities hold.
    """
    share = float(validation.labels.mean())
    if prior is None:
        return calibration, share if calibration.folds else None
    if not calibration.folds:
        raise DataError(
            f"Validation has too few independent images to calibrate on ({validation.origin}), so that it is unknown "
            f"which share of unsafe images the probabilities hold for: prior={prior:g} cannot move them. Give more "
            "labelled images, two of either class at least, or leave prior out."
        )
    moved = calibration.calibrator.moved(shift(share, prior))
    return replace(calibration, calibrator=moved), prior


def _beside(
    parts: GuardParts, validation: Validation, others: Sequence[Validation], settings: GuardSettings
) -> tuple[Beside, ...]:
    return tuple(
        measured_beside(
            head_logits(parts.run.bank, one.embeddings),
            one,
            calibrator=parts.calibration.calibrator,
            prior=parts.prior,
            points=parts.points,
            category_points=parts.category_points,
            categories=parts.categories,
            replicates=settings.calibration.replicates,
            seed=settings.seed,
        )
        for one in others
    )


def _category_points(
    logits: np.ndarray, validation: Validation, settings: GuardSettings
) -> tuple[dict[str, OperatingPoint], tuple[str, ...]]:
    """Thresholds of the categories that validation can give one; the others are named in a note."""
    if not settings.category_points.enabled:
        return {}, ()
    rule = settings.category_points.rule(settings.prior)
    names = np.array(["" if name is None else str(name) for name in validation.categories])
    found: dict[str, OperatingPoint] = {}
    left = []
    if not (names != "").any():
        raise ConfigError("category_points is enabled, and no validation image has a category.")
    for name in sorted(set(names[names != ""].tolist())):
        own = (names == name) | (names == "")
        try:
            point = category_points(
                logits[own], validation.labels[own], names[own], rule, groups=validation.groups[own]
            )
        except DataError:
            left.append(name)
        else:
            found |= point
    note = f"Too few validation images for a threshold of their own: {', '.join(left)}."
    return found, (note,) if left else ()


def _programs(
    folder: Path,
    parts: GuardParts,
    validation: Validation,
    settings: GuardSettings,
    encoder: Callable[[], Encoder] | None,
    say: Callable[[str], None],
) -> list[Agreement]:
    """Write the programs that are asked for, each compared with the guard."""
    if not (settings.onnx or settings.whole or settings.program):
        return []
    from guardtrain.guards import programs

    calibrator = parts.calibration.calibrator
    rows = validation.embeddings[np.linspace(0, len(validation.labels) - 1, _COMPARED).round().astype(np.int64)]
    out = []
    if settings.onnx:
        say("exporting head.onnx")
        out.append(programs.export_head(folder, parts.run.bank, calibrator, rows))
        if parts.category_head is not None:
            out.append(programs.export_categories(folder, parts.category_head, rows))
    if settings.whole or settings.program:
        if encoder is None:
            raise GuardError(
                f"The encoder {parts.run.spec.label} cannot be loaded, only its embeddings are there: a program that "
                "takes pixels cannot be written. Export with whole=false program=false."
            )
        say("exporting the guard with its encoder (half a minute for a ViT-B/32, longer for larger ones)")
        out += programs.export_whole(
            folder,
            parts.run.bank,
            calibrator,
            encoder(),
            onnx=settings.whole,
            program=settings.program,
            categories=parts.category_head,
        )
    return out


def _slug(training: Mapping[str, Any]) -> str:
    """Return what a guard is called that has no name: data and head."""
    return re.sub(r"[^a-z0-9]+", "-", f"{training.get('data', 'guard')} {training.get('head', '')}".lower()).strip("-")


def _require_same(guard: Guard, parts: GuardParts, validation: Validation) -> None:
    """Raises GuardError unless the guard that was written has the numbers of its parts, and judges as they do."""
    own, written = parts.run.bank.head_state(0), guard.bank.head_state(0)
    same = own.keys() == written.keys() and all(own[name].equal(written[name]) for name in own)
    same &= guard.points == parts.points and guard.calibrator == parts.calibration.calibrator
    same &= _close(guard.logits(validation.embeddings), head_logits(parts.run.bank, validation.embeddings))
    if (head := parts.category_head) is not None:
        shares = guard.category_probabilities(validation.embeddings)
        same &= shares is not None and _close(shares, head.probabilities(validation.embeddings))
    if not same:
        raise GuardError(
            "The guard that was written gives other numbers than the head it was made from. It is not kept; please "
            "report this with the head's settings."
        )


def _close(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether two runs of one program differ by no more than rounding, which threads may do in another order."""
    return np.allclose(found, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))
