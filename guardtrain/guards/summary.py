"""A guard in a few lines for the terminal: what was chosen, how reliable it is, its points and its files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guardtrain.guards.calibration import Calibrator
from guardtrain.guards.export import Exported
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints, ThreeWay

WIDTH = 110


def summary_text(exported: Exported) -> str:
    """All of it; lines that are not indented are titles."""
    guard = exported.guard
    said = guard.about["validation"]
    unsafe = f"{said['images']:,} images, {said['unsafe']:,} of them unsafe"
    facts = [
        f"{guard.about['training'].get('head', 'head')} on {guard.spec.label}, {guard.dim} dimensions",
        f"calibration and thresholds on {unsafe}: {said['origin']}",
    ]
    before, after = guard.calibration.before, guard.calibration.after
    chance = f"up to {after.ece_noise.high:.3f}".replace(" 0.", " .")
    rows = [
        ["", "before", "after", "by chance alone"],
        ["calibration error", str(before.ece), str(after.ece), chance],
        ["Brier score", str(before.brier), str(after.brier), ""],
        ["log-loss", str(before.log_loss), str(after.log_loss), ""],
    ]
    kind = guard.calibrator.kind
    lines = [f"guard {guard.name}", *(_wrapped(fact) for fact in facts), f"calibration: {kind}", *_table(rows)]
    lines += ["operating points", *_table(_two_way(guard.points, guard.calibrator))]
    lines += [_wrapped(point.line) for point in guard.points.points if isinstance(point, ThreeWay)]
    if guard.category_points:
        lines.append(_wrapped(f"thresholds of their own: {', '.join(guard.category_points)}"))
    warned = [f"{p.name}: {text}" for p in guard.points.points for text in (*map(str, p.warnings), *p.notes)]
    if notes := list(dict.fromkeys([*warned, *exported.notes])):
        lines += ["to know", *(_wrapped(note, hang="    ") for note in notes)]
    differences = {item.file: f"{item.difference:.0e} from the guard" for item in exported.agreements}
    files = [["config.json", _size(guard.path / "config.json"), ""]]
    files += [[name, _size(guard.path / name), differences.get(name, "")] for name in guard.about["files"]]
    return "\n".join([*lines, f"files in {guard.path}", *_table(files)])


def _two_way(points: OperatingPoints, calibrator: Calibrator) -> list[list[str]]:
    rows = [["", "chosen for", "logit", "p", "false positives", "recall", "precision"]]
    for point in points.points:
        if isinstance(point, OperatingPoint):
            mark = "*" if point.name == points.default else " "
            at = float(calibrator.probabilities(np.array([point.threshold]))[0])
            rates = [str(point.fpr), str(point.recall), str(point.precision)]
            rule = str(point.rule).replace("false-positive rate", "fpr")
            rows.append([f"{mark} {point.name}", rule, f"{point.threshold:.3f}", f"{at:.3f}".removeprefix("0"), *rates])
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
