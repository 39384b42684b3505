"""A guard in a few lines for the terminal: what was chosen, how reliable it is, its points and its files."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.encoders.spec import LOADABLE
from guardtrain.guards.base_rates import AtBaseRate, other_rates, told
from guardtrain.guards.beside import Beside
from guardtrain.guards.calibration import Calibrator
from guardtrain.guards.calibration_choice import Calibration
from guardtrain.guards.category_fit import category_line
from guardtrain.guards.guard import Guard
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints, ThreeWay
from guardtrain.guards.pixel_program import has_program
from guardtrain.guards.thresholds_rules import percent

WIDTH = 110
_UNMEASURED = "not measured: there were no validation images, so its probabilities are scores and no rate is known"


def summary_text(guard: Guard) -> str:
    """All of it; lines that are not indented are titles. Of an imported guard nothing was measured, and it says so."""
    said = guard.about.get("validation") or {"images": 0}
    facts = [f"{(guard.about.get('training') or {}).get('head', 'head')} on {guard.spec.label}, {guard.dim} dimensions"]
    if said["images"]:
        unsafe = f"{said['images']:,} images, {said['unsafe']:,} of them unsafe"
        facts.append(f"calibration and thresholds on {unsafe}: {said['origin']}")
    lines = [f"guard {guard.name}", *map(_wrapped, facts), f"calibration: {guard.calibration.kind}"]
    share = said["unsafe"] / said["images"] if said["images"] else float("nan")
    if said["images"]:
        lines += [*_table(_reliability(guard.calibration)), _wrapped(_holding(guard.prior, share))]
    else:
        lines.append(_wrapped(_UNMEASURED))
    lines += ["operating points", *_table(_two_way(guard.points, guard.calibrator, bool(said["images"])))]
    lines += [_wrapped(point.line) for point in guard.points.points if isinstance(point, ThreeWay)]
    if said["images"]:
        title = "precision where so many images are unsafe"
        lines += [title, *_table(_elsewhere(guard.points, other_rates(guard.prior, share)))]
    for one in (Beside.from_dict(data) for data in said.get("beside", ())):
        lines += [_wrapped(f"beside, on {one.images:,} images, {one.unsafe:,} of them unsafe: {one.origin}")]
        lines += _table(_beside(one))
    if guard.category_points:
        lines.append(_wrapped(f"thresholds of their own: {', '.join(guard.category_points)}"))
    if named := guard.about.get("category_head"):
        lines.append(_wrapped(f"names categories: {category_line(named)}"))
    warned = [f"{p.name}: {text}" for p in guard.points.points for text in (*map(str, p.warnings), *p.notes)]
    warned += beside_warnings(guard)
    notes = [text for text in guard.about.get("notes", ()) if not any(one.endswith(f": {text}") for one in warned)]
    if notes := list(dict.fromkeys([*warned, *notes])):
        lines += ["to know", *(_wrapped(note, hang="    ") for note in notes)]
    differences = {item["file"]: _difference(item) for item in guard.about.get("agreement", ())}
    files = [["config.json", _size(guard.path / "config.json"), ""]]
    files += [[name, _size(guard.path / name), differences.get(name, "")] for name in guard.about["files"]]
    return "\n".join([*lines, f"files in {guard.path}", *_table(files), *_judging(guard)])


def _judging(guard: Guard) -> list[str]:
    """How images are judged with it, and whether that starts at once."""
    if guard.spec.family not in LOADABLE:
        return []
    from guardtrain.grammar import setting

    command = shlex.join(["guardtrain", "predict", setting("guard", str(guard.path)), "photo.png"])
    how = "whole=true at the export adds guard.onnx, which judges a few images without waiting for torch"
    if has_program(guard.about, guard.spec):
        how = "guard.onnx judges a few images without waiting for torch"
    return ["to judge images", f"  {command}", _wrapped(how)]


def _difference(agreement: Mapping[str, Any]) -> str:
    text = f"{agreement['difference']:.0e} from the guard"
    if agreement["difference"] > agreement["tolerance"]:
        text += f" at a step of the calibration, logits {agreement['logit_difference']:.0e}"
    return text


def _reliability(calibration: Calibration) -> list[list[str]]:
    before, after = calibration.before, calibration.after
    return [
        ["", "before", "after", ""],
        ["calibration error", str(before.ece), str(after.ece), f"without chance (after: {after.chance})"],
        ["Brier score", str(before.brier), str(after.brier), ""],
        ["log-loss", str(before.log_loss), str(after.log_loss), ""],
    ]


def _two_way(points: OperatingPoints, calibrator: Calibrator, measured: bool) -> list[list[str]]:
    rows = [["", "chosen for", "logit", "p", "false positives", "recall", "precision"]]
    for point in points.points:
        if isinstance(point, OperatingPoint):
            mark = "*" if point.name == points.default else " "
            at = float(calibrator.probabilities(np.array([point.threshold]))[0])
            rates = [str(rate) if measured else "–" for rate in (point.fpr, point.recall, point.precision)]
            rule = point.chosen_for.replace("false-positive rate", "fpr") if measured else "–"
            rows.append([f"{mark} {point.name}", rule, f"{point.threshold:.3f}", f"{at:.3f}".removeprefix("0"), *rates])
    return rows


def _elsewhere(points: OperatingPoints, rates: Sequence[float]) -> list[list[str]]:
    rows = [["", *map(percent, rates)]]
    for name, point in points.items():
        mark = "*" if name == points.default else " "
        rows.append([f"{mark} {name}", *(told(AtBaseRate.of(point, rate).precision) for rate in rates)])
    return rows


def _holding(prior: float | None, share: float) -> str:
    """For which share of unsafe images probabilities hold."""
    if prior is None:
        return "too few images to calibrate on: its probabilities are scores, which hold for no known share of images"
    if prior == share:
        return f"probabilities hold where {percent(share)} are unsafe, as here; prior=0.02 gives those for 2 %"
    return f"probabilities hold where {percent(prior)} are unsafe; they were moved there from the {percent(share)} here"


def beside_warnings(guard: Guard) -> list[str]:
    """A sentence for each way in which a guard does worse on the other images than validation says."""
    said = (guard.about.get("validation") or {}).get("beside", ())
    return [text for one in said for text in Beside.from_dict(one).warnings(guard.points, guard.calibration)]


def _beside(one: Beside) -> list[list[str]]:
    rows = [["", "false positives", "recall"]]
    rows += [
        [f"  {name}", str(rates.false_alarms), str(rates.misses.complement())] for name, rates in one.points.items()
    ]
    rows.append(["calibration error", str(one.reliability.ece), f"without chance ({one.reliability.chance})"])
    if one.named is not None:
        rows.append(["categories named rightly", str(one.named), ""])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _wrapped(text: str, hang: str = "  ") -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent=hang))


def _size(path: Path) -> str:
    size = path.stat().st_size
    for unit in ("B", "kB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:.1f} MB"
