"""From a seed to pixels: what a scene holds, both its halves, and the mask of what differs between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from guardtrain.scenes.canvas import Colour, Dice, Look, Pen
from guardtrain.scenes.clutter import CLUTTER, COLOURS
from guardtrain.scenes.contexts import CONTEXTS, TYPICAL, Context
from guardtrain.scenes.features import BY_CATEGORY, StandIn

RENDERER_VERSION = 1
"""Raised whenever the same seed gives other pixels; part of every scene's entropy and of every content key."""

POOLS = {"real": 1, "pairs": 2, "test": 3, "captions": 4}
"""Pools and their place in the entropy: no two pools ever share a scene. `captions` trains the demo encoder."""

STYLES = ("flat", "outlined", "pale", "textured")
LIGHTS = ("even", "bright", "dim", "from the left", "from the right", "from above")

# Uniform numbers read for each scene, and how many of them are for its layout; the rest are for its backdrop.
# At most 68 and 29 are in use: with room to spare, a new prop leaves all else as it was.
_DRAWS, _LAYOUT_DRAWS = 384, 224
_SUPERSAMPLING = 2
_CLUTTER_NAMES = tuple(CLUTTER)
_COLOUR_NAMES = tuple(COLOURS)
_TINT_OF_DRAW = ("colour",) * 14 + ("grey", "grey", "sepia", "sepia", "blue", "blue")
_NOISE_SIDE = 512


@dataclass(frozen=True)
class Thing:
    """A piece of clutter: what, where (unit coordinates), how large (half-extent), turned by `angle` radians."""

    name: str
    colour_name: str
    colour: Colour
    x: float
    y: float
    scale: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """Everything about a scene but its label: both halves are drawn from the same `Scene`."""

    category: str
    stand_in: StandIn
    context: Context
    style: str
    tint: str
    light: str
    look: Look
    x: float
    y: float
    scale: float
    angle: float
    flip: bool
    behind: tuple[Thing, ...]
    before: tuple[Thing, ...]
    light_strength: float
    noise: float
    noise_at: tuple[int, int]
    backdrop_draws: tuple[float, ...]


