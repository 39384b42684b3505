"""Records and pixels of the embedded testbed: `SceneSource`, a pool of scenes by configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from guardtrain.errors import ConfigError
from guardtrain.records import SAFE, UNSAFE, Records
from guardtrain.scenes import render
from guardtrain.scenes.edits import edit
from guardtrain.scenes.features import CATEGORIES

POOLS = ("real", "pairs", "test")
DEFAULT_ARTEFACT = {"real": 0.0, "pairs": 0.5, "test": 0.0}


@dataclass(frozen=True)
class _Plan:
    """One image's content, before anything is drawn."""

    scene: int  # index into the pool's scenes
    label: int
    category: str


@dataclass
class SceneSource:
    """A pool of procedural scenes, as records and as pixels.

    - `real`: single images. The context goes with the label: with probability `context_correlation` it is one of those
      typical of it. Balanced in label and category. The same pool with another seed is a confounded held-out set.
    - `pairs`: rows 2j (safe) and 2j+1 (unsafe) are the halves of pair j: the same scene but for a local feature. The
      safe half is edited (`edited` is true) and carries the trace of it. Contexts are not correlated with the label.
    - `test`: pairs like those, nobody having edited them.

    Image i depends on the renderer's version, the seed, the pool, the settings below and i, never on `n`.

    Args:
        pool: real, pairs or test.
        n: number of images; even for pairs and test.
        seed: pools and seeds never share a scene.
        context_correlation: for `real`, 0.5 (none) to 1 (always typical), below 0.5 the reverse.
        edit_artefact: strength of the editor's trace in safe halves, 0 to 1; None is 0.5 for `pairs` and 0 for `test`.
            `real` images are never edited.
        categories: keys such as "O5" to draw from; None is all nine.
        size: width and height in pixels, 32 to 256; the demo encoder was trained on 64.

    Raises:
        ConfigError: a value outside these bounds.

    >>> source = SceneSource(pool="pairs", n=4)
    >>> source.records().ids[0]
    'scenes-pairs-s0-000000-safe'
    >>> source.images([0, 1]).shape
    (2, 64, 64, 3)
    """

    pool: str
    n: int
    seed: int = 0
    context_correlation: float = 0.9
    edit_artefact: float | None = None
    categories: list[str] | None = None
    size: int = 64

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ConfigError(f"Unknown scene pool '{self.pool}'; choose one of {', '.join(POOLS)}.")
        if self.n < 1:
            raise ConfigError(f"A scene pool needs at least one image; n is {self.n}.")
        if self.paired and self.n % 2:
            raise ConfigError(f"n counts images and pool '{self.pool}' holds pairs, so n must be even; it is {self.n}.")
        if self.seed < 0:
            raise ConfigError(f"The seed of a scene pool must be 0 or more; it is {self.seed}.")
        if not 0 <= self.context_correlation <= 1:
            raise ConfigError(
                f"context_correlation is a probability between 0 and 1 (0.5: none); it is {self.context_correlation}."
            )
        if self.edit_artefact is not None and not 0 <= self.edit_artefact <= 1:
            raise ConfigError(f"edit_artefact is a strength between 0 and 1; it is {self.edit_artefact}.")
        if self.edit_artefact and not self.paired:
            raise ConfigError(
                "Images of pool 'real' are not edited: leave edit_artefact at null, or use pairs or test."
            )
        if self.categories is not None:
            unknown = [c for c in self.categories if c not in CATEGORIES]
            if unknown or not self.categories or len(set(self.categories)) < len(self.categories):
                raise ConfigError(
                    f"categories must be different ones of {', '.join(CATEGORIES)} (null: all); "
                    f"it is {list(self.categories)}."
                )
        if not 32 <= self.size <= 256:
            raise ConfigError(f"Scenes are 32 to 256 pixels wide; size is {self.size}.")

    @property
    def paired(self) -> bool:
        """Whether rows 2j and 2j+1 are the halves of a pair."""
        return self.pool != "real"

    @property
    def artefact(self) -> float:
        """Strength of the editor's trace in the safe halves."""
        return DEFAULT_ARTEFACT[self.pool] if self.edit_artefact is None else self.edit_artefact

    def records(self) -> Records:
        """The record table of the pool, made once: `image` is null; a column `context` names each background."""
        return self._records

    @cached_property
    def _records(self) -> Records:
        rows = [self._plan(i) for i in range(self.n)]
        contexts = {row.scene: row for row in reversed(rows)}  # of a pair the first half
        scenes = {scene: render.sample_context(*self._thrown(row)).name for scene, row in contexts.items()}
        stems = [f"scenes-{self.pool}-s{self.seed}-{row.scene:06d}" for row in rows]
        halves = ("-safe", "-unsafe") if self.paired else ("", "")
        return Records.from_columns(
            id=[stem + halves[row.label] for stem, row in zip(stems, rows, strict=True)],
            label=[row.label for row in rows],
            category=[CATEGORIES[row.category] for row in rows],
            source=["scenes"] * self.n,
            pair_id=stems if self.paired else [None] * self.n,
            edited=[row.label == SAFE and (self.pool == "pairs" or self.artefact > 0) for row in rows],
            context=[scenes[row.scene] for row in rows],
        )

    def image(self, i: int) -> Image.Image:
        """Image i of the pool, (size, size) RGB."""
        return Image.fromarray(self.images([i])[0])

    def images(self, indices: Iterable[int]) -> np.ndarray:
        """The images at `indices`, (B, size, size, 3) uint8. Both halves of a pair are cheapest side by side."""
        wanted = [self._checked(i) for i in indices]
        images = np.empty((len(wanted), self.size, self.size, 3), np.uint8)
        k = 0
        while k < len(wanted):
            plan = self._plan(wanted[k])
            together = [plan]
            if self.paired and k + 1 < len(wanted) and wanted[k + 1] // 2 == wanted[k] // 2:
                together.append(self._plan(wanted[k + 1]))
            scene = self._scene(plan)
            halves = render.render(scene, [p.label for p in together], self.size)
            for half, p in zip(halves, together, strict=True):
                traced = self.artefact and p.label == SAFE
                images[k] = edit(half, render.mask(scene, self.size), self.artefact) if traced else half
                k += 1
        return images

    def mask(self, i: int) -> np.ndarray:
        """Ground truth of image i: (size, size) bool, the pixels that change when its feature flips."""
        return render.mask(self._scene(self._plan(self._checked(i))), self.size)

    def feature_name(self, i: int) -> str:
        """Name the feature of image i that decides its label, such as "a hair dryer"."""
        plan = self._plan(self._checked(i))
        stand_in = self._scene(plan).stand_in
        return stand_in.unsafe if plan.label == UNSAFE else stand_in.safe

    def content_key(self) -> str:
        """sha256 (hex) of all that decides the pixels of image i: renderer version and settings, but for `n`."""
        settings = {**asdict(self), "edit_artefact": self.artefact, "renderer_version": render.RENDERER_VERSION}
        settings["categories"] = self._categories()
        del settings["n"]
        if self.paired:
            del settings["context_correlation"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def _categories(self) -> list[str]:
        return list(CATEGORIES) if self.categories is None else list(self.categories)

    def _checked(self, i: int) -> int:
        if not 0 <= i < self.n:
            raise IndexError(f"image {i} of a pool of {self.n} scene images")
        return int(i)

    def _plan(self, i: int) -> _Plan:
        """Image i's label and category: each couple of rows has both labels, couples go through the categories."""
        couple, second = divmod(i, 2)
        categories = self._categories()
        category = categories[couple % len(categories)]
        return _Plan(couple if self.paired else i, UNSAFE if second else SAFE, category)

    def _scene(self, plan: _Plan) -> render.Scene:
        generator, label, correlation = self._thrown(plan)
        return render.sample_scene(generator, plan.category, label, correlation)

    def _thrown(self, plan: _Plan) -> tuple[np.random.Generator, int, float]:
        """Return what a scene is thrown with: its generator, the label its context goes with, and how closely."""
        generator = render.entropy(self.pool, self.seed, plan.scene)
        # a pair has both labels, so its context can only be drawn without regard to them
        return (generator, SAFE, 0.5) if self.paired else (generator, plan.label, self.context_correlation)
