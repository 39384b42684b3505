"""A block of images under one attack: attacked, written as files, and judged as the guard judges files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guardtrain.benchmarks.attacks.everyday import EVERYDAY, generator
from guardtrain.benchmarks.attacks.gradient import Attacked, deepfool, eight_bit, fgsm, gaussian, pgd, within
from guardtrain.benchmarks.attacks.settings import UNCHANGED, Attack
from guardtrain.benchmarks.attacks.target import Target


@dataclass(frozen=True)
class Image:
    """An image to be attacked.

    Args:
        id: its record's.
        label: 1 is unsafe.
        content: the bytes of its file.
    """

    id: str
    label: int
    content: bytes


def attacked_rows(
    target: Target, attack: Attack, images: Sequence[Image], seed: int, batch_size: int
) -> list[dict[str, Any]]:
    """A row an image: what the guard makes of it under an attack.

    `right` is the guard's decision on the file: pixels rounded to eight bits, written as PNG, and read by the path of
    `guardtrain predict`. `right_float` is that on the attack's own, unrounded pixels; None where there are no others.

    Args:
        target: the guard.
        attack: the attack.
        images: some.
        seed: of noise, starting points and crops; each image has draws of its own.
        batch_size: images a gradient.

    Returns:
        `logit` and `right` (of the file), `right_float`, `linf` and `l2` (of the change of the unrounded pixels),
        `linf_file` (of the file's), `needed` (DeepFool: the change that crosses the boundary, limited by nothing),
        `steps`, `flat` (no gradient to go by), `trained_on` (of images as they are: whether the guard was trained on
        them; None where it does not know).
    """
    labels = np.array([image.label for image in images], dtype=np.int64)
    rows: list[dict[str, Any]] = [dict(_NOTHING) for _ in images]
    if attack.on_pixels:
        files = []
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            files += _on_pixels(target, attack, images[part], labels[part], seed, rows[part])
    elif attack == UNCHANGED:
        files = [image.content for image in images]
    else:
        from guardtrain.sources.decoding import decode

        change = EVERYDAY[attack.name]
        keys = [f"{seed}\0{image.id}" for image in images]
        files = [change(decode(one.content), attack.strength, key) for one, key in zip(images, keys, strict=True)]
    embeddings = target.embeddings(files)
    if attack == UNCHANGED and (own := target.guard.known_images.trained_on(embeddings)) is not None:
        for row, trained in zip(rows, own.tolist(), strict=True):
            row["trained_on"] = trained
    logits = target.guard.logits(embeddings)
    for row, logit, right in zip(rows, logits.tolist(), target.right(logits, labels).tolist(), strict=True):
        row |= {"logit": logit, "right": right}
    return rows


_UNKNOWN = ("right_float", "linf", "l2", "linf_file", "needed", "trained_on")
_NOTHING = dict.fromkeys(_UNKNOWN) | {"steps": 0, "flat": False}


def _on_pixels(
    target: Target, attack: Attack, images: Sequence[Image], labels: np.ndarray, seed: int, rows: list[dict[str, Any]]
) -> list[bytes]:
    """The files an attack on pixels leaves; what is known of its pixels goes into `rows`."""
    original = torch.from_numpy(target.pixels([image.content for image in images])).to(target.device)
    original = original.permute(0, 3, 1, 2)
    pixels = original.float() / 255
    truth = torch.from_numpy(labels).to(target.device)
    found = _run(target, attack, images, pixels, original, truth, seed)
    after, levels, needed = found.pixels, eight_bit(found.pixels), None
    if attack.needs_gradient:
        needed = (after - pixels).abs().flatten(1).amax(1) if attack.name == "deepfool" else None
        after = within(after, pixels, attack.strength)
        levels = eight_bit(after, original, attack.strength)
    with torch.no_grad():
        margins = target.margins(after, truth)
    change = (after - pixels).flatten(1)
    apart = (levels.float() - original.float()).flatten(1).abs().amax(1) / 255
    for i, row in enumerate(rows):
        row |= {
            "right_float": bool(margins[i] >= 0 if truth[i] == 1 else margins[i] > 0),
            "linf": float(change[i].abs().max()),
            "l2": float(change[i].norm()),
            "linf_file": float(apart[i]),
            # crossed or not: what never crosses has no such distance
            "needed": float(needed[i]) if needed is not None and not _still_right(target, found, i, truth) else None,
            "steps": int(found.steps[i]),
            "flat": bool(found.flat[i]),
        }
    files = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [target.file_of(one) for one in files]


def _still_right(target: Target, found: Attacked, i: int, labels: Tensor) -> bool:
    with torch.no_grad():
        return bool(target.margins(found.pixels[i : i + 1], labels[i : i + 1])[0] >= 0)


def _run(
    target: Target,
    attack: Attack,
    images: Sequence[Image],
    pixels: Tensor,
    original: Tensor,
    labels: Tensor,
    seed: int,
) -> Attacked:
    epsilon, options = attack.strength, attack.options
    if attack.name == "gaussian":
        noise = [generator(seed, image.id, "gaussian").standard_normal(pixels.shape[1:], "f4") for image in images]
        return gaussian(pixels, torch.from_numpy(np.stack(noise)).to(pixels), epsilon)
    if attack.name == "fgsm":
        return fgsm(target.margins, pixels, labels, epsilon)
    if attack.name == "deepfool":
        return deepfool(target.margins, pixels, labels, **options)
    return _restarted(target, attack, images, pixels, original, labels, seed)


def _restarted(
    target: Target,
    attack: Attack,
    images: Sequence[Image],
    pixels: Tensor,
    original: Tensor,
    labels: Tensor,
    seed: int,
) -> Attacked:
    """PGD from several places, the next for those images that still survive, as files or unrounded.

    The first candidate is FGSM's point, so that few or short steps never leave more images right than one long step. A
    point that fools the guard both ways ends the search; until then one that does so as a file is kept.
    """
    epsilon, options = attack.strength, attack.options

    def fooled_by_file(now: Tensor, places: Tensor) -> Tensor:
        levels = eight_bit(now, original[places], epsilon)
        with torch.no_grad():
            return target.margins(levels.float() / 255, labels[places]) < 0

    best = fgsm(target.margins, pixels, labels, epsilon)
    with torch.no_grad():
        lowest = target.margins(best.pixels, labels)
    todo = torch.arange(len(labels), device=pixels.device)
    by_file = fooled_by_file(best.pixels, todo)
    todo = todo[~(by_file & (lowest < 0))]
    for turn in range(max(1, options["restarts"])):
        if not len(todo):
            break
        start = None
        if options["restarts"]:
            draws = [generator(seed, images[i].id, "pgd", turn) for i in todo.tolist()]
            places = np.stack([draw.uniform(-1, 1, pixels.shape[1:]).astype(np.float32) for draw in draws])
            start = torch.from_numpy(places).to(pixels)

        found = pgd(
            target.margins,
            pixels[todo],
            labels[todo],
            epsilon,
            steps=options["steps"],
            step_size=options["step_size"],
            start=start,
            settled=lambda now, rows, todo=todo: fooled_by_file(now, todo[rows]),  # type: ignore[misc]
        )
        files, before = fooled_by_file(found.pixels, todo), by_file[todo]
        with torch.no_grad():
            margins = target.margins(found.pixels, labels[todo])
        taken = (files & ~before) | ((margins < lowest[todo]) & (files | ~before))
        best.pixels[todo[taken]], lowest[todo[taken]] = found.pixels[taken], margins[taken]
        by_file[todo] |= files
        best.steps[todo] += found.steps
        best.flat[todo] |= found.flat
        todo = todo[~(by_file[todo] & (lowest[todo] < 0))]
    return best
