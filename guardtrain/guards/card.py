"""The model card of a guard: `README.md` with Hugging Face's front matter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.encoders.geometry import WITHOUT_TORCH, border, resized_size
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.guards.base_rates import AtBaseRate, other_rates, shift, told
from guardtrain.guards.directory import CARD, CATEGORIES_ONNX, GUARD_ONNX, HEAD_ONNX, KNOWN_IMAGES, PROGRAM
from guardtrain.guards.head_file import trust
from guardtrain.guards.operating_points import OperatingPoint, ThreeWay
from guardtrain.guards.thresholds_rules import percent

if TYPE_CHECKING:
    from guardtrain.guards.parts import GuardParts

_FILES = (HEAD_ONNX, CATEGORIES_ONNX, GUARD_ONNX, PROGRAM, KNOWN_IMAGES)  # that it tells of, where they are there
_TEMPLATE = "card.md.jinja"
_TAGS = ("image-safety", "content-moderation", "guardtrain")
_METRICS = ("roc_auc", "average_precision", "f1", "brier_score")  # as the hub names them
_OTHER = "other"
_MEANINGS = {  # of what stands in brackets behind a target
    "guaranteed": "kept with that confidence on new images like validation's.",
    "images short": "validation is too small to guarantee it; the threshold is as strict as these images allow, and it "
    "takes so many labels more.",
    "out of reach": "this head does not reach it; more labels would not help.",
    "conformal": "kept on average over validation sets; up to half of them lead to a threshold that exceeds it.",
    "point": "kept on validation itself; about every other validation set leads to a threshold that exceeds it on new "
    "images.",
}


def write_card(folder: Path, parts: GuardParts, content: Mapping[str, Any]) -> None:
    """Write `README.md` of a guard whose other files are in `folder`.

    Args:
        parts: the guard.
        content: what `config.json` will hold.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("guardtrain.guards", ""),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "percent": percent, "told": told}
    environment.globals["zip"] = zip
    share = content["validation"]["unsafe"] / content["validation"]["images"]
    rates = other_rates(parts.prior, share)
    text = environment.get_template(_TEMPLATE).render(
        front=_front_matter(content),
        about=content,
        guard=parts,
        spec=parts.run.spec,
        two_way=[_row(point, parts) for point in parts.points.points if isinstance(point, OperatingPoint)],
        three_way=[point for point in parts.points.points if isinstance(point, ThreeWay)],
        warnings=_warnings(parts),
        shown=parts.points.default if isinstance(parts.points[parts.points.default], OperatingPoint) else None,
        share=share,
        moved=0.0 if parts.prior in (None, share) else shift(share, parts.prior),
        meanings=_meanings(parts),
        rates=rates,
        elsewhere={name: [AtBaseRate.of(point, rate) for rate in rates] for name, point in parts.points.items()},
        trusted=trust(str(content["head"]["_target_"])),
        files={name: (folder / name).is_file() for name in _FILES},
        preparing=preparing(parts.run.spec),
        agreement={item["file"]: item for item in content["agreement"]},
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def preparing(spec: EncoderSpec) -> list[str]:
    """Lines of Python that make of a PIL image in RGB, called `image`, what the encoder takes; none where that is long.

    They do what `guardtrain.encoders.geometry` does, to the last bit.
    """
    if spec.family not in WITHOUT_TORCH or spec.image_size is None:
        return []
    (height, width), (tall, wide) = spec.image_size, resized_size(spec)
    how = f"Image.Resampling.{(spec.interpolation or 'bicubic').upper()}"
    middle = [
        f"left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)",
        f"image = image.crop((left, top, left + {width}, top + {height}))",
    ]
    if spec.resize_mode == "squash":
        found = [f"image = image.resize(({wide}, {tall}), {how})"]
        return found if (tall, wide) == (height, width) else found + middle
    if spec.resize_mode == "shortest" and tall == wide:
        return [
            f"longer = int({tall} * max(image.size) / min(image.size))",
            f"size = ({tall}, longer) if image.width <= image.height else (longer, {tall})",
            f"image = image.resize(size, {how})",
            *middle,
        ]
    if spec.resize_mode != "longest" or (tall, wide) != (height, width):
        return []
    fill = border(spec)
    return [
        f"ratio = max(image.height / {height}, image.width / {width})",
        f"image = image.resize((round(image.width / ratio), round(image.height / ratio)), {how})",
        f"framed = Image.new('RGB', ({width}, {height}), {fill})",
        f"framed.paste(image, (({width} - image.width) // 2, ({height} - image.height) // 2))",
        "image = framed",
    ]


def _front_matter(content: Mapping[str, Any]) -> str:
    """YAML between the dashes, checked and written by the hub's own class."""
    from huggingface_hub import ModelCardData

    family, model = content["encoder"]["family"], content["encoder"]["model"]
    data = ModelCardData(
        license=content["licence"] or _OTHER,
        library_name="guardtrain",
        pipeline_tag="image-classification",
        tags=[*_TAGS, *([family] if family in ("open_clip", "timm") else [])],
        metrics=list(_METRICS),
        base_model=model.removeprefix("hf-hub:") if model.startswith("hf-hub:") else None,
    )
    return str(data.to_yaml())


def _row(point: OperatingPoint, parts: GuardParts) -> dict[str, Any]:
    """A point as the card's table shows it."""
    at = float(parts.calibration.calibrator.probabilities(np.array([point.threshold]))[0])
    promise = "–"
    if point.bound is not None:
        side = "≤" if point.rule.kind == "fpr" else "≥"
        promise = f"{point.rule.kind} {side} {point.bound:.3f} ({point.rule.confidence:.0%})"
    return {"point": point, "probability": f"{at:.3f}", "promise": promise}


def _meanings(parts: GuardParts) -> dict[str, str]:
    """The words in use for how firmly a target is kept, and what they mean."""
    points = (*parts.points.points, *parts.category_points.values())
    return {word: meaning for word, meaning in _MEANINGS.items() if any(f"{word})" in one.chosen_for for one in points)}


def _warnings(parts: GuardParts) -> list[str]:
    """List what validation cannot promise, and what else is to know, once each."""
    lines = [
        f"{point.name}: {text}" for point in parts.points.points for text in (*map(str, point.warnings), *point.notes)
    ]
    lines += [text for one in parts.beside for text in one.warnings(parts.points, parts.calibration)]
    return list(dict.fromkeys([*lines, *parts.notes]))


def _cell(value: Any) -> str:
    """A value in a table of Markdown."""
    if value is None or value != value:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
