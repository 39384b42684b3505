"""Drawing in unit coordinates: a pen with a transform and a style, colours, and dice that can be thrown again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
T = TypeVar("T")

WHITE: Colour = (240, 238, 232)
BLACK: Colour = (34, 32, 36)
METAL: Colour = (150, 154, 162)

# Two radii of circle are enough: at twice the image size a 14-gon of 20 pixels cannot be told from a circle.
_CIRCLE = tuple((math.cos(2 * math.pi * k / 14), math.sin(2 * math.pi * k / 14)) for k in range(14))


class Dice:
    """Uniform numbers from a fixed list, so that a second `Dice` on the same list throws the same.

    Plain Python floats: reading one costs a tenth of a scalar draw from a numpy Generator.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Sequence[float]) -> None:
        self._values: Iterator[float] = iter(values)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * next(self._values)

    def chance(self, probability: float) -> bool:
        return next(self._values) < probability

    def below(self, n: int) -> int:
        """An integer in 0..n-1."""
        return int(next(self._values) * n)

    def choice(self, options: Sequence[T]) -> T:
        return options[int(next(self._values) * len(options))]

    def near(self, colour: Colour, spread: float = 18.0) -> Colour:
        """`colour` moved by up to `spread` grey levels in each channel."""
        r, g, b = colour
        v = self._values
        return (
            _byte(r + spread * (2 * next(v) - 1)),
            _byte(g + spread * (2 * next(v) - 1)),
            _byte(b + spread * (2 * next(v) - 1)),
        )


def _byte(value: float) -> int:
    return 0 if value < 0 else 255 if value > 255 else int(value)


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor < 1) or lighter (factor > 1, towards white)."""
    if factor <= 1:
        return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))
    t = min(1.0, factor - 1)
    return (
        int(colour[0] + (255 - colour[0]) * t),
        int(colour[1] + (255 - colour[1]) * t),
        int(colour[2] + (255 - colour[2]) * t),
    )


class Pen:
    """Draws polygons, ellipses and strokes through a similarity transform.

    Args:
        draw: what is drawn on.
        pixels: width of the (square) canvas; unit coordinates run from 0 to 1, y downwards.
        outlined: whether every filled shape also gets a dark contour.
        pale: how far fills are washed out towards white, 0 to 1.
    """

    __slots__ = ("_a", "_b", "_c", "_d", "_draw", "_tx", "_ty", "outlined", "pale", "pixels")

    def __init__(self, draw: ImageDraw.ImageDraw, pixels: int, outlined: bool = False, pale: float = 0.0) -> None:
        self._draw = draw
        self.pixels = pixels
        self.outlined = outlined
        self.pale = pale
        self._a = self._d = float(pixels)
        self._b = self._c = self._tx = self._ty = 0.0

    def at(self, x: float, y: float, scale: float, angle: float = 0.0, flip: bool = False) -> Pen:
        """A pen whose origin lies at unit coordinates (x, y), with `scale` as its unit, turned by `angle` (radians)."""
        pen = Pen(self._draw, self.pixels, self.outlined, self.pale)
        cos, sin = math.cos(angle) * scale * self.pixels, math.sin(angle) * scale * self.pixels
        sign = -1.0 if flip else 1.0
        pen._a, pen._b, pen._c, pen._d = cos * sign, -sin, sin * sign, cos
        pen._tx, pen._ty = x * self.pixels, y * self.pixels
        return pen

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        a, b, c, d, tx, ty = self._a, self._b, self._c, self._d, self._tx, self._ty
        xy = [(a * x + b * y + tx, c * x + d * y + ty) for x, y in points]
        self._draw.polygon(xy, fill=self._wash(fill))
        if self.outlined:
            xy.append(xy[0])
            self._draw.line(xy, fill=(30, 28, 32), width=max(1, self.pixels // 96))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self.polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour, height: float | None = None) -> None:
        """A filled ellipse of half-width `radius` and half-height `height` (default: a circle)."""
        ry = radius if height is None else height
        self.polygon([(x + radius * u, y + ry * v) for u, v in _CIRCLE], fill)

    def stroke(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A line through `points`, `width` in the pen's own unit; never outlined."""
        a, b, c, d, tx, ty = self._a, self._b, self._c, self._d, self._tx, self._ty
        xy = [(a * x + b * y + tx, c * x + d * y + ty) for x, y in points]
        self._draw.line(xy, fill=self._wash(colour), width=max(1, round(width * math.hypot(a, c))), joint="curve")

    def ring(self, x: float, y: float, radius: float, colour: Colour, width: float) -> None:
        points = [(x + radius * u, y + radius * v) for u, v in _CIRCLE]
        self.stroke([*points, points[0]], colour, width)

    def _wash(self, colour: Colour) -> Colour:
        return shade(colour, 1 + self.pale) if self.pale else colour


_BRIGHT: tuple[Colour, ...] = (
    (206, 64, 52),
    (226, 148, 44),
    (222, 200, 70),
    (82, 158, 88),
    (58, 138, 170),
    (74, 88, 178),
    (146, 84, 164),
    (206, 110, 150),
)
_SKINS: tuple[Colour, ...] = ((240, 204, 174), (214, 164, 124), (160, 110, 78), (104, 70, 52))


@dataclass(frozen=True)
class Look:
    """The colours of one scene's subject, the same in both halves."""

    main: Colour
    second: Colour
    dull: Colour
    skin: Colour

    @classmethod
    def throw(cls, dice: Dice) -> Look:
        first = dice.below(len(_BRIGHT))
        second = (first + 1 + dice.below(len(_BRIGHT) - 1)) % len(_BRIGHT)
        grey = int(dice.uniform(45, 130))
        return cls(
            dice.near(_BRIGHT[first]),
            dice.near(_BRIGHT[second]),
            dice.near((grey, grey, grey), 14),
            dice.choice(_SKINS),
        )
