"""`guardtrain predict`: images judged by a guard → a table of probabilities and decisions."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from guardtrain.commands.arguments import placed_apart
from guardtrain.commands.data import settings_told
from guardtrain.config import PredictConfig
from guardtrain.config_checks import typed
from guardtrain.errors import ConfigError
from guardtrain.grammar import quoted, setting_text
from guardtrain.sources.frames import most_frames

if TYPE_CHECKING:
    from guardtrain.guards.predicting import ImageJudge
    from guardtrain.guards.prediction_inputs import InputImage
    from guardtrain.sources.walk import Walk

STDOUT = "-"
_JUDGING = ("Judging", "Judged")
_DECIDED = {"unsafe": "flagged", "review": "review", "safe": "safe"}
_ANIMATION = "animation"
_TOLD = ["decision", "frames"]

log = logging.getLogger(__name__)


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """Arguments that are paths, and no settings, as the setting `inputs`.

    A path with `=` in its name needs `./` before it, or it would be a setting.

    >>> as_overrides(["guard=g", "a.jpg", "my photos", "out=-"])
    ['guard=g', 'out=-', "inputs=['a.jpg','my photos']"]
    """
    settings, paths = placed_apart(arguments)
    return [*settings, f"inputs=[{','.join(map(quoted, paths))}]"] if paths else settings


def run(config: DictConfig) -> None:
    """Judge what `config` (see `PredictConfig`) names; a prediction that was cut off goes on."""
    settings = typed(config, PredictConfig)
    if settings.out == STDOUT:
        _log_to_stderr()
    _check(settings)

    from guardtrain.guards.guard import Guard
    from guardtrain.sources.walk import Walk

    walk = Walk()
    total = sum(1 for _ in _images(settings, walk))
    for line in walk.lines():
        log.info("%s", line)
    guard = Guard.load(
        settings.guard,
        revision=settings.revision,
        checkpoint=settings.checkpoint,
        device=settings.device,
        trusted_heads=settings.trusted_heads,
    )
    point = guard.points[settings.point or guard.default_point].name
    if settings.explain:
        guard.neighbours  # noqa: B018  (refused before anything is read)

    from guardtrain.guards.predicting import ImageJudge

    judge = ImageJudge(guard, round(settings.max_megapixels * 1e6), settings.frames)
    log.info("guard       %s, point %s, on %s", guard.name, point, guard.spec.label)
    counts = _to_stdout(settings, judge, point) if settings.out == STDOUT else _to_file(settings, judge, point, total)
    if getattr(sys.stdout, "closed_by_reader", False):
        return
    for line in summary(counts, settings.frames):
        log.info("%s", line)
    if settings.out != STDOUT:
        log.info("written     %s", settings.out)


def summary(counts: Counter[str], frames: str) -> list[str]:
    """How many images were decided how, how many could not be read, and by what animations were judged.

    Args:
        counts: decisions, "" where there is none, and `animation` once more for each of these.
        frames: the setting.
    """
    total = sum(counts[key] for key in (*_DECIDED, ""))
    lines = [f"images      {total:,}"]
    for key, name in (*_DECIDED.items(), ("", "unreadable")):
        if counts[key] or key in ("unsafe", "safe"):
            lines.append(f"{name:<12}{counts[key]:,} ({counts[key] / total:.1%})")
    if counts[_ANIMATION]:
        by = {1: "by their first frame", None: "by all their frames"}
        most = most_frames(frames)
        how = by.get(most, f"by the likeliest of up to {most} frames each (frames=all looks at more)")
        lines.append(f"animations  {counts[_ANIMATION]:,}, judged {how}")
    return lines


def _check(settings: PredictConfig) -> None:
    from guardtrain.guards.prediction_file import SUFFIXES

    if not settings.inputs:
        raise ConfigError(
            "There is nothing to judge: name files or folders, such as `guardtrain predict guard=DIR photos`."
        )
    out = Path(settings.out).expanduser()
    if settings.out != STDOUT and out.suffix not in SUFFIXES:
        raise ConfigError(
            f"out is '{settings.out}'; it ends in {', '.join(SUFFIXES)}, or is {STDOUT} for JSON lines on stdout."
        )
    if settings.out != STDOUT and out.exists() and not settings.overwrite:
        raise ConfigError(f"{out} is there already; give another out=…, or overwrite=true.")


def _images(settings: PredictConfig, walk: Walk | None = None) -> Iterator[InputImage]:
    """What is to be judged, as often as it is asked for."""
    from guardtrain.guards.prediction_inputs import input_images

    with settings_told(lambda name, value: shlex.quote(f"{name}={setting_text(value, spaced=True)}")):
        yield from input_images(settings.inputs, walk, settings.columns)


def _to_file(settings: PredictConfig, judge: ImageJudge, point: str, total: int) -> Counter[str]:
    from guardtrain.embeddings.progress import reported
    from guardtrain.guards.bulk import judged, parts_of
    from guardtrain.guards.prediction_file import PredictionFile, schema
    from guardtrain.guards.prediction_inputs import content_key

    guard = judge.guard
    plan = {
        "guard": guard.about["sha256"],
        "point": point,
        "explain": settings.explain,
        "frames": most_frames(settings.frames),
        "max_megapixels": settings.max_megapixels,
        "part_size": settings.part_size,
    }
    columns = schema(bool(guard.category_points), settings.explain > 0, guard.category_head is not None)
    counts: Counter[str] = Counter()
    number = 0
    with PredictionFile(Path(settings.out).expanduser(), plan, columns).writing() as file:
        todo = parts_of(_images(settings), settings.part_size)
        with reported(settings.progress, total, 0, f"with the guard {guard.name}", verbs=_JUDGING) as advance:
            for number, images in enumerate(todo):
                key = content_key(images)
                table = file.part(number, key)
                if table is None:
                    rows = judged(
                        judge, images, point=point, explain=settings.explain, workers=settings.workers, advance=advance
                    )
                    table = file.write_part(number, key, rows)
                else:
                    advance(len(images))
                counts.update(_counted(table.select(_TOLD).to_pylist()))
        file.finish(number + 1)
    return counts


def _to_stdout(settings: PredictConfig, judge: ImageJudge, point: str) -> Counter[str]:
    from guardtrain.guards.bulk import judged, parts_of
    from guardtrain.guards.prediction_file import json_line

    counts: Counter[str] = Counter()
    size = min(settings.part_size, 16 * judge.guard.encoder.rows_a_pass)  # whoever reads along need not wait long
    for images in parts_of(_images(settings), size):
        rows = judged(judge, images, point=point, explain=settings.explain, workers=settings.workers)
        sys.stdout.writelines(json_line(row) for row in rows)
        sys.stdout.flush()
        if getattr(sys.stdout, "closed_by_reader", False):
            break
        counts.update(_counted(rows))
    return counts


def _counted(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for row in rows:
        yield row["decision"] or ""
        if (row["frames"] or 1) > 1:
            yield _ANIMATION


def _log_to_stderr() -> None:
    """What is told must not come between the rows, which are UTF-8 in any locale."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
