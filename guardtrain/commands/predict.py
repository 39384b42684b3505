"""`guardtrain predict`: images judged by a guard → answers on the screen, or a table of them."""

from __future__ import annotations

import io
import itertools
import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from guardtrain.commands.arguments import placed_apart
from guardtrain.config_checks import typed
from guardtrain.errors import ConfigError, GuardError
from guardtrain.grammar import quoted, setting_text
from guardtrain.guards.predict_settings import SUFFIXES, PredictConfig
from guardtrain.sources.frames import most_frames
from guardtrain.sources.unclear import settings_told

if TYPE_CHECKING:
    from guardtrain.guards.described import DescribedGuard
    from guardtrain.guards.prediction_inputs import InputImage
    from guardtrain.sources.walk import Walk

STDOUT = "-"
SHOWN = 40  # images that are answered one by one on the screen; of more, and no more, the first so many
NAMED = 20  # unreadable images among the others that are named
FEW = 32  # images for which a guard's own program is quicker than to import torch; it judges them one by one
_JUDGING = ("Judging", "Judged")
_DECIDED = {"unsafe": "flagged", "review": "for review", "safe": "not flagged"}
_ANIMATION = "animation"
_TOLD = ["decision", "frames"]

log = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class _Judging:
    """A guard at work.

    Args:
        guard: which.
        point: the operating point.
        rows: images to a row each, in order; tells how many each step was.
        size: images that are answered together where somebody reads along.
    """

    guard: DescribedGuard
    point: str
    rows: Callable[[Sequence[InputImage], Callable[[int], None]], list[Row]]
    size: int


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """Arguments that are paths, and no settings, as the setting `inputs`.

    A path with `=` in its name needs `./` before it, or it would be a setting.

    >>> as_overrides(["guard=g", "a.jpg", "my photos", "out=-"])
    ['guard=g', 'out=-', "inputs=['a.jpg','my photos']"]
    """
    settings, paths = placed_apart(arguments)
    return [*settings, f"inputs=[{','.join(map(quoted, paths))}]"] if paths else settings


def run(config: DictConfig) -> None:
    """Judge what `config` (see `PredictConfig`) names; a table that was cut off goes on."""
    settings = typed(config, PredictConfig)
    if settings.out == STDOUT:
        _log_to_stderr()
    _check(settings)

    from guardtrain.guards.base_rates import holding
    from guardtrain.guards.described import DescribedGuard
    from guardtrain.sources.walk import Walk

    guard = DescribedGuard.read(settings.guard, settings.revision).at(settings.prior)
    point = guard.points[settings.point or guard.points.default].name
    _check_out(settings)
    walk = Walk()
    total = sum(1 for _ in _images(settings, walk))
    for line in walk.lines():
        log.info("%s", line)
    judging = _by_program(settings, guard, point, total) or _by_encoder(settings, guard, point)
    log.info("guard       %s, point %s, on %s%s", guard.name, point, guard.spec.label, holding(guard.prior))
    if settings.out is None:
        counts = _to_screen(settings, judging, total)
    elif settings.out == STDOUT:
        counts = _to_stdout(settings, judging)
    else:
        counts = _to_file(settings, judging, total)
    if _unread():
        return
    if settings.out is not None or total > 1:
        for line in summary(counts, settings.frames):
            log.info("%s", line)
    if settings.out not in (None, STDOUT):
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
    """Raises ConfigError for what needs no guard to be wrong."""
    if not settings.inputs:
        raise ConfigError(
            "There is nothing to judge: name files or folders, such as `guardtrain predict guard=DIR photos`."
        )
    if settings.out not in (None, STDOUT) and Path(str(settings.out)).suffix not in SUFFIXES:
        raise ConfigError(
            f"out is '{settings.out}'; it ends in {', '.join(SUFFIXES)}, or is {STDOUT} for JSON lines on stdout. "
            "Without out= the answers are shown on the screen."
        )


def _check_out(settings: PredictConfig) -> None:
    """Raises ConfigError where a file is there already."""
    if settings.out in (None, STDOUT) or settings.overwrite:
        return
    if (out := Path(str(settings.out)).expanduser()).exists():
        raise ConfigError(f"{out} is there already; give another out=…, or overwrite=true.")


def _images(settings: PredictConfig, walk: Walk | None = None) -> Iterator[InputImage]:
    """Yield what is to be judged, as often as it is asked for."""
    from guardtrain.guards.prediction_inputs import input_images

    with settings_told(lambda name, value: shlex.quote(f"{name}={setting_text(value, spaced=True)}")):
        yield from input_images(settings.inputs, walk, settings.columns)


def _by_program(settings: PredictConfig, guard: DescribedGuard, point: str, total: int) -> _Judging | None:
    """The guard's own program from pixels at work; None where it has none, or torch serves better."""
    if total > FEW or settings.explain or settings.checkpoint is not None or settings.device not in ("auto", "cpu"):
        return None

    from guardtrain.guards.pixel_program import PixelProgram, has_program

    if not has_program(guard.about, guard.spec):
        return None
    try:
        program = PixelProgram(guard)
    except GuardError as error:
        log.info("%s: it is judged through torch, which takes longer to start.", error)
        return None
    frames, most = most_frames(settings.frames), round(settings.max_megapixels * 1e6)

    def rows(images: Sequence[InputImage], advance: Callable[[int], None]) -> list[Row]:
        return list(program.predict(images, point=point, frames=frames, max_pixels=most, advance=advance).rows())

    return _Judging(guard, point, rows, 1)