def entropy(pool: str, seed: int, index: int) -> np.random.Generator:
    """The generator of scene `index`: independent between pools, seeds, indices and renderer versions."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((RENDERER_VERSION, POOLS[pool], seed, index))))


def sample_scene(generator: np.random.Generator, category: str, label: int, context_correlation: float) -> Scene:
    """Throw a scene.

    Args:
        generator: a fixed count of uniform numbers is read from it.
        category: a key of `features.CATEGORIES`.
        label: what the context is correlated with; it has no other influence on the scene.
        context_correlation: probability that the context is one typical of `label`; 0.5 is no correlation.
    """
    values = generator.random(_DRAWS).tolist()
    dice = Dice(values[:_LAYOUT_DRAWS])
    context = _throw_context(dice, label, context_correlation)
    stand_in = dice.choice(BY_CATEGORY[category])
    scale = dice.uniform(0.22, 0.36)
    angle = dice.uniform(-0.25, 0.25) if stand_in.upright else dice.uniform(-0.8, 0.8)
    x, y = dice.uniform(0.3, 0.7), dice.uniform(0.34, 0.66)
    behind = tuple(_throw_thing(dice) for _ in range(dice.below(4)))
    before = (_throw_occluder(dice, x, y, scale),) if dice.chance(0.3) else ()
    return Scene(
        category=category,
        stand_in=stand_in,
        context=context,
        style=dice.choice(STYLES),
        tint=dice.choice(_TINT_OF_DRAW),
        light=dice.choice(LIGHTS),
        look=Look.throw(dice),
        x=x,
        y=y,
        scale=scale,
        angle=angle,
        flip=dice.chance(0.5) and not stand_in.chiral,
        behind=behind,
        before=before,
        light_strength=dice.uniform(0.2, 0.55),
        noise=dice.uniform(1.0, 6.0),
        noise_at=(dice.below(_NOISE_SIDE), dice.below(_NOISE_SIDE)),
        backdrop_draws=tuple(values[_LAYOUT_DRAWS:]),
    )


def sample_context(generator: np.random.Generator, label: int, context_correlation: float) -> Context:
    """The context of the scene that `sample_scene` throws of this generator: its first two numbers decide it."""
    return _throw_context(Dice(generator.random(2).tolist()), label, context_correlation)


def _throw_context(dice: Dice, label: int, context_correlation: float) -> Context:
    typical = label if dice.chance(context_correlation) else 1 - label
    return dice.choice(TYPICAL[typical])


def _throw_thing(dice: Dice) -> Thing:
    colour = dice.choice(_COLOUR_NAMES)
    return Thing(
        dice.choice(_CLUTTER_NAMES),
        colour,
        dice.near(COLOURS[colour]),
        dice.uniform(0.04, 0.96),
        dice.uniform(0.3, 0.95),
        dice.uniform(0.06, 0.13),
        dice.uniform(-0.4, 0.4),
    )


def _throw_occluder(dice: Dice, x: float, y: float, scale: float) -> Thing:
    """Clutter in front of the rim of the subject, so that it hides a part of it and never all."""
    thing = _throw_thing(dice)
    direction = dice.uniform(0, 2 * math.pi)
    reach = scale * dice.uniform(0.9, 1.3)
    return Thing(
        thing.name,
        thing.colour_name,
        thing.colour,
        x + reach * math.cos(direction),
        y + reach * math.sin(direction),
        min(thing.scale, 0.5 * scale),
        thing.angle,
    )


def render(scene: Scene, labels: Sequence[int], size: int = 64) -> np.ndarray:
    """The halves of `scene` named by `labels` (1 unsafe, 0 safe).

    Returns:
        (len(labels), size, size, 3) uint8. Outside `mask(scene)` all halves are equal, bit for bit.
    """
    drawn = _draw(scene, labels, size).astype(np.float32)
    if scene.tint != "colour":
        grey = (
            drawn[..., :1] * np.float32(0.30) + drawn[..., 1:2] * np.float32(0.59) + drawn[..., 2:] * np.float32(0.11)
        )
        drawn = grey * _TINT_FACTORS[scene.tint]
    drawn *= _light_map(scene.light, size) * np.float32(scene.light_strength) + np.float32(1)
    row, column = scene.noise_at
    noise = _noise(size)[row : row + size, column : column + size]
    drawn += noise * np.float32(scene.noise * (1.5 if scene.style == "textured" else 1.0))
    return np.clip(drawn, 0, 255).astype(np.uint8)


def mask(scene: Scene, size: int = 64) -> np.ndarray:
    """(size, size) bool: the pixels that the flipped feature touches, before tint, light and noise."""
    safe, unsafe = _draw(scene, (0, 1), size)
    return np.asarray((safe != unsafe).any(axis=-1))


def _draw(scene: Scene, labels: Sequence[int], size: int) -> np.ndarray:
    """(len(labels), size, size, 3) uint8: the halves as drawn, without tint, light and noise."""
    pixels = size * _SUPERSAMPLING
    outlined, pale = scene.style == "outlined", 0.3 if scene.style == "pale" else 0.0
    canvas = Image.new("RGB", (pixels, pixels))
    pen = Pen(ImageDraw.Draw(canvas), pixels, outlined, pale)
    scene.context.draw(pen, Dice(scene.backdrop_draws))
    for thing in scene.behind:
        CLUTTER[thing.name](pen.at(thing.x, thing.y, thing.scale, thing.angle), thing.colour)
    subject = pen.at(scene.x, scene.y, scene.scale, scene.angle, scene.flip)
    scene.stand_in.subject(subject, scene.look)
    halves = np.empty((len(labels), size, size, 3), np.uint8)
    for k, label in enumerate(labels):
        half = canvas if k == len(labels) - 1 else canvas.copy()
        pen = Pen(ImageDraw.Draw(half), pixels, outlined, pale)
        feature = scene.stand_in.draw_unsafe if label else scene.stand_in.draw_safe
        feature(pen.at(scene.x, scene.y, scene.scale, scene.angle, scene.flip), scene.look)
        for thing in scene.before:
            CLUTTER[thing.name](pen.at(thing.x, thing.y, thing.scale, thing.angle), thing.colour)
        halves[k] = np.asarray(half.reduce(_SUPERSAMPLING))
    return halves


_TINT_FACTORS = {
    "grey": np.array([1.0, 1.0, 1.0], np.float32),
    "sepia": np.array([1.12, 0.95, 0.74], np.float32),
    "blue": np.array([0.66, 0.82, 1.16], np.float32),
}


@lru_cache(maxsize=64)
def _light_map(light: str, size: int) -> np.ndarray:
    """(size, size, 1) float32 between -1 and 1: what is added to a light factor of 1, at full strength."""
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    if light == "from the left":
        field = np.broadcast_to(-ramp, (size, size))
    elif light == "from the right":
        field = np.broadcast_to(ramp, (size, size))
    elif light == "from above":
        field = np.broadcast_to(-ramp[:, None], (size, size))
    else:
        field = np.full((size, size), {"even": 0.0, "bright": 0.45, "dim": -0.8}[light], np.float32)
    return np.ascontiguousarray(field)[..., None]


@lru_cache(maxsize=4)
def _noise(size: int) -> np.ndarray:
    """A fixed field of unit normal noise, (512 + size, 512 + size, 3) float32; each scene takes its own window."""
    side = _NOISE_SIDE + size
    return np.random.Generator(np.random.PCG64(RENDERER_VERSION)).standard_normal((side, side, 3), dtype=np.float32)


__all__ = ["CONTEXTS", "POOLS", "RENDERER_VERSION", "Scene", "entropy", "mask", "render", "sample_scene"]