def _by_encoder(settings: PredictConfig, guard: DescribedGuard, point: str) -> _Judging:
    """The guard's encoder and head at work, on whatever device is there."""
    from guardtrain.guards import bulk
    from guardtrain.guards.guard import Guard
    from guardtrain.guards.predicting import ImageJudge

    loaded = Guard.of(
        guard, checkpoint=settings.checkpoint, device=settings.device, trusted_heads=settings.trusted_heads
    )
    if settings.explain:
        loaded.neighbours  # noqa: B018  (refused before anything is read)
    judge = ImageJudge(loaded, round(settings.max_megapixels * 1e6), settings.frames)

    def rows(images: Sequence[InputImage], advance: Callable[[int], None]) -> list[Row]:
        return bulk.judged(
            judge, images, point=point, explain=settings.explain, workers=settings.workers, advance=advance
        )

    return _Judging(guard, point, rows, 16 * loaded.encoder.rows_a_pass)


def _to_screen(settings: PredictConfig, judging: _Judging, total: int) -> Counter[str]:
    """A line an image; of more than can be read at once the first, and of the others those that cannot be read."""
    from guardtrain.guards.answers import Answers
    from guardtrain.guards.prediction_inputs import parts_of

    images = _images(settings)
    first = list(itertools.islice(images, SHOWN))
    answers = Answers(judging.guard, judging.point, [image.id for image in first])
    counts: Counter[str] = Counter()
    for part in parts_of(first, judging.size):
        rows = judging.rows(part, lambda done: None)
        for row in rows:
            print(answers.line(row), flush=True)
        if _unread():
            return counts
        counts.update(_counted(rows))
    if (more := total - len(first)) <= 0:
        return counts
    from guardtrain.embeddings.progress import reported

    unread: list[Row] = []
    with reported(settings.progress, more, 0, "the others, which are counted only", verbs=_JUDGING) as advance:
        for part in parts_of(images, settings.part_size):
            rows = judging.rows(part, advance)
            unread += [row for row in rows if row["error"] is not None]
            counts.update(_counted(rows))
    for row in unread[:NAMED]:
        print(answers.line(row))
    if len(unread) > NAMED:
        print(f"… and {len(unread) - NAMED:,} more that are unreadable")
    print(f"The first {SHOWN} are shown; out=predictions.csv (.parquet, .jsonl) keeps the answer to every image.")
    return counts


def _to_file(settings: PredictConfig, judging: _Judging, total: int) -> Counter[str]:
    from guardtrain.embeddings.progress import reported
    from guardtrain.guards.prediction_file import PredictionFile, schema
    from guardtrain.guards.prediction_inputs import content_key, parts_of

    guard = judging.guard
    plan = {
        "guard": guard.about["sha256"],
        "point": judging.point,
        "explain": settings.explain,
        "frames": most_frames(settings.frames),
        "max_megapixels": settings.max_megapixels,
        "part_size": settings.part_size,
        **({} if settings.prior is None else {"prior": settings.prior}),
    }
    columns = schema(bool(guard.category_points), settings.explain > 0, bool(guard.category_names))
    counts: Counter[str] = Counter()
    number = 0
    with PredictionFile(Path(str(settings.out)).expanduser(), plan, columns).writing() as file:
        todo = parts_of(_images(settings), settings.part_size)
        with reported(settings.progress, total, 0, f"with the guard {guard.name}", verbs=_JUDGING) as advance:
            for number, images in enumerate(todo):
                key = content_key(images)
                table = file.part(number, key)
                if table is None:
                    table = file.write_part(number, key, judging.rows(images, advance))
                else:
                    advance(len(images))
                counts.update(_counted(table.select(_TOLD).to_pylist()))
        file.finish(number + 1)
    return counts


def _to_stdout(settings: PredictConfig, judging: _Judging) -> Counter[str]:
    from guardtrain.guards.prediction_file import json_line
    from guardtrain.guards.prediction_inputs import parts_of

    counts: Counter[str] = Counter()
    for images in parts_of(_images(settings), min(settings.part_size, judging.size)):
        rows = judging.rows(images, lambda done: None)
        sys.stdout.writelines(json_line(row) for row in rows)
        sys.stdout.flush()
        if _unread():
            break
        counts.update(_counted(rows))
    return counts


def _unread() -> bool:
    """Whether whoever reads the output (`| head`) has seen enough."""
    return bool(getattr(sys.stdout, "closed_by_reader", False))


def _counted(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for row in rows:
        yield row["decision"] or ""
        if (row["frames"] or 1) > 1:
            yield _ANIMATION


def _log_to_stderr() -> None:
    """Keep what is told from coming between the rows, which are UTF-8 in any locale."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
